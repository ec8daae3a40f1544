"""Erasing from the spool: the rows of a request, or of what a person said, lose their body and become `erased` or `unsaid`.

They stay as rows, so that sequences have no gaps and every accept keeps its record; no sink takes them. Works beside living
gateways and shippers, on open segments and sealed ones. Knows nothing of why something is erased.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper import feedback
from watchkeeper.feedback import Feedback
from watchkeeper.record import Record, decode
from watchkeeper.telemetry.segment import (
    ERASED,
    FEEDBACK,
    RECORD,
    UNSAID,
    Row,
    SegmentUnreadable,
    Transaction,
    segments,
)

BECOMES: Final[Mapping[str, str]] = {RECORD: ERASED, FEEDBACK: UNSAID}
PAGE: Final = 500
WAIT_S: Final = 20.0
"""How long a gateway's writer, or a reader of the log, may keep a segment."""

Said = Record | Feedback


class Spooled(msgspec.Struct, frozen=True):
    """`rows`: how many lost their body. `unreached`: files that cannot be read or written, and why, a line each: what
    stands in them is still there."""

    rows: int
    unreached: tuple[str, ...]


def waiting(folder: Path) -> Iterator[Said]:
    """All records and feedback that stand in a spool folder, in no order; what cannot be read or decoded is left out."""
    for segment in segments(folder).segments:
        with contextlib.suppress(SegmentUnreadable, FileNotFoundError):
            after = segment.first - 1
            while rows := segment.rows(after, limit=PAGE):
                yield from (said for row in rows if (said := said_in(row.kind, row.body)) is not None)
                after = rows[-1].sequence


def said_in(kind: str, body: bytes) -> Said | None:
    """A row's body; None: there is none, or none that can be decoded."""
    with contextlib.suppress(msgspec.DecodeError, ValueError):
        if kind == RECORD:
            return decode(body)
        if kind == FEEDBACK:
            return feedback.decode(body)
    return None


def erase(folder: Path, request_ids: Collection[str], feedback_ids: Collection[str]) -> Spooled:
    """Erases the records of these requests, the feedback on them, and the feedback of these ids."""

    def meant(row: Row) -> bool:
        if row.request_id in request_ids:
            return row.kind in BECOMES
        said = said_in(row.kind, row.body) if row.kind == FEEDBACK and feedback_ids else None
        return isinstance(said, Feedback) and said.feedback_id in feedback_ids

    found = segments(folder)
    unreached = [f"{path}: {why}" for path, why in found.unreadable.items()]
    erased = 0
    for segment in found.segments:
        try:
            erased += _erase(segment.path, _sequences(segment.path, meant))
        except FileNotFoundError:
            continue  # retired: every sink has it
        except sqlite3.Error as error:
            if segment.path.exists():
                unreached.append(f"{segment.path}: {error}")
    return Spooled(erased, tuple(unreached))


def _sequences(path: Path, meant: Callable[[Row], bool]) -> list[tuple[str, int]]:
    """What the rows that are meant become, and their sequence numbers. Reads without holding up the writer."""
    with contextlib.closing(_connect(path)) as database:
        rows = (Row(*row) for row in database.execute("SELECT * FROM records"))
        return [(BECOMES[row.kind], row.sequence) for row in rows if meant(row)]


def _erase(path: Path, sequences: list[tuple[str, int]]) -> int:
    """Takes the bodies away, out of the pages and then out of the log. The log is emptied even where there is nothing to
    take, because that may have been cut off before."""
    with contextlib.closing(_connect(path)) as database:
        if sequences:
            with Transaction(database):
                database.executemany("UPDATE records SET kind = ?, body = x'' WHERE sequence = ?", sequences)
        busy = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    if busy:
        raise sqlite3.OperationalError(f"others were at work on it for {WAIT_S:g} s, and its log may hold what was erased")
    return len(sequences)


def _connect(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise FileNotFoundError(str(path))
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=WAIT_S)
    database.execute("PRAGMA secure_delete = ON")
    return database
