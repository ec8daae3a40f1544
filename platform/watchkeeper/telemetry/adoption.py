"""What dead workers left is ended, and what is torn is mended, so that nobody else has to know of either.

    <number>.sqlite     again a segment, of all that is whole, under a new uid; sinks leave out what they have of it
    <number>.torn       the file as it was, and .torn-wal its log: for people; nothing reads them
    <number>.torn.txt   what is lost, in a line: it is told for as long as the file is there

Only the holder of a worker's lock touches the segment that the worker may be writing; older ones are nobody's.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from itertools import count, pairwise
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.feedback import decode as decode_feedback
from watchkeeper.record import decode, encode
from watchkeeper.telemetry import pages, segment
from watchkeeper.telemetry.locks import lock
from watchkeeper.telemetry.segment import (
    ADD_ACCEPT,
    ADD_RECORD,
    ERASED,
    FEEDBACK,
    ID,
    LOCK,
    MENDED,
    RECORD,
    UNSAID,
    Row,
    SegmentTorn,
    SegmentUnreadable,
    Tail,
    unanswered,
)

TORN: Final = "torn"
"""The `error` of a record that stands for one that was lost with a torn file: whatever was answered is not known."""

_BODIES: Final[dict[str, Callable[[bytes], object]]] = {
    RECORD: decode,
    FEEDBACK: decode_feedback,
    ERASED: len,
    UNSAID: len,
}

Accept = tuple[int, str, int]


class _Whole(msgspec.Struct):
    """What is whole in a torn file. `before`: the tail that it followed on, where that is known."""

    accepts: dict[int, Accept]
    rows: dict[int, Row]
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
    """`adopt` for who holds the worker's lock. A file that was never born goes, one that is torn is mended.

    Raises `SegmentUnreadable`, `sqlite3.Error` and `OSError` when it cannot be done now.
    """
    for path in reversed(segment.paths(worker)):
        try:
            interrupted = segment.end(path)
        except SegmentTorn as torn:
            return mend(path, torn.why)
        if interrupted is not None:
            return interrupted
    return 0


def mend_all(torn: Mapping[Path, str]) -> list[str]:
    """Mends files that are torn (and why), but for the one that a living worker writes: it will notice, and begin another.
    Returns what happened, a line each. Raises as `finish` does."""
    told: list[str] = []
    for path, why in torn.items():
        worker = path.parent
        held = lock(worker / LOCK)
        try:
            if held is None and path == segment.paths(worker)[-1]:
                continue
            with contextlib.suppress(FileNotFoundError):
                mend(path, why)
                told.append(f"{path}: {segment.note(path.with_suffix('.torn'))}")
        finally:
            if held is not None:
                os.close(held)
    return told


def mend(path: Path, why: str) -> int:
    """Puts a segment of all that is whole in the place of a torn file. Returns for how many requests it holds a record that
    says no more than that theirs is lost."""
    draft, kept = path.with_suffix(".mending"), path.with_suffix(".torn")
    log = path.with_name(f"{path.name}-wal")
    if not (log.exists() and log.stat().st_size):
        log = kept.with_name(f"{kept.name}-wal")  # where one who was cut off has put it
    whole = _whole(path, log)
    older, newer = _neighbours(path)
    base = whole.before or (segment.span(older)[1] if older else Tail())
    end = segment.span(newer)[0] if newer else None
    missing = _missing("accept", base.accepted, whole.accepts, end.accepted if end else None)
    missing += _missing("row", base.records, whole.rows, end.records if end else None)
    text = f"torn ({why}); {len(whole.rows)} rows and {len(whole.accepts)} accepts were whole and go on; "
    text += f"lost: {', '.join(missing) if missing else 'nothing that is known of'}"
    text += "" if newer else ", and whatever came after"
    stand_ins = _complete(whole, base, end, segment.accepted_in(newer) if newer else set(), path.parent.name)
    draft.unlink(missing_ok=True)
    with contextlib.closing(segment.create(draft, "power", base)) as database:
        with segment.Transaction(database):
            database.executemany(ADD_ACCEPT, whole.accepts.values())
            database.executemany(ADD_RECORD, map(msgspec.structs.astuple, whole.rows.values()))
            database.execute(f"PRAGMA user_version = {MENDED}")
        database.execute("PRAGMA journal_mode = DELETE")  # one file, that is put in its place in one step
    _keep(path, log, kept, text)
    os.replace(draft, path)
    return stand_ins


def _keep(path: Path, log: Path, kept: Path, text: str) -> None:
    """The note first. A log that stayed behind would be read into the new file, so it goes before that comes."""
    kept.with_suffix(".torn.txt").write_text(text, encoding="utf-8")
    kept.unlink(missing_ok=True)
    os.link(path, kept)
    with contextlib.suppress(FileNotFoundError):
        os.replace(log, kept.with_name(f"{kept.name}-wal"))
    for ending in ("-wal", "-shm"):
        path.with_name(f"{path.name}{ending}").unlink(missing_ok=True)


def _whole(path: Path, log: Path) -> _Whole:
    found = _Whole({}, {})
    for number, values in pages.rows(path, log):
        match values:
            case (None, str(name), int(at)) if ID.fullmatch(name):
                found.accepts[number] = (number, name, at)
            case (None, str(name), int(at), str(kind), bytes(body)) if ID.fullmatch(name) and _sound(kind, body):
                found.rows[number] = Row(number, name, at, kind, body)
            case (str(uid), int(accepted), int(records)) if ID.fullmatch(uid):
                found.before = Tail(accepted, records)
    return found


def _sound(kind: str, body: bytes) -> bool:
    """Whether a row's body is what it says."""
    try:
        _BODIES[kind](body)
    except (KeyError, ValueError, msgspec.DecodeError):
        return False
    return True


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
    recorded = {row.request_id for row in whole.rows.values() if row.kind in (RECORD, ERASED)}
    known = {name for _, name, _ in whole.accepts.values()}
    free = _free(base.accepted, whole.accepts, end.accepted if end else None)
    for row in list(whole.rows.values()):
        if row.kind in (RECORD, ERASED) and row.request_id not in known:
            number = next(free)
            whole.accepts[number] = (number, row.request_id, row.received_at)
    numbers = _free(base.records, whole.rows, end.records if end else None)
    open_ = {name: at for _, name, at in whole.accepts.values() if name not in recorded and name not in carried}
    for name, at in open_.items():
        number = next(numbers)
        body = encode(unanswered(name, at, TORN, 500, replica=worker))
        whole.rows[number] = Row(number, name, at, RECORD, body)
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
