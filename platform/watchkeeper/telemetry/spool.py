"""The spool: a gateway worker's durable log of what it accepted, of the records that came of it, and of feedback.

One writer thread puts everything that is queued into one transaction (group commit) and then tells all who wait for it, so
a slow disk makes batches larger and not more. A record is durable when `append` returns: with `process` it survives the
death of this process (kill -9), with `power` also that of the machine. Every accepted request gets exactly one record, by
`append`, or, where that failed or the worker died, one that says so. So it ends to accept while there is still room for
the records of what it accepted. Knows nothing of where records go: `segment.py` is what the shipper reads.
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from watchkeeper.feedback import Feedback
from watchkeeper.record import Record, encode
from watchkeeper.telemetry import room, segment
from watchkeeper.telemetry.adoption import finish
from watchkeeper.telemetry.locks import lock
from watchkeeper.telemetry.room import MAX_BYTES
from watchkeeper.telemetry.segment import FEEDBACK, ID, RECORD, Durability, SegmentUnreadable, Tail

SEGMENT_BYTES: Final = 64 << 20
BATCH: Final = 2_000
"""Most entries of one transaction."""

QUEUE: Final = 20_000
"""Entries that may wait for a disk that stands still; then the spool is full, but for records of what was accepted."""

ACCEPT_S: Final = 0.005
"""How long an accept may wait for others, or for its record, to be committed with."""

RETRY_S: Final = 1.0
"""How often a writer that failed, or found no room, tries again, so that the spool opens without anyone asking for it."""

LOOK_S: Final = 1.0
"""How old the writer lets its knowledge of the room that is left become while it writes."""

LOOK_SHARE: Final = 16
"""It also looks again once it has itself written this part of what was left: others write too, and a file has margins."""

SEGMENTS: Final = 32
"""Into so many segments the room is cut at least: only one that is ended can be retired."""

FAILURES: Final = 3
"""In a row, after which the writer gives the segment up and starts another."""

PATIENCE_S: Final = 0.2
"""The shipper holds the lock of a dead worker for a moment while it adopts what is left."""

ROW_BYTES: Final = 120
"""About what a row costs besides its body."""

YEAR_10000: Final = 253_402_300_800_000_000
"""µs since the epoch: a table partitioned by a later date cannot be read any more."""


class SpoolFull(Exception):
    """The spool cannot take more: it holds what it may, its disk is full or fails, or it is closed. One line."""


class SpoolBusy(Exception):
    """Another living process is the worker of this name, or what a dead one left cannot be ended for now. One line."""


class _Accept(NamedTuple):
    request_id: str
    received_at: int


class _Append(NamedTuple):
    """`brought`: it was not accepted before, and is in the same transaction."""

    request_id: str
    received_at: int
    kind: str
    body: bytes
    done: "asyncio.Future[None] | None"
    brought: bool = False


_Entry = _Accept | _Append


class Spool:
    """The spool of one worker, used from one asyncio loop."""

    @classmethod
    def open(
        cls,
        folder: Path,
        worker: str,
        *,
        durability: Durability = "process",
        segment_bytes: int = SEGMENT_BYTES,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> "Spool":
        """The spool `<folder>/<worker>`, after ending what a dead worker of that name left. Where nothing can be written it
        is full, until something can. `max_bytes`: what all workers' files may come to. `clock`: monotonic seconds.

        Raises `SpoolBusy`, `SpoolFull` where not even a lock can be made, and `ValueError` when the name cannot be a
        folder's.
        """
        if worker in ("", ".", "..") or worker != Path(worker).name:
            raise ValueError(f"a worker's name must do as a folder's, not {worker!r}")
        place = folder / worker
        try:
            place.mkdir(parents=True, exist_ok=True)
            if durability == "power":
                for parent in (folder.parent, folder):
                    _sync(parent)
            held = lock(place / segment.LOCK, patience_s=PATIENCE_S)
        except OSError as error:
            raise SpoolFull(f"{place}: {error}") from error
        if held is None:
            raise SpoolBusy(f"{place}: another process is this worker")
        try:
            finish(place)
            return cls(place, held, durability, min(segment_bytes, max_bytes // SEGMENTS), max_bytes, clock)
        except BaseException as error:
            os.close(held)
            if isinstance(error, sqlite3.Error | OSError | SegmentUnreadable):
                raise SpoolBusy(f"{place}: what a dead worker left cannot be ended now: {error}") from error
            raise

    def __init__(
        self,
        place: Path,
        held: int,
        durability: Durability,
        segment_bytes: int,
        max_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        """For `open`, which holds the lock. Makes the first segment."""
        self._place = place
        self._held = held
        self._durability: Durability = durability
        self._segment_bytes = segment_bytes
        self._max_bytes = max_bytes
        self._clock = clock
        self._left = self._unseen = 0
        self._looked_at: float | None = None
        self._number, self._tail = segment.newest(place)
        self._bytes = 0
        self._open: dict[str, tuple[int, int]] = {}
        self._late: list[_Entry] = []
        self._failures = 0
        self._broken: str | None = None
        self._lack: str | None = None
        self._full: str | None = None
        self._closed = False
        self._together: list[_Entry] = []
        self._handing_over = False
        self._under_way = 0
        self._waking: asyncio.TimerHandle | None = None
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._database: sqlite3.Connection | None = None
        try:
            self._database = self._begin()
        except (sqlite3.Error, OSError) as error:
            self._fail(error, [])
        self._look()
        self._writer = threading.Thread(target=self._write, name=f"spool-{place.name}", daemon=True)
        self._writer.start()

    @property
    def full(self) -> str | None:
        """Why nothing is accepted now, in one line; None: it is."""
        return self._full

    def accept(self, request_id: str, received_at: int) -> None:
        """Notes that a request was taken in (`received_at`: µs). Committed within `ACCEPT_S`, no later than its record.

        Raises `SpoolFull` while the writer cannot write, or there is no room for more.
        """
        if self._full is not None:
            raise SpoolFull(self._full)
        self._hold(_Accept(request_id, received_at))
        self._under_way += 1
        if self._waking is None:
            self._waking = asyncio.get_running_loop().call_later(ACCEPT_S, self._wake)

    async def append(self, said: Record | Feedback) -> None:
        """Returns when it is durable. Raises `SpoolFull` when it is not: an accepted request then gets a record that says
        `spool_full` as soon as one can be written; feedback is not kept, and is its sender's to send again. A caller that
        is cancelled leaves it to be written."""
        if self._lack is not None and not isinstance(said, Record):
            raise SpoolFull(self._lack)
        kind = RECORD if isinstance(said, Record) else FEEDBACK
        await self._kept(said, kind, said.received_at, brought=False)

    async def bring(self, record: Record, at: int) -> None:
        """`accept` and `append` in one transaction, for a request that was answered elsewhere and came here at `at` (µs),
        which is what the spool goes by: its own time may be another. Returns when it is durable. Raises `SpoolFull` when it
        is not: nothing of it is kept then, and it is its bringer's to bring again."""
        if self._full is not None:
            raise SpoolFull(self._full)
        await self._kept(record, RECORD, at, brought=True)

    async def _kept(self, said: Record | Feedback, kind: str, at: int, *, brought: bool) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._hold(_Append(said.request_id, at, kind, _body(said), done, brought))
        answers = kind == RECORD and not brought
        self._under_way -= answers
        if answers and self._under_way <= 0:  # there is nobody to share a commit with
            self._hand_over()
        elif not self._handing_over:
            self._handing_over = True
            loop.call_soon(self._hand_over)
        await done

    async def close(self) -> None:
        """Writes what is queued, ends the segment and frees the lock. Accepts that are still open become `interrupted`."""
        if not self._closed:
            self._closed = True
            self._hand_over()
            self._queue.put(None)
            await asyncio.to_thread(self._writer.join)
            os.close(self._held)

    def _hold(self, entry: _Entry) -> None:
        # What SQLite or the lake cannot take would spoil what comes with it and after it: it must not get in.
        if ID.fullmatch(entry.request_id) is None or not 0 <= entry.received_at < YEAR_10000:
            raise ValueError(f"not a request's id and time: {entry.request_id!r}, {entry.received_at!r}")
        if self._closed:
            raise SpoolFull("the spool is closed")
        # Those of accepted requests are as many as were under way. Without them their accepts would stay open while this
        # worker lives, and every window with them.
        answers = isinstance(entry, _Append) and entry.kind == RECORD and not entry.brought
        if not answers and self._queue.qsize() + len(self._together) >= QUEUE:
            raise SpoolFull(f"{self._place}: {QUEUE} entries wait for the disk")
        self._together.append(entry)

    def _wake(self) -> None:
        self._waking = None
        self._hand_over()

    def _hand_over(self) -> None:
        """Gives the writer all that was held back, at once: waking it costs more than a row does, so that is done once for
        all that comes in one turn of the loop, and for an accept and its record where the answer comes soon."""
        entries, self._together, self._handing_over = self._together, [], False
        for entry in entries:
            self._queue.put(entry)

    # From here on: the writer's thread.

    def _write(self) -> None:
        closing = False
        while not closing:
            entries, closing = self._take()
            waiting = [entry.done for entry in entries if isinstance(entry, _Append) and entry.done is not None]
            try:
                self._commit([*self._late, *entries])
            except Exception as error:  # whatever it is, nobody may wait for ever
                self._fail(error, entries)
                _answer(waiting, self._full)
            else:
                self._late, self._failures, self._broken = [], 0, None
                _answer(waiting, None)
            self._look()
        with contextlib.suppress(sqlite3.Error):
            if self._database is not None:
                with contextlib.closing(self._database):
                    segment.seal(self._database, self._place.name)

    def _take(self) -> tuple[list[_Entry], bool]:
        """All that is queued, at least one entry unless the writer has something to make good; and whether to end."""
        entries: list[_Entry] = []
        try:
            entry = self._queue.get(timeout=RETRY_S if self._full is not None else None)
            while entry is not None:
                entries.append(entry)
                if len(entries) >= BATCH:
                    return entries, False
                entry = self._queue.get_nowait()
        except queue.Empty:
            return entries, False
        return entries, True

    def _commit(self, entries: Sequence[_Entry]) -> None:
        """One transaction, in a new segment when this one is large enough, was given up, or was sealed by someone who took
        us for dead (its lock file was removed, or locks do not work where it lies)."""
        # Without room a part of a segment is ended too: what it holds may long be everywhere, and only then can go.
        enough = self._segment_bytes if self._lack is None else self._segment_bytes // 16
        if self._database is None or self._bytes >= enough:
            self._rotate()
        accepts = [
            _Accept(entry.request_id, entry.received_at) for entry in entries if isinstance(entry, _Accept) or entry.brought
        ]
        appends = [entry for entry in entries if isinstance(entry, _Append)]
        accepted, records = self._tail.accepted, self._tail.records
        accept_rows = [(n, *entry) for n, entry in enumerate(accepts, accepted + 1)]
        record_rows = [
            (n, entry.request_id, entry.received_at, entry.kind, entry.body) for n, entry in enumerate(appends, records + 1)
        ]
        while self._database is None or not segment.write(self._database, accept_rows, record_rows):
            self._rotate()
        self._tail = Tail(accepted + len(accepts), records + len(appends))
        self._open.update((entry.request_id, (n, entry.received_at)) for n, entry in enumerate(accepts, accepted + 1))
        for entry in appends:
            if entry.kind == RECORD:
                self._open.pop(entry.request_id, None)
        written = ROW_BYTES * len(entries) + sum(len(entry.body) for entry in appends)
        self._bytes += written
        self._unseen += written

    def _rotate(self) -> None:
        """The next segment first: an end without it would leave no place where the open accepts are known to be."""
        database = self._begin()
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error), contextlib.closing(self._database):
                segment.supersede(self._database)
        self._database = database

    def _begin(self) -> sqlite3.Connection:
        carried = [(sequence, request_id, at) for request_id, (sequence, at) in self._open.items()]
        path = self._place / f"{self._number + 1}.sqlite"
        database = segment.create(path, self._durability, self._tail, carried)
        self._number += 1
        self._bytes = ROW_BYTES * len(carried)
        return database

    def _fail(self, error: Exception, entries: Sequence[_Entry]) -> None:
        """Notes what must be written once writing works again: accepts, and for each record that its caller now holds for
        lost, one that says so. Feedback that its caller holds for lost is, and so is what was brought."""
        self._broken = self._full = f"{self._place}: {error}"
        self._failures += 1
        for entry in entries:
            if isinstance(entry, _Append):
                if entry.kind != RECORD or entry.brought:
                    continue
                record = segment.unanswered(
                    entry.request_id, entry.received_at, "spool_full", 503, replica=self._place.name
                )
                entry = _Append(entry.request_id, entry.received_at, RECORD, encode(record), None)
            self._late.append(entry)
        torn = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        if self._database is not None and (torn or self._failures >= FAILURES):
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _look(self) -> None:
        """Looks how much room is left, unless that was done just now and it was much."""
        now = self._clock()
        much = self._unseen * LOOK_SHARE < self._left or self._lack is not None
        if self._looked_at is None or now - self._looked_at >= LOOK_S or not much:
            folder = self._place.parent
            try:
                there = room.look(folder, self._max_bytes)
                self._left, self._lack = there.left, there.lack and f"{folder}: {there.lack}"
            except OSError as error:
                self._left, self._lack = 0, f"{folder}: {error}"
            self._looked_at, self._unseen = now, 0
        self._full = self._broken or self._lack


def _sync(folder: Path) -> None:
    """Puts the folder's list of names on the disk; what is in a segment's own folder SQLite takes care of."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _answer(waiting: "Sequence[asyncio.Future[None]]", error: str | None) -> None:
    """Wakes all who wait, with one call into their loop."""
    if waiting:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            waiting[0].get_loop().call_soon_threadsafe(_settle, waiting, error)


def _settle(waiting: "Sequence[asyncio.Future[None]]", error: str | None) -> None:
    for done in waiting:
        if done.done():
            continue  # its caller was cancelled
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(SpoolFull(error))


def _body(said: Record | Feedback) -> bytes:
    """It as msgpack. What msgpack cannot carry (lone surrogates, integers of more than 64 bits, numpy's scalars) is
    made to fit: a record with a flaw is worth more than none."""
    try:
        return msgspec.msgpack.encode(said)
    except (UnicodeEncodeError, OverflowError, TypeError):
        plain = msgspec.to_builtins(said, builtin_types=(bytes,), enc_hook=_native)
        return msgspec.msgpack.encode(_fitting(plain))


def _native(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _fitting(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-(1 << 63), min(value, (1 << 63) - 1))
    if isinstance(value, dict):
        return {_fitting(key): _fitting(item) for key, item in value.items()}
    return [_fitting(item) for item in value] if isinstance(value, list | tuple) else value
