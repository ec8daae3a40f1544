"""`make bench`: every benchmark in one run on this machine, printed as one table of ratios against named peers.

A row compares the same work done by us and by a peer, both measured here and now; times are CPU time unless it says so.
Each figure is the median of several runs, with the least and the most. Nothing is asserted: a benchmark informs, a test
decides.
"""

import math
import statistics
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

RUNS = 5


@dataclass(frozen=True)
class Figure:
    """Median, least and most of several runs, in `unit`."""

    median: float
    least: float
    most: float
    unit: str

    def __str__(self) -> str:
        return f"{_short(self.median)} {self.unit} ({_short(self.least)}-{_short(self.most)})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class Row:
    """`less_is_better`: then the ratio is the peer's figure over ours; else ours over the peer's. Above 1 we are ahead."""

    what: str
    ours: Figure
    peer: str
    theirs: Figure
    less_is_better: bool = True

    @property
    def ratio(self) -> float:
        ahead, behind = (self.theirs, self.ours) if self.less_is_better else (self.ours, self.theirs)
        return ahead.median / behind.median if behind.median else math.inf


def figure(values: Sequence[float], unit: str) -> Figure:
    return Figure(statistics.median(values), min(values), max(values), unit)


def alternate(ours: Callable[[], float], theirs: Callable[[], float], runs: int = RUNS) -> tuple[list[float], list[float]]:
    """Measures both in turn, so that what else the machine does falls on both alike; a first run of each warms up."""
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(runs)]
    return [mine for mine, _ in pairs], [other for _, other in pairs]


def show(rows: Iterable[Row]) -> None:
    table = Table("what", "Watchkeeper", "peer", "", "ahead by", box=None, header_style="bold")
    for row in rows:
        table.add_row(
            row.what, str(row.ours), row.peer, str(row.theirs), "∞" if math.isinf(row.ratio) else f"{row.ratio:.3g}x"
        )
    Console(width=160).print(table)


def main() -> int:
    """Each part in turn. One that fails is named and costs the others nothing."""
    import balancing
    import chat
    import gateways
    import grounding
    import lake
    import serving
    import telemetry

    rows: list[Row] = []
    failed = 0
    for part in (telemetry, gateways, balancing, serving, lake, chat, grounding):
        try:
            for row in part.rows():
                print(f"{row.what}: {row.ours}", file=sys.stderr)
                rows.append(row)
        except Exception:  # whatever it is: the minutes that others took are not to be lost
            traceback.print_exc()
            failed = 1
    show(rows)
    return failed


if __name__ == "__main__":
    sys.exit(main())
