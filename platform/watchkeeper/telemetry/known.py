"""Which requests a data folder's spool has ever seen: in the segments that are there, and among the ids of retired ones."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.frames import FEEDBACK
from watchkeeper.telemetry.segment import SegmentUnreadable, reading, segments


def known(data: Path, spool: Path, request_ids: Iterable[str]) -> set[str]:
    """Those of the ids that were accepted or recorded. A segment that cannot be read says nothing."""
    names = {*request_ids}
    found: set[str] = set()
    if not names:
        return found
    # The files first: the ids of one that is retired meanwhile are kept before it goes.
    for segment in segments(spool).segments:
        with contextlib.suppress(SegmentUnreadable, FileNotFoundError), reading(segment.path) as file:
            heads = (head for head in file.heads() if head.kind != FEEDBACK)  # anyone may say something of any id
            found.update(head.name for head in heads if head.name in names)
    deliveries = Deliveries(data, writable=False)
    try:
        return found | deliveries.among_retired(names - found)
    finally:
        deliveries.close()
