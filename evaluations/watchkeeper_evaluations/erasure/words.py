"""The telling words of a drift, which several people used and nobody can take apart: of an evaluation of whose windows one
holds an erased request, all of them go. The verdict and its figures stay.
"""

import bisect
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import pyarrow as pa

from watchkeeper.lake.interactions import microseconds
from watchkeeper.lake.lake import Lake
from watchkeeper_evaluations.drift import without_words
from watchkeeper_evaluations.window import Window, moment

REFERENCE: Final = re.compile(r"differ from (\S+)\.\.(\S+):")
"""The reference window in a reason that has words."""

TOLD: Final = "SELECT * FROM evaluations WHERE job = 'drift' AND (reason LIKE '%; more: %' OR reason LIKE '%; fewer: %')"


def holds(window: Window | None, times: Sequence[int]) -> bool:
    """Whether one of the times (µs, in order) is in the window."""
    if window is None:
        return False
    at = bisect.bisect_left(times, microseconds(window.start))
    return at < len(times) and times[at] < microseconds(window.end)


def window(start: str | datetime | None, end: str | datetime | None) -> Window | None:
    """The window between two times; None where they are none."""
    try:
        return Window(*(moment(at) if isinstance(at, str) else at for at in (start, end) if at is not None))
    except (ValueError, TypeError):
        return None


def reference(text: str) -> Window | None:
    """The reference window in a reason, or alone as `start..end`; None: there is none."""
    found = REFERENCE.search(f"differ from {text}:" if "differ from" not in text else text)
    return window(*found.groups()) if found else None


def erase_in_lake(lake: Lake, times: Sequence[int]) -> int:
    """Takes the words out of reasons in `evaluations`; of how many rows. Files that held them stay until a purge."""
    rows = lake.query(TOLD).to_pylist()
    meant = [
        row
        for row in rows
        if holds(window(row["window_start"], row["window_end"]), times) or holds(reference(row["reason"]), times)
    ]
    ids = {row["evaluation_id"] for row in meant}

    def change(day: pa.Table) -> pa.Table:
        names, reasons = day.column("evaluation_id").to_pylist(), day.column("reason").to_pylist()
        plain = [
            without_words(reason) if name in ids and reason else reason for name, reason in zip(names, reasons, strict=True)
        ]
        at = day.schema.get_field_index("reason")
        return day.set_column(at, "reason", pa.array(plain, pa.string()))

    for day in sorted({row["date"] for row in meant}):
        lake.rewrite("evaluations", day, change)
    return len(meant)
