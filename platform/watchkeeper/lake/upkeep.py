"""Upkeep of the lake: many small files become few, 5-minute rows one for each slice, and what nobody can read goes.

Every append adds a file, and a reader pays about a millisecond for each. So the writer joins them, in tiers: a row is
rewritten once or twice in its life, not at every append. Nothing is deleted by joining: the files of older versions stay
for as long as those can be read (`history`), and go with the table's log after that. All of it is safe beside any readers
and writers, and in several processes at once. Knows nothing of what the rows say.
"""

from collections.abc import Callable, Iterable
from typing import Final

from watchkeeper.lake.lake import Lake, LakeTooNew
from watchkeeper.lake.rollup import merge
from watchkeeper.lake.tables import TABLES

SMALL_FILES: Final = 48
"""So many files too many, and they are joined."""

PARTIAL_FILES: Final = 24
"""The same of rollups, which every chart reads."""

TIERS: Final = (4_000_000, 32_000_000)
"""Bytes. Small files become a few of the first size; those, when there are many, one of the second."""

FEW: Final = 8
"""At most so many files are made of small ones; more would be too many again before long."""

WRITING_H: Final = 1
"""Hours. What nobody refers to and is older than that, no writer is still at: a crash left it."""


def tidy(lake: Lake, spare: int = SMALL_FILES) -> list[str]:
    """Joins files where there are `spare` too many; returns the tables that were touched. Cheap when there is nothing to
    do. Raises `LakeUnavailable` when others keep getting in first: the next call finds the same to do."""
    touched = []
    for table in TABLES:
        if table == "rollups":
            if _merge(lake, min(spare, PARTIAL_FILES)):
                touched.append(table)
            continue
        done = False
        for tier in TIERS:
            # Half: joined files come out a little below the size asked for, and must not count as small again.
            small = [[size for size in sizes if size < tier // 2] for sizes in lake.files(table).values()]
            if _spare(small) >= spare and _few(small, tier):
                lake.compact(table, tier)
                done = True
        if done:
            touched.append(table)
    return touched


def clean(lake: Lake, history_s: int, report: Callable[[str], object] = lambda table: None) -> None:
    """Deletes, table by table, the files that no version of the last `history_s` seconds uses, those that a crash left,
    and what the log knows of older versions."""
    for table in TABLES:
        report(table)
        if lake.version(table) is not None:
            lake.vacuum(table, -(-history_s // 3600))
            lake.vacuum(table, max(WRITING_H, -(-history_s // 3600)), everything=True)
            lake.trim(table, history_s)


def _merge(lake: Lake, spare: int) -> bool:
    """Sums the rollups of the days that have `spare` files too many. Whether there was such a day.

    A day is summed whole, so a large one waits until a quarter as much came, or three times as many files. Those that a
    later version of ours wrote to are only joined: a sum of ours would lack what we do not know of.
    """
    due = []
    for day, sizes in lake.files("rollups").items():
        more, largest = len(sizes) - 1, max(sizes)
        if more >= 3 * spare or (more >= spare and sum(sizes) - largest > largest // 4):
            due.append(day)
    try:
        for day in due:
            lake.rewrite("rollups", day, merge)
    except LakeTooNew:
        lake.compact("rollups", TIERS[-1])
    return bool(due)


def _few(days: Iterable[list[int]], tier: int) -> bool:
    """Whether few files of this size would hold them all; always true of the largest."""
    return tier == TIERS[-1] or all(sum(sizes) <= FEW * tier for sizes in days)


def _spare(days: Iterable[list[int]]) -> int:
    """How many files fewer there would be with one a day."""
    return sum(max(0, len(sizes) - 1) for sizes in days)
