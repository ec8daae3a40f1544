"""Which requests a data folder's spool has ever seen: in the segments that are there, and among the ids of retired ones."""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.segment import SegmentUnreadable, reading, segments

AT_ONCE: Final = 500


def known(data: Path, spool: Path, request_ids: Iterable[str]) -> set[str]:
    """Those of the ids that were accepted or recorded. A segment that cannot be read says nothing."""
    names = [*request_ids]
    found: set[str] = set()
    if not names:
        return found
    # The files first: the ids of one that is retired meanwhile are kept before it goes.
    for segment in segments(spool).segments:
        with contextlib.suppress(SegmentUnreadable, FileNotFoundError), reading(segment.path) as database:
            for start in range(0, len(names), AT_ONCE):
                some = names[start : start + AT_ONCE]
                marks = ", ".join("?" * len(some))
                for table in ("accepted", "records"):
                    rows = database.execute(f"SELECT request_id FROM {table} WHERE request_id IN ({marks})", some)
                    found.update(name for (name,) in rows)
    deliveries = Deliveries(data, writable=False)
    try:
        return found | deliveries.among_retired(set(names) - found)
    finally:
        deliveries.close()
