"""What dead workers left is ended, and what is torn is mended, so that nobody else has to know of either.

    <number>.log        again a segment, of all that is whole, under a new uid; sinks leave out what they have of it
    <number>.torn       the file as it was: for people; nothing reads it
    <number>.torn.txt   what is lost, in a line: it is told for as long as the file is there

Only the holder of a worker's lock touches the segment that the worker may be writing; older ones are nobody's.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from itertools import count, pairwise
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.feedback import decode as decode_feedback
from watchkeeper.record import decode, encode
from watchkeeper.telemetry import frames, pen, segment
from watchkeeper.telemetry.frames import ACCEPT, BIRTH, FEEDBACK, MENDED, RECORD, Head, Torn, frame
from watchkeeper.telemetry.locks import lock
from watchkeeper.telemetry.pen import DRAFT, Pen
from watchkeeper.telemetry.segment import LOCK, Opened, SegmentTorn, SegmentUnreadable, Tail, unanswered

TORN: Final = "torn"
"""The `error` of a record that stands for one that was lost with a torn file: whatever was answered is not known."""

MENDING: Final = ".mending"

_BODIES: Final[dict[int, Callable[[bytes], object]]] = {RECORD: decode, FEEDBACK: decode_feedback}

_log = logging.getLogger(__name__)

Accept = tuple[str, int]
"""A request's id, and when that was received (µs)."""


class _Row(msgspec.Struct, frozen=True):
    """`body`: None where it is erased."""

    kind: int
    name: str
    at: int
    body: bytes | None


class _Whole(msgspec.Struct):
    """What is whole in a torn file, by number. `before`: the tail that it followed on, where that is known."""

    accepts: dict[int, Accept]
    rows: dict[int, _Row]
    before: Tail | None = None


def adopt(worker: Path) -> int:
    """Ends what a dead worker left open; nothing while it lives. Returns how many requests were interrupted."""
    held = lock(worker / LOCK)
    if held is None:
        return 0
    try:
        return finish(worker)
    finally:
        os.close(held)


def finish(worker: Path) -> int:
    """`adopt` for who holds the worker's lock. A file that is torn is mended; drafts of files go.

    Raises `SegmentUnreadable` and `OSError` when it cannot be done now.
    """
    for draft in (*worker.glob(f"*{DRAFT}"), *worker.glob(f"*{MENDING}")):
        draft.unlink(missing_ok=True)
    for path in segment.paths(worker)[-1:]:
        try:
            return pen.end(path)
        except SegmentTorn as torn:
            return mend(path, torn.why) or 0
    return 0


def mend_all(torn: Mapping[Path, str]) -> list[str]:
    """Mends files that are torn (and why), but for the one that a living worker writes: that is made to begin another.
    Returns what was mended, a line each."""
    told: list[str] = []
    for path, why in torn.items():
        worker = path.parent
        held = lock(worker / LOCK)
        try:
            if held is None and path == segment.paths(worker)[-1]:
                _disturb(path)
                continue
            with contextlib.suppress(FileNotFoundError):
                if mend(path, why) is not None:
                    told.append(f"{path}: {segment.note(path.with_suffix('.torn'))}")
        except (SegmentUnreadable, OSError) as error:  # no room for another file, say
            _log.warning("%s cannot be mended yet: %s", path, error)
        finally:
            if held is not None:
                os.close(held)
    return told


def _disturb(path: Path) -> None:
    """Has a living worker leave its segment: it does when the file is longer than what it wrote."""
    with contextlib.suppress(SegmentUnreadable), segment.reading(path) as file:
        if os.fstat(file.descriptor).st_size == file.end:
            with path.open("ab") as end:
                end.write(b"\0")


def mend(path: Path, why: str) -> int | None:
    """Puts a segment of all that is whole in the place of a torn file. Returns for how many requests it holds a record that
    says no more than that theirs is lost; None where it is whole: somebody was told of what has been mended since. Raises
    `SegmentUnreadable` and `OSError`, also when its worker lives."""
    taken = pen.take(path)
    try:
        with contextlib.suppress(Torn):
            if frames.whole_until(taken, frames.START) == frames.marked(taken) and Opened(taken).seal is not None:
                return None
        return _mend(path, why)
    finally:
        os.close(taken)


def _mend(path: Path, why: str) -> int:
    draft, kept = path.with_suffix(MENDING), path.with_suffix(".torn")
    whole = _whole(path.read_bytes())
    older, newer = _neighbours(path)
    base = whole.before or (segment.span(older)[1] if older else Tail())
    end = segment.span(newer)[0] if newer else None
    if end is not None:  # what its worker tried to write in vain has its numbers in the next one
        whole.accepts = {number: accept for number, accept in whole.accepts.items() if number <= end.accepted}
        whole.rows = {number: row for number, row in whole.rows.items() if number <= end.records}
    missing = _missing("accept", base.accepted, whole.accepts, end.accepted if end else None)
    missing += _missing("row", base.records, whole.rows, end.records if end else None)
    text = f"torn ({why}); {len(whole.rows)} rows and {len(whole.accepts)} accepts were whole and go on; "
    text += f"lost: {', '.join(missing) if missing else 'nothing that is known of'}"
    text += "" if newer else ", and whatever came after"
    stand_ins = _complete(whole, base, end, segment.accepted_in(newer) if newer else set(), path.parent.name)
    accepts = [(number, name, at) for number, (name, at) in sorted(whole.accepts.items())]
    mended = Pen.create(draft, "power", base, accepts, mended=True)
    try:
        some = [
            frame(row.kind, number, row.at, row.name, row.body or b"", erased=row.body is None)
            for number, row in sorted(whole.rows.items())
        ]
        mended.write(some)
        mended.seal(Tail(max((base.accepted, *whole.accepts)), max((base.records, *whole.rows))))
    finally:
        mended.release()
    kept.with_suffix(".torn.txt").write_text(text, encoding="utf-8")  # first: it is told of what is there
    kept.unlink(missing_ok=True)
    os.link(path, kept)
    os.replace(draft, path)
    return stand_ins


def _whole(data: bytes) -> _Whole:
    found = _Whole({}, {})
    for head, body in frames.whole(data):
        if head.kind in (BIRTH, MENDED):
            found.before = Tail(head.sequence, head.at)
        elif head.kind == ACCEPT:
            found.accepts[head.sequence] = head.name, head.at
        elif head.kind in _BODIES and _sound(head, body):
            found.rows[head.sequence] = _Row(head.kind, head.name, head.at, body)
    return found


def _sound(head: Head, body: bytes | None) -> bool:
    """Whether a row's body is what it says, or erased."""
    try:
        return body is None or bool(_BODIES[head.kind](body))
    except (ValueError, msgspec.DecodeError):
        return False


def _neighbours(path: Path) -> tuple[Path | None, Path | None]:
    """The worker's segments before and after, as far as they can be read."""
    older: Path | None = None
    for other in segment.paths(path.parent):
        with contextlib.suppress(SegmentUnreadable, FileNotFoundError):
            if other != path:
                segment.span(other)
                if int(other.stem) > int(path.stem):
                    return older, other
                older = other
    return older, None


def _complete(whole: _Whole, base: Tail, end: Tail | None, carried: set[str], worker: str) -> int:
    """Gives every record an accept, and every accept that was not carried on a record, under numbers that are free: those
    of what is lost. Returns how many records that are."""
    recorded = {row.name for row in whole.rows.values() if row.kind == RECORD}
    known = {name for name, _ in whole.accepts.values()}
    free = _free(base.accepted, whole.accepts, end.accepted if end else None)
    for row in list(whole.rows.values()):
        if row.kind == RECORD and row.name not in known:
            whole.accepts[next(free)] = row.name, row.at
    numbers = _free(base.records, whole.rows, end.records if end else None)
    open_ = {name: at for name, at in whole.accepts.values() if name not in recorded and name not in carried}
    for name, at in open_.items():
        body = encode(unanswered(name, at, TORN, 500, replica=worker))
        whole.rows[next(numbers)] = _Row(RECORD, name, at, body)
    return len(open_)


def _free(before: int, used: Mapping[int, object], end: int | None) -> Iterator[int]:
    """Numbers that are not used: after `before` up to `end`, then those before, which count as carried on."""
    taken = set(used)
    yield from (
        number for number in (range(before + 1, end + 1) if end is not None else count(before + 1)) if number not in taken
    )
    yield from (number for number in count(before, -1) if number not in taken)


def _missing(what: str, before: int, used: Mapping[int, object], end: int | None) -> list[str]:
    """The numbers that are lost, as far as that is known, in words."""
    found: list[str] = []
    numbers = sorted(number for number in used if number > before)
    for one, following in pairwise((before, *numbers, *([end + 1] if end is not None else []))):
        if following > one + 1:
            found.append(f"{what} {one + 1}" if following == one + 2 else f"{what}s {one + 1} to {following - 1}")
    return found
