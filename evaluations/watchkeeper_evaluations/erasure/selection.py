"""What is to be erased, as ids, and its journal: kept from before the first thing goes until the last has gone, so that
what was cut off, or could not be reached, is finished by the next erasure. Ids only, nothing that anybody wrote.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

JOURNAL: Final = "erasing.json"


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """`requests`: id → when it was received (µs; 0: not known). `feedback`: of what a user said of answers, its id → the
    request that it speaks of. `cases`: of datasets, made of these requests; `replays`: requests that experiments made of
    such cases."""

    requests: dict[str, int] = {}
    feedback: dict[str, str] = {}
    cases: frozenset[str] = frozenset()
    replays: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.requests or self.feedback)

    def __or__(self, other: "Selection") -> "Selection":
        return Selection(
            requests={
                name: max(selection.requests.get(name, 0) for selection in (self, other))
                for name in (*self.requests, *other.requests)
            },
            feedback=self.feedback | other.feedback,
            cases=self.cases | other.cases,
            replays=self.replays | other.replays,
        )

    @property
    def times(self) -> list[int]:
        """When the requests were received (µs), in order, where that is known."""
        return sorted(at for at in self.requests.values() if at)


def begun(data: Path) -> Selection | None:
    """What an erasure that has not ended left to be done; None: there is none."""
    with contextlib.suppress(FileNotFoundError):
        return msgspec.json.decode((data / JOURNAL).read_bytes(), type=Selection)
    return None


def begin(data: Path, selection: Selection) -> None:
    """Puts the journal on the disk."""
    draft = data / f"{JOURNAL}.new"
    with draft.open("wb") as file:
        file.write(msgspec.json.encode(selection, order="deterministic"))
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, data / JOURNAL)


def end(data: Path) -> None:
    """All is done."""
    (data / JOURNAL).unlink(missing_ok=True)
