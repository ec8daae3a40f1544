"""Embeddings of texts that were read before: a chat brings its earlier turns with every new one, an answer comes again from
the cache, a client's instructions come always.

Keeps vectors under digests of the texts, in memory, the least recently used going first; the texts themselves are not kept.
Knows nothing of what the vectors are used for.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from watchkeeper.encoder.client import EncoderClient

KEPT: Final = 4_096
"""Vectors: some 8 MB."""


class VectorMemory:
    """The encoder, asked once for a text for as long as that is remembered. Not for several threads. `encoded`: how many
    texts the encoder was asked for."""

    def __init__(self, encoder: EncoderClient, kept: int = KEPT) -> None:
        self._encoder = encoder
        self._kept = kept
        self._known: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self.encoded = 0

    async def of(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """A unit vector, float32 (384,), for each text; those that are new in one call. Raises `EncoderUnavailable`."""
        keys = [_key(text) for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        found = {key: self._known[key] for key in keys if key in self._known}
        if new:
            vectors = await self._encoder.embed(list(new.values()))
            self.encoded += len(new)
            found |= {key: vector.copy() for key, vector in zip(new, vectors, strict=True)}
        for key in keys:
            self._known[key] = found[key]
            self._known.move_to_end(key)
        while len(self._known) > self._kept:
            self._known.popitem(last=False)
        return [found[key] for key in keys]


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
