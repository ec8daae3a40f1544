"""Segments: the files of which a spool is made (frames.py has their format), as everyone but their worker sees them.

    <spool>/<worker>/lock          locked (flock) for as long as the worker lives
    <spool>/<worker>/<number>.log  only the newest is written, by the worker alone (pen.py), which holds a lock on it too

An accept that has no record yet is carried into the next segment when that is made. So the newest segment holds every open
accept of its worker, an accept and its record are always found together in one segment, and what a dead worker left open
is known from one file. An id may therefore stand among the accepts of several segments; its record stands in one. Feedback
stands in the same rows and the same sequence, told apart by its kind: it is never the record of the request that it speaks
of. Knows nothing of where rows go. Standard library and msgspec only: the gateway loads this.
"""

import contextlib
import functools
import itertools
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from watchkeeper.record import Record
from watchkeeper.telemetry import frames
from watchkeeper.telemetry.frames import ACCEPT, BIRTH, MENDED, SEAL, START, Head, Torn

Durability = Literal["process", "power"]

LOCK: Final = "lock"
ENDING: Final = ".log"

RECORD: Final = "record"
"""The kind of row whose body is a `Record`."""

FEEDBACK: Final = "feedback"
"""The kind of row whose body is a `Feedback`; its request id is that of the answer it speaks of."""

ERASED: Final = "erased"
"""What is left of an erased record: an empty body. It is still the record of its request, and no sink takes it."""

UNSAID: Final = "unsaid"
"""What is left of erased feedback, likewise. Rows are never deleted: their sequence has no gaps."""

KINDS: Final = {frames.RECORD: (RECORD, ERASED), frames.FEEDBACK: (FEEDBACK, UNSAID)}
"""What a row is, by its frame: whole, and erased."""

ID: Final = re.compile(r"[0-9a-f]{32}")
"""Of a request, and of a segment."""

STRIDE: Final = 64
"""The place of every so manieth row is remembered, so that whoever goes on in a segment need not look through it again."""
REMEMBERED: Final = 1024
"""Segments of which places are remembered."""


class SegmentUnreadable(Exception):
    """The file cannot be read, now or ever: the message is one line."""


class SegmentTorn(SegmentUnreadable):
    """What stands in the file is not whole, and never will be. `why`: the message without the path."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.why = why


class Tail(msgspec.Struct, frozen=True):
    """The last sequence numbers that a worker has used. Those of its rows have no gaps, whatever kind they are."""

    accepted: int = 0
    records: int = 0


class Row(msgspec.Struct, frozen=True):
    """One record or feedback as it was spooled. `received_at`: µs since the epoch."""

    sequence: int
    request_id: str
    received_at: int
    kind: str
    body: bytes


class _Seen:
    """What is known of a segment that only grows. `until`: a byte, and the tail up to there; `places`: of rows, by their
    number divided by `STRIDE`."""

    def __init__(self) -> None:
        self.until: tuple[int, Tail] | None = None
        self.places: dict[int, int] = {}


@functools.lru_cache(REMEMBERED)
def _seen(uid: str) -> _Seen:
    return _Seen()


class Opened:
    """A segment's file while it is read. `end`: up to which byte; what is added meanwhile is left for the next time. What
    it raises becomes `SegmentTorn` and `SegmentUnreadable` where the file was opened (`reading`)."""

    def __init__(self, descriptor: int, end: int | None = None) -> None:
        """Raises `Torn`."""
        self.descriptor = descriptor
        self.birth = frames.head(descriptor, 0)
        if self.birth.kind not in (BIRTH, MENDED):
            raise Torn("it does not say which it is")
        self.end = frames.marked(descriptor) if end is None else end
        self.uid = self.birth.name
        self.before = Tail(self.birth.sequence, self.birth.at)

    @functools.cached_property
    def seal(self) -> Tail | None:
        """The last numbers of a segment that was ended."""
        with contextlib.suppress(Torn):
            last = frames.head(self.descriptor, self.end - frames.HEAD_BYTES)
            if self.end > START and last.kind == SEAL and last.name == self.uid:
                return Tail(last.sequence, last.at)
        return None

    def heads(self, start: int = START) -> Iterator[Head]:
        """The heads of accepts and rows, in the order in which they were written."""
        return (head for head in frames.heads(self.descriptor, start, self.end) if head.kind != SEAL)

    def rows(self, after: int) -> Iterator[Head]:
        """The heads of the rows with a higher number than `after`, in order."""
        places = _seen(self.uid).places
        number = (after + 1) // STRIDE
        while number not in places and number * STRIDE > self.before.records:
            number -= 1
        last = after
        for head in self.heads(places.get(number, START)):
            if head.kind == ACCEPT:
                continue
            if head.sequence % STRIDE == 0:
                places[head.sequence // STRIDE] = head.offset
            if head.sequence > after:
                if head.sequence <= last:
                    raise Torn(f"at {head.offset}: rows are out of order")
                last = head.sequence
                yield head

    def row(self, head: Head) -> Row:
        """With its body."""
        whole, erased = KINDS[head.kind]
        body = frames.body(self.descriptor, head)
        kind = whole if body is not None else erased
        return Row(head.sequence, head.name, head.at, kind, body or b"")

    def tail(self) -> Tail:
        """The last numbers in it."""
        if self.seal is not None:
            return self.seal
        seen = _seen(self.uid)
        start, tail = seen.until or (START, self.before)
        if start > self.end:  # whoever ends it looked beyond what counts, and could not end it
            start, tail = START, self.before
        accepted, records = tail.accepted, tail.records
        for head in self.heads(start):
            if head.kind == ACCEPT:
                accepted = max(accepted, head.sequence)
            else:
                records = max(records, head.sequence)
        tail = Tail(accepted, records)
        seen.until = (self.end, tail)
        return tail

    def accepts(self) -> list[Head]:
        """The heads of its accepts."""
        return [head for head in self.heads() if head.kind == ACCEPT]

    def unanswered(self) -> dict[str, int]:
        """The requests that were accepted and have no record, and when they were received (µs)."""
        opened: dict[str, int] = {}
        for head in self.heads():
            if head.kind == ACCEPT:
                opened[head.name] = head.at
            elif head.kind == frames.RECORD:
                opened.pop(head.name, None)
        return opened


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """One file as it was found. `uid`: never given twice, anywhere. `first`: the lowest sequence number that a row of it
    may have; `last`: the highest that one has, `first - 1` while there is none. `sealed`: nothing is written to it any
    more, and `last` is final. `mended`: some of its rows may have been delivered already, under another uid."""

    path: Path
    worker: str
    number: int
    uid: str
    first: int
    last: int
    sealed: bool
    mended: bool = False

    @property
    def spool(self) -> Path:
        """The spool folder that it is part of."""
        return self.path.parent.parent

    def rows(self, after: int, *, limit: int = -1, upto: int | None = None) -> list[Row]:
        """Rows with `after` < sequence <= `upto`, in order, at most `limit`; of a torn file those before the tear.

        Raises `SegmentUnreadable`, and `FileNotFoundError` once the segment is retired.
        """
        found: list[Row] = []
        last = self.last if upto is None else upto
        with self._reading() as file:
            try:
                for head in file.rows(after):
                    if head.sequence > last or len(found) == limit:
                        break
                    found.append(file.row(head))
            except (Torn, OSError):
                if not found:
                    raise
        return found

    def ids(self) -> tuple[list[str], list[tuple[int, str]]]:
        """The ids of its accepts, and sequence and id of its records, at one moment. Raises as `rows` does."""
        accepted: list[str] = []
        records: list[tuple[int, str]] = []
        with self._reading() as file:
            for head in file.heads():
                if head.kind == ACCEPT:
                    accepted.append(head.name)
                elif head.kind == frames.RECORD:
                    records.append((head.sequence, head.name))
        return accepted, records

    def count(self, after: int) -> int:
        """How many records come after `after`. Raises as `rows` does."""
        with self._reading() as file:
            return sum(head.kind == frames.RECORD for head in file.rows(after))

    def records_of(self, request_ids: Collection[str], after: int) -> list[Row]:
        """The records of these requests that come after `after`, in order. Raises as `rows` does."""
        names = set(request_ids)
        with self._reading() as file:
            meant = [head for head in file.rows(after) if head.kind == frames.RECORD and head.name in names]
            return [row for row in map(file.row, meant) if row.kind == RECORD]

    def oldest(self, after: int) -> int | None:
        """When the oldest request was received whose record comes after `after`, or, unless sealed, is still to come."""
        with self._reading() as file:
            times = [head.at for head in file.rows(after) if head.kind == frames.RECORD]
            if not self.sealed:  # else it was carried on, and is seen there
                times += file.unanswered().values()
        return min(times, default=None)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Opened]:
        with reading(self.path) as file:
            if file.uid != self.uid:
                raise SegmentUnreadable(f"{self.path}: it was mended meanwhile")
            yield file

    def remove(self) -> None:
        """Deletes a sealed segment."""
        self.path.unlink(missing_ok=True)


class Found(msgspec.Struct, frozen=True):
    """What stands in a spool folder. `unreadable`: path → why, also of files that were torn, and mended, until somebody
    takes them away. `torn`: those yet to be mended, and why."""

    segments: tuple[Segment, ...]
    unreadable: dict[str, str]
    torn: dict[Path, str] = {}


def segments(folder: Path) -> Found:
    """All segments under a spool folder, by worker and number."""
    found: list[Segment] = []
    unreadable: dict[str, str] = {}
    torn: dict[Path, str] = {}
    for worker in workers(folder):
        unreadable |= {str(path): note(path) for path in worker.glob("*.torn")}
        superseded, follows = False, None
        # Newest first: once a newer segment is there nothing is added to an older one, so what is read of it now is all.
        for path in reversed(paths(worker)):
            try:
                segment, follows = _look(path, superseded, follows)
                found.append(segment)
            except FileNotFoundError:
                continue  # retired since the folder was listed
            except SegmentUnreadable as error:
                unreadable[str(path)] = str(error)
                if isinstance(error, SegmentTorn):
                    torn[path] = error.why
                follows = None
            superseded = True
    return Found(tuple(sorted(found, key=lambda segment: (segment.worker, segment.number))), unreadable, torn)


def note(torn: Path) -> str:
    """What is told of a file that was torn and is mended."""
    try:
        return torn.with_suffix(".torn.txt").read_text(encoding="utf-8")
    except OSError:
        return "torn; what was whole in it goes on"


def unfinished(folder: Path) -> set[str]:
    """The ids of all requests under a spool folder that were accepted and whose record is still to come."""
    found: set[str] = set()
    for segment in segments(folder).segments:
        if not segment.sealed:  # what an older one left open was carried into the newest
            with contextlib.suppress(SegmentUnreadable, FileNotFoundError), reading(segment.path) as file:
                found.update(file.unanswered())
    return found


def workers(folder: Path) -> list[Path]:
    """The folders of all workers under a spool folder."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def paths(worker: Path) -> list[Path]:
    """The files of a worker's segments, oldest first."""
    found = (path for path in worker.glob(f"*{ENDING}") if path.stem.isdigit())
    return sorted(found, key=lambda path: int(path.stem))


def _look(path: Path, superseded: bool, follows: Tail | None) -> tuple[Segment, Tail]:
    """The segment at `path`, and what it followed on. `follows`: what the one after it followed on, where that is known."""
    with reading(path) as file:
        tail, sealed = file.tail(), file.seal is not None
        # Its worker was killed between two segments, or its end is lost: the next one knows.
        if superseded and not sealed and tail != follows:
            if follows is None:
                raise SegmentUnreadable(f"{path}: it has no end, and what comes after it cannot be read")
            raise Torn("its last rows are missing")
        first = file.before.records + 1
        mended = file.birth.kind == MENDED
        if mended:  # what stands for lost records may have numbers from before
            first = min([first, *(head.sequence for head in itertools.islice(file.rows(0), 1))])
        segment = Segment(
            path=path,
            worker=path.parent.name,
            number=int(path.stem),
            uid=file.uid,
            first=first,
            last=tail.records,
            sealed=superseded or sealed,
            mended=mended,
        )
        return segment, file.before


@contextlib.contextmanager
def reading(path: Path, flags: int = os.O_RDONLY) -> Iterator[Opened]:
    """A segment's file. Raises `SegmentUnreadable`, `FileNotFoundError`."""
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SegmentUnreadable(f"{path}: {error}") from error
    try:
        yield Opened(descriptor)
    except Torn as torn:
        raise SegmentTorn(path, str(torn)) from torn
    except OSError as error:
        raise SegmentUnreadable(f"{path}: {error}") from error
    finally:
        os.close(descriptor)


def span(path: Path) -> tuple[Tail, Tail]:
    """What a segment followed on, and its last numbers. Raises as `reading` does."""
    with reading(path) as file:
        return file.before, file.tail()


def accepted_in(path: Path) -> set[str]:
    """The ids of a segment's accepts. Raises as `reading` does."""
    with reading(path) as file:
        return {head.name for head in file.accepts()}


def newest(worker: Path) -> tuple[int, Tail]:
    """Number and tail of a worker's newest segment. An unreadable one counts, but the tail is then an older one's."""
    files = paths(worker)
    for path in reversed(files):
        with contextlib.suppress(SegmentUnreadable, FileNotFoundError):
            return int(files[-1].stem), span(path)[1]
    return (int(files[-1].stem) if files else 0), Tail()


def unanswered(request_id: str, received_at: int, error: str, status: int, *, replica: str = "") -> Record:
    """The record of a request of which nothing but its acceptance is known."""
    return Record(request_id=request_id, received_at=received_at, release="", replica=replica, error=error, status=status)
