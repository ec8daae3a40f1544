"""Erasing from the spool: the rows of a request, or of what a person said, lose their body and become `erased` or `unsaid`.

They stay as rows, so that sequences have no gaps and every accept keeps its record; no sink takes them. Works beside living
gateways and shippers, on open segments and sealed ones. Knows nothing of why something is erased.
"""

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper import feedback
from watchkeeper.feedback import Feedback
from watchkeeper.record import Record, decode
from watchkeeper.telemetry import frames
from watchkeeper.telemetry.frames import Head
from watchkeeper.telemetry.segment import FEEDBACK, RECORD, Opened, SegmentUnreadable, reading, segments

PAGE: Final = 500

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

    found = segments(folder)
    unreached = [f"{path}: {why}" for path, why in found.unreadable.items()]
    erased = 0
    for segment in found.segments:
        try:
            with reading(segment.path, os.O_RDWR) as file:
                meant = [head for head in file.rows(file.before.records) if _meant(file, head, request_ids, feedback_ids)]
                erased += frames.erase(file.descriptor, meant)
        except FileNotFoundError:
            continue  # retired: every sink has it
        except SegmentUnreadable as error:
            if segment.path.exists():
                unreached.append(str(error))
    return Spooled(erased, tuple(unreached))


def _meant(file: Opened, head: Head, request_ids: Collection[str], feedback_ids: Collection[str]) -> bool:
    """Whether a row is to lose its body; also one of which that was cut off before."""
    if head.erased or head.name in request_ids:
        return True
    if head.kind != frames.FEEDBACK or not feedback_ids:
        return False
    row = file.row(head)
    said = said_in(row.kind, row.body)
    return isinstance(said, Feedback) and said.feedback_id in feedback_ids
