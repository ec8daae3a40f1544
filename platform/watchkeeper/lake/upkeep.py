"""Upkeep of the lake: many small files become few, and 5-minute rows one for each slice. `tidy` is called after appends.

Every append adds a file, and a reader pays about a millisecond for each. So the writer tidies, in tiers: a row is
rewritten a few times in its life, not at every append. Only the rollups' leftovers are deleted here; what other tables
were at an older version stays readable until retention ends it. Knows nothing of what the rows say.
"""

from collections.abc import Iterable
from datetime import date
from typing import Final

from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import merge
from watchkeeper.lake.tables import TABLES

SMALL_FILES: Final = 48
"""So many files too many, and they are joined."""

TIERS: Final = (4_000_000, 64_000_000)
"""Bytes. Small files become one of about the first size; those, when there are many, one of the second."""

ROLLUP_HOURS: Final = 1
"""How long a merged rollup's old files stay, for readers that are at it."""


def tidy(lake: Lake) -> list[str]:
    """Joins files where there are too many; returns the tables that were touched. Cheap when there is nothing to do.

    Safe beside any writers and readers, and in several processes at once. Raises `LakeUnavailable` when others keep getting
    in first: the next call finds the same to do.
    """
    touched = []
    for table in TABLES:
        files = lake.files(table)
        if table == "rollups":
            days = [day for day, sizes in files.items() if len(sizes) > 1]
            if _spare(files.values()) >= SMALL_FILES:
                _merge(lake, days)
                touched.append(table)
            continue
        for tier in TIERS:
            # Half: joined files come out a little below the size asked for, and must not count as small again.
            if _spare([size for size in sizes if size < tier // 2] for sizes in files.values()) >= SMALL_FILES:
                lake.compact(table, tier)
                touched.append(table)
                files = lake.files(table)
    return touched


def _merge(lake: Lake, days: Iterable[date]) -> None:
    for day in days:
        lake.rewrite("rollups", day, merge)
    lake.vacuum("rollups", ROLLUP_HOURS)


def _spare(days: Iterable[list[int]]) -> int:
    """How many files fewer there would be with one a day."""
    return sum(max(0, len(sizes) - 1) for sizes in days)
