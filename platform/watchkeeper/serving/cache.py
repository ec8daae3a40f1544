"""Answers that were given before, kept in the memory of one gateway worker for requests that would get the same again.

Bounded in entries, bytes and age; the least recently used goes first. A file in the data folder, which `watchkeeper erase`
replaces, has every worker forget all it keeps: at the next look, which is before anything is given. Knows nothing of what
makes two requests the same (recall.py).
"""

import asyncio
import contextlib
import os
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.serving.wire import Delta

FORGOTTEN: Final = "cache.forgotten"
"""The file; it holds nothing that anybody wrote."""
OVERHEAD_BYTES: Final = 4_000
"""What an entry takes besides its texts, an embedding with it; the texts count four bytes a character."""

Stamp = tuple[int, int, int] | None


class Keys(msgspec.Struct, frozen=True):
    """Under what an answer is kept. `near`: what requests share that are alike; None: this one is like no other. `since`:
    what the file was at when the request looked."""

    exact: bytes
    near: bytes | None
    since: Stamp


class Entry(msgspec.Struct, frozen=True):
    """`request_id`: of the request that the model answered so. `embedding`: of its prompt, float32 (384,), unit length,
    where answers are looked for by likeness too; None: there is none."""

    request_id: str
    answer: Delta
    embedding: NDArray[np.float32] | None = None


class _Kept(msgspec.Struct, frozen=True):
    entry: Entry
    at: float
    size: int
    near: bytes | None


class AnswerCache:
    """Not for several threads. `data`: the folder of the file; `clock`: monotonic seconds. `bytes`: what is kept, about."""

    def __init__(self, data: Path, ttl_s: float, max_entries: int, max_bytes: int, clock: Callable[[], float]) -> None:
        self._file = data / FORGOTTEN
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._near: dict[bytes, bytes] = {}
        self._flights: dict[bytes, asyncio.Future[None]] = {}
        self._stamp = self._look()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def now(self) -> Stamp:
        """What the file is at; where it has changed, all is forgotten."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            self._kept.clear()
            self._near.clear()
            self.bytes = 0
        return stamp

    def get(self, key: bytes) -> Entry | None:
        """The answer that is kept under a key; None: there is none, or it is too old."""
        self.now()
        kept = self._kept.get(key)
        if kept is None:
            return None
        if self._clock() - kept.at >= self._ttl_s:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept.entry

    def like(self, near: bytes) -> Entry | None:
        """The last answer that was kept with this second key."""
        key = self._near.get(near)
        return None if key is None else self.get(key)

    def put(self, keys: Keys, entry: Entry) -> None:
        """Keeps an answer, unless all was to be forgotten since its request looked, or it is too large."""
        if self.now() != keys.since:
            return
        size = OVERHEAD_BYTES + 4 * (len(entry.answer.text) + len(repr(entry.answer.extra)))
        self._drop(keys.exact)
        if size > self._max_bytes:
            return
        self._kept[keys.exact] = _Kept(entry, self._clock(), size, keys.near)
        self.bytes += size
        if keys.near is not None:
            self._near[keys.near] = keys.exact
        while len(self._kept) > self._max_entries or self.bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        self.bytes -= kept.size
        if kept.near is not None and self._near.get(kept.near) == key:
            del self._near[kept.near]

    def flight(self, key: bytes) -> asyncio.Future[None] | None:
        """What is done when the request under this key that is being answered has ended; None: there is none."""
        return self._flights.get(key)

    @contextlib.contextmanager
    def flying(self, key: bytes) -> Iterator[None]:
        """While this is entered, a request under this key is being answered. Only where `flight` says that none is."""
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._flights[key]
            flight.set_result(None)

    def _look(self) -> Stamp:
        try:
            status = os.stat(self._file)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def forget(data: Path) -> None:
    """Has the workers of all gateways on this data folder forget every answer they keep."""
    draft = data / f"{FORGOTTEN}.{os.getpid()}.new"
    draft.write_text(uuid.uuid4().hex)
    draft.replace(data / FORGOTTEN)
