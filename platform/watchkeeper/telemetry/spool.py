"""The spool: a gateway worker's durable log of what it accepted, of the records that came of it, and of feedback.

With `process` a record survives the death of this process (kill -9): it is handed to the system, on the loop's thread, as
that takes less than waking another one would. With `power` it also survives that of the machine: a thread waits for the
disk, for all that came meanwhile at once (group commit), so a slow disk makes batches larger and not more. So it does with
`process` for a while after the system kept the loop waiting. A record is durable when `append` returns. Every accepted
request gets exactly one record, by `append`, or, where that failed or the worker died, one that says so. So it ends to
accept while there is still room for the records of what it accepted. Knows
nothing of where records go: `segment.py` is what the shipper reads.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from watchkeeper.feedback import Feedback
from watchkeeper.record import Record, encode
from watchkeeper.telemetry import frames, pen, room, segment
from watchkeeper.telemetry.adoption import finish
from watchkeeper.telemetry.frames import ACCEPT, frame
from watchkeeper.telemetry.locks import lock
from watchkeeper.telemetry.pen import Pen
from watchkeeper.telemetry.room import MAX_BYTES
from watchkeeper.telemetry.segment import ENDING, ID, Durability, SegmentUnreadable, Tail

SEGMENT_BYTES: Final = 64 << 20
QUEUE: Final = 20_000
"""Entries that may wait for a disk that stands still; then the spool is full, but for records of what was accepted."""

ACCEPT_S: Final = 0.005
"""How long an accept may wait for others, or for its record, to be written with."""

RETRY_S: Final = 1.0
"""How often a spool that failed, or found no room, tries again, so that it opens without anyone asking for it."""

LOOK_S: Final = 1.0
"""How old its knowledge of the room that is left may become while it writes."""

LOOK_SHARE: Final = 16
"""It also looks again once it has itself written this part of what was left: others write too, and a file has margins."""

SLOW_S: Final = 0.05
SLOW_FOR_S: Final = 10.0
"""After a write that took so long the thread writes, and for how long."""

SEGMENTS: Final = 32
"""Into so many segments the room is cut at least: only one that is ended can be retired."""

FAILURES: Final = 3
"""In a row, after which the segment is given up and another one begun."""

PATIENCE_S: Final = 0.2
"""The shipper holds the lock of a dead worker for a moment while it adopts what is left."""

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
    """`kind`: of its frame. `done`: who waits for it. `brought`: it was not accepted before, and is written with that."""

    request_id: str
    received_at: int
    kind: int
    body: bytes
    done: "asyncio.Future[None] | None" = None
    brought: bool = False

    @property
    def answers(self) -> bool:
        """Whether it is the record of a request that was accepted before."""
        return self.kind == frames.RECORD and not self.brought


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
        """The spool `<folder>/<worker>`, for the running loop, after ending what a dead worker of that name left. Where
        nothing can be written it is full, until something can. `max_bytes`: what all workers' files may come to. `clock`:
        monotonic seconds.

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
                    pen.sync(parent)
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
            if isinstance(error, OSError | SegmentUnreadable):
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
        self._loop = asyncio.get_running_loop()
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
        self._waking: asyncio.TimerHandle | None = None
        self._retrying: asyncio.TimerHandle | None = None
        self._disk = ThreadPoolExecutor(1, f"spool-{place.name}")
        self._slow_until = float("inf") if durability == "power" else clock()
        self._committing: Future[str | None] | None = None
        self._pen: Pen | None = None
        try:
            self._pen = self._begin()
        except OSError as error:
            self._fail(error, [])
        self._look()
        self._retry_later()

    @property
    def full(self) -> str | None:
        """Why nothing is accepted now, in one line; None: it is."""
        return self._full

    def accept(self, request_id: str, received_at: int) -> None:
        """Notes that a request was taken in (`received_at`: µs). Written within `ACCEPT_S`, no later than its record.

        Raises `SpoolFull` while nothing can be written, or there is no room for more.
        """
        if self._full is not None:
            raise SpoolFull(self._full)
        self._hold(_Accept(request_id, received_at))
        if self._waking is None:
            self._waking = self._loop.call_later(ACCEPT_S, self._wake)

    async def append(self, said: Record | Feedback) -> None:
        """Returns when it is durable. Raises `SpoolFull` when it is not: an accepted request then gets a record that says
        `spool_full` as soon as one can be written; feedback is not kept, and is its sender's to send again. A caller that
        is cancelled leaves it to be written."""
        if self._lack is not None and not isinstance(said, Record):
            raise SpoolFull(self._lack)
        kind = frames.RECORD if isinstance(said, Record) else frames.FEEDBACK
        await self._kept(said, kind, said.received_at, brought=False)

    async def bring(self, record: Record, at: int) -> None:
        """`accept` and `append` in one step, for a request that was answered elsewhere and came here at `at` (µs),
        which is what the spool goes by: its own time may be another. Returns when it is durable. Raises `SpoolFull` when it
        is not: nothing of it is kept then, and it is its bringer's to bring again."""
        if self._full is not None:
            raise SpoolFull(self._full)
        await self._kept(record, frames.RECORD, at, brought=True)

    async def _kept(self, said: Record | Feedback, kind: int, at: int, *, brought: bool) -> None:
        if not self._apart:
            self._hold(_Append(said.request_id, at, kind, _body(said), None, brought))
            error = self._commit_held()
            if error is not None:
                raise SpoolFull(error)
            await asyncio.sleep(0)  # who logs one after the other lets others have their turn
        else:
            waits: asyncio.Future[None] = self._loop.create_future()
            self._hold(_Append(said.request_id, at, kind, _body(said), waits, brought))
            self._loop.call_soon(self._hand_over)  # with what else comes in this turn
            await waits

    async def close(self) -> None:
        """Writes what is held back, ends the segment and frees the lock. Accepts that are still open become
        `interrupted`."""
        if not self._closed:
            self._closed = True
            while self._committing is not None:
                await asyncio.shield(asyncio.wrap_future(self._committing))
                await asyncio.sleep(0)
            self._commit_held()
            for timer in (self._waking, self._retrying):
                if timer is not None:
                    timer.cancel()
            self._disk.shutdown()
            if self._pen is not None:
                self._pen.release()
                with contextlib.suppress(OSError, SegmentUnreadable):  # then somebody else ends it, as a dead worker's
                    await asyncio.to_thread(pen.end, self._path(self._number))
            os.close(self._held)

    def _hold(self, entry: _Entry) -> None:
        # What the lake cannot take would spoil what comes with it and after it: it must not get in.
        if ID.fullmatch(entry.request_id) is None or not 0 <= entry.received_at < YEAR_10000:
            raise ValueError(f"not a request's id and time: {entry.request_id!r}, {entry.received_at!r}")
        if self._closed:
            raise SpoolFull("the spool is closed")
        # Those of accepted requests are as many as were under way. Without them their accepts would stay open while this
        # worker lives, and every window with them.
        if len(self._together) >= QUEUE and not (isinstance(entry, _Append) and entry.answers):
            raise SpoolFull(f"{self._place}: {QUEUE} entries wait for the disk")
        self._together.append(entry)

    @property
    def _apart(self) -> bool:
        """Whether it is for the thread to write: it is at work, or must wait for the disk."""
        return self._committing is not None or self._clock() < self._slow_until

    def _wake(self) -> None:
        self._waking = None
        self._hand_over()

    def _retry_later(self) -> None:
        if self._full is not None and self._retrying is None and not self._closed:
            self._retrying = self._loop.call_later(RETRY_S, self._retry)

    def _retry(self) -> None:
        self._retrying = None
        self._hand_over()

    def _hand_over(self) -> None:
        """Has all that is held back written: here, or, where the disk is waited for, in the thread. What comes while that
        is at work goes with the next."""
        if self._closed or not (self._together or self._full is not None):
            return
        if not self._apart:
            self._commit_held()
        elif self._committing is None:
            entries, self._together = self._together, []
            self._committing = self._disk.submit(self._commit, entries)
            self._committing.add_done_callback(lambda done: self._tell(entries, done))

    def _tell(self, entries: Sequence[_Entry], done: "Future[str | None]") -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            self._loop.call_soon_threadsafe(self._done, entries, done)

    def _done(self, entries: Sequence[_Entry], done: "Future[str | None]") -> None:
        self._committing = None
        _settle(entries, f"{self._place}: {failed}" if (failed := done.exception()) else done.result())
        self._retry_later()
        if self._together:
            self._hand_over()

    def _commit_held(self) -> str | None:
        """Why what is held back could not be written; None: it is."""
        entries, self._together = self._together, []
        error = self._commit(entries)
        _settle(entries, error)
        self._retry_later()
        return error

    # From here on: one at a time, on the loop's thread or on the disk's.

    def _commit(self, entries: Sequence[_Entry]) -> str | None:
        """Writes entries after those that are late, and looks how much room is left. Why it failed; None: it did not."""
        began = self._clock()
        try:
            if entries or self._late or self._broken is not None or self._lack is not None:
                self._write([*self._late, *entries])
        except Exception as error:  # whatever it is, nobody may wait for ever
            self._fail(error, entries)
            failed = self._broken
        else:
            self._late, self._failures, self._broken = [], 0, None
            failed = None
        self._look()
        now = self._clock()
        if now - began > SLOW_S:
            self._slow_until = max(self._slow_until, now + SLOW_FOR_S)
        return failed

    def _write(self, entries: Sequence[_Entry]) -> None:
        """All or none of them, in a new segment when this one is large enough, was given up, or is no longer what was
        written of it (somebody removed or cut it)."""
        # Without room a part of a segment is ended too: what it holds may long be everywhere, and only then can go.
        enough = self._segment_bytes if self._lack is None else self._segment_bytes // 16
        if self._pen is None or self._bytes >= enough:
            self._rotate()
        accepted, records = self._tail.accepted, self._tail.records
        opened: dict[str, tuple[int, int]] = {}
        some: list[bytes] = []
        for entry in entries:
            if isinstance(entry, _Accept) or entry.brought:
                accepted += 1
                opened[entry.request_id] = accepted, entry.received_at
                some.append(frame(ACCEPT, accepted, entry.received_at, entry.request_id))
            if isinstance(entry, _Append):
                records += 1
                some.append(frame(entry.kind, records, entry.received_at, entry.request_id, entry.body))
        while self._pen is None or not self._pen.write(some):
            self._rotate()
        self._tail = Tail(accepted, records)
        self._open |= opened
        for entry in entries:
            if isinstance(entry, _Append) and entry.kind == frames.RECORD:
                self._open.pop(entry.request_id, None)
        written = sum(map(len, some))
        self._bytes += written
        self._unseen += written

    def _rotate(self) -> None:
        """The next segment first: an end without it would leave no place where the open accepts are known to be."""
        if self._pen is not None:
            self._pen.settle()
        try:
            following = self._begin()
        except OSError:
            if self._path(self._number + 1).exists() and self._pen is not None:
                self._pen.release()  # it is no longer the newest: what is added to it would not be looked for
                self._pen = None
            raise
        if self._pen is not None:
            with contextlib.suppress(OSError):
                self._pen.seal(self._tail)
            self._pen.release()
        self._pen = following

    def _begin(self) -> Pen:
        carried = [(sequence, request_id, at) for request_id, (sequence, at) in self._open.items()]
        following = Pen.create(self._path(self._number + 1), self._durability, self._tail, carried)
        self._number += 1
        self._bytes = frames.HEAD_BYTES * len(carried)
        return following

    def _path(self, number: int) -> Path:
        return self._place / f"{number}{ENDING}"

    def _fail(self, error: Exception, entries: Sequence[_Entry]) -> None:
        """Notes what must be written once writing works again: accepts, and for each record that its caller now holds for
        lost, one that says so. Feedback that its caller holds for lost is, and so is what was brought."""
        self._broken = f"{self._place}: {error}"
        self._failures += 1
        for entry in entries:
            if isinstance(entry, _Append):
                if not entry.answers:
                    continue
                record = segment.unanswered(
                    entry.request_id, entry.received_at, "spool_full", 503, replica=self._place.name
                )
                entry = _Append(entry.request_id, entry.received_at, frames.RECORD, encode(record))
            self._late.append(entry)
        if self._pen is not None and self._failures >= FAILURES:
            self._pen.release()
            self._pen = None

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


def _settle(entries: Sequence[_Entry], error: str | None) -> None:
    """Tells all who wait."""
    for entry in entries:
        if isinstance(entry, _Append) and entry.done is not None and not entry.done.done():  # done: its caller has gone
            if error is None:
                entry.done.set_result(None)
            else:
                entry.done.set_exception(SpoolFull(error))


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
