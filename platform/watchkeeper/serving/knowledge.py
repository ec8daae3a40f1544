"""All knowledge bases, and what one request may read of them: the bases that are open to its tenant and its route.

Each base is searched by itself and its passages take their place by their score, which means the same in all of them: so
not even a word's rarity in one tenant's documents shows in what another one finds. Knows nothing of files or of indexing.
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from watchkeeper.record import Source
from watchkeeper.serving.base import Base, Indexed, Problem
from watchkeeper.serving.index import Found
from watchkeeper.settings.serving import SHARED


class Reading:
    """Some bases, as they are at this moment: what is indexed again meanwhile is not seen. `names`: theirs."""

    def __init__(self, bases: Sequence[Base]) -> None:
        self.names = tuple(base.name or SHARED for base in bases)
        self._indexed: tuple[Indexed | None, ...] = tuple(base.indexed for base in bases)

    def __bool__(self) -> bool:
        """Whether there is any base to read."""
        return bool(self._indexed)

    @cached_property
    def version(self) -> str:
        """16 hex digits that change when what can be found here does; empty where there is no base."""
        versions = [indexed.version if indexed else "" for indexed in self._indexed]
        if len(versions) < 2:
            return "".join(versions)
        return hashlib.sha256(" ".join(versions).encode()).hexdigest()[:16]

    def search(self, query: str, embedding: NDArray[np.float32] | None, k: int, min_score: float) -> Found:
        """The `k` best passages of at least `min_score`; see `Index`. A base without its first index gives none,
        degraded."""
        if len(self._indexed) == 1 and self._indexed[0] is not None:
            return self._indexed[0].index.search(query, embedding, k, min_score)
        sources: dict[str, Source] = {}
        spelling: dict[tuple[str, str], None] = {}
        degraded = False
        for indexed in self._indexed:
            found = indexed.index.search(query, embedding, k, min_score) if indexed else Found((), degraded=True)
            degraded = degraded or found.degraded
            spelling |= dict.fromkeys(found.spelling)
            for source in found.sources:
                known = sources.get(source.text)
                if known is None or known.score < source.score:
                    sources[source.text] = source
        best = sorted(sources.values(), key=lambda source: -source.score)
        return Found(tuple(best[:k]), degraded, tuple(spelling))

    def link(self, text: str) -> tuple[str, ...]:
        """The names of these bases that the text mentions, once each; see `Catalogue`."""
        linked = [name for indexed in self._indexed if indexed for name in indexed.catalogue.link(text)]
        return tuple(dict.fromkeys(linked))


class Knowledge:
    """The bases of one gateway worker."""

    def __init__(self, bases: Iterable[Base]) -> None:
        self.bases = tuple(bases)

    def reading(self, tenant: str, route: str) -> Reading:
        """What a request of this tenant on this route may read. Has each of these bases look for changes, by and by."""
        open_to = [base for base in self.bases if base.open_to(tenant, route)]
        for base in open_to:
            base.look()
        return Reading(open_to)

    @property
    def complete(self) -> bool:
        """Whether what was read last can be found by meaning too, in all bases."""
        return all(base.complete for base in self.bases)

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(problem for base in self.bases for problem in base.problems)

    def look(self) -> None:
        """Has every base look for changes. Call it at the start."""
        for base in self.bases:
            base.look()

    def wait(self, timeout_s: float) -> bool:
        """Waits for the bases that look, that long for each; whether all have ended: all there is has been indexed."""
        ended = [base.wait(timeout_s) for base in self.bases]
        return all(ended)

    def close(self) -> None:
        for base in self.bases:
            base.close()
