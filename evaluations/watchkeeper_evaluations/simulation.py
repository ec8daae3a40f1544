"""Simulated answers of two releases whose difference is known: what the rates of compare (README) were measured on.

    python -m watchkeeper_evaluations.simulation [TABLES]

prints, for each shape of table, how often no difference is called one, how often a difference is found, and how often the
interval holds it; beside what a test of single rows does. Not used by any command.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, ttest_1samp

from watchkeeper_evaluations.comparison import ALPHA, measured
from watchkeeper_evaluations.pairing import Column, Row, measures
from watchkeeper_evaluations.scorer import Score

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

METRIC: Final = "measured"
BASE: Final = 0.4
"""The share of the base's answers that hold."""


@dataclass(frozen=True)
class Shape:
    """`turns`: cases a session; None: one to twenty, four on average. `together`: which share of a session's differences
    are one and the same. `changed`: which share of assertions differ at all. `failed`, `missing`: shares of either side."""

    name: str
    sessions: int
    turns: int | None = 1
    kind: Literal["assertion", "number", "skewed"] = "assertion"
    together: float = 0.0
    changed: float = 0.3
    failed: float = 0.0
    missing: float = 0.0


@dataclass(frozen=True)
class Table:
    """What both sides' answers to n cases are: `values`, `failed`, `missing` (2, n), base and candidate, and the number of
    each case's session."""

    shape: Shape
    values: Floats
    failed: Flags
    missing: Flags
    sessions: NDArray[np.int64]

    def rows(self) -> tuple[list[Row], list[Row]]:
        """As `compare` takes them."""
        base, candidate = ([self._row(side, case) for case in range(len(self.sessions))] for side in (0, 1))
        return base, candidate

    def _row(self, side: int, case: int) -> Row:
        value = float(self.values[side, case])
        known = value == 1.0 if self.shape.kind == "assertion" else value
        return Row(
            case_id=f"{case:05}",
            session=f"{self.sessions[case]:05}",
            failed=bool(self.failed[side, case]),
            values={METRIC: None if self.missing[side, case] else known},
        )

    def column(self) -> Column:
        """What pairing makes of the rows, without making them."""
        lost = self.failed | self.missing
        counts = ~lost.all(axis=0) | self.failed.all(axis=0)
        base, candidate = np.where(lost, 0.0, self.values)[:, counts]
        lacking = (self.missing & ~self.failed & ~lost.all(axis=0)).sum(axis=1)
        _, sessions = np.unique(self.sessions[counts], return_inverse=True)
        measure = next(measure for measure in measures([meaning(self.shape)]) if measure.name == METRIC)
        held = ~lost[0, counts]
        return Column(measure, base, candidate, sessions, held, int(lacking[0]), int(lacking[1]), 1)


SHAPES: Final = (
    Shape("100 sessions of 1", 100),
    Shape("400 sessions of 1", 400),
    Shape("60 sessions of 8, turns alike", 60, 8, together=0.5),
    Shape("60 sessions of 8, turns of their own", 60, 8),
    Shape("60 sessions of 1 to 20", 60, None, together=0.3),
    Shape("60 sessions of 1 to 20, 5% failed, 5% missing", 60, None, together=0.3, failed=0.05, missing=0.05),
    Shape("15 sessions of 8", 15, 8, together=0.3),
    Shape("60 numbers", 60, kind="number"),
    Shape("60 sessions of 8 numbers", 60, 8, "number", together=0.5),
    Shape("30 sessions of 1 to 20 skewed numbers", 30, None, "skewed", together=0.3),
    Shape("15 sessions of 8 skewed numbers", 15, 8, "skewed", together=0.3),
    Shape("60 sessions of numbers, 5% failed, 5% missing", 60, None, "number", together=0.3, failed=0.05, missing=0.05),
)


def meaning(shape: Shape) -> Score:
    return Score(METRIC, kind="assertion" if shape.kind == "assertion" else "score", better="higher")


def tables(shape: Shape, delta: float, count: int, seed: int = 0) -> Iterator[Table]:
    """`count` tables whose true difference is `delta`, before rows fail or lack the value."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield _table(shape, delta, rng)


def _table(shape: Shape, delta: float, rng: np.random.Generator) -> Table:
    sizes = (
        np.minimum(rng.geometric(0.25, shape.sessions), 20) if shape.turns is None else np.full(shape.sessions, shape.turns)
    )
    sessions = np.repeat(np.arange(shape.sessions), sizes)
    n = len(sessions)
    alike = rng.random(n) < shape.together
    chance = np.where(alike, rng.random(shape.sessions)[sessions], rng.random(n))
    values = _values(shape, delta, chance, rng)
    return Table(shape, values, rng.random((2, n)) < shape.failed, rng.random((2, n)) < shape.missing, sessions)


def _values(shape: Shape, delta: float, chance: Floats, rng: np.random.Generator) -> Floats:
    """(2, n): base and candidate."""
    if shape.kind == "assertion":
        won, lost = (shape.changed + delta) / 2, (shape.changed - delta) / 2
        unchanged = (rng.random(len(chance)) < BASE).astype(np.float64)
        base = np.where(chance < won, 0.0, np.where(chance > 1 - lost, 1.0, unchanged))
        candidate = np.where(chance < won, 1.0, np.where(chance > 1 - lost, 0.0, unchanged))
    else:
        # Evenly spread over 1.2; or a cube, of the same reach: many slightly below the mean, a few far above.
        spread = 1.2 * (chance - 0.5) if shape.kind == "number" else 1.2 * (chance**3 - 0.25)
        base, candidate = 0.5 - (delta + spread) / 2, 0.5 + (delta + spread) / 2
    return np.stack([base, candidate])


@dataclass(frozen=True)
class Rates:
    """Shares of tables. `different`: called better or worse; `rows_differ`: so would a test of single rows; `held`: the
    interval holds the true difference."""

    different: float
    rows_differ: float
    held: float


def rates(shape: Shape, delta: float, count: int, seed: int = 0) -> Rates:
    """What a comparison with this one primary metric says of `count` tables."""
    different, rows_differ, held = 0, 0, 0
    for table in tables(shape, delta, count, seed):
        column = table.column()
        metric = measured(column, ALPHA)
        different += metric.p < ALPHA
        rows_differ += _of_rows(shape, column.candidate - column.base) < ALPHA
        held += metric.low is not None and metric.high is not None and metric.low <= delta <= metric.high
    return Rates(different / count, rows_differ / count, held / count)


def _of_rows(shape: Shape, differences: Floats) -> float:
    """p of exact McNemar, or of the paired t test: each row taken for independent."""
    if shape.kind != "assertion":
        return float(ttest_1samp(differences, 0).pvalue)
    won, lost = int((differences > 0).sum()), int((differences < 0).sum())
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"{count} tables a line; rows: a test that takes each row for independent")
    print("| table | no difference: called one | rows | .1: found | rows | interval holds 0 | interval holds .1 |")
    for shape in SHAPES:
        none, some = rates(shape, 0.0, count), rates(shape, 0.1, count, seed=1)
        said = [none.different, none.rows_differ, some.different, some.rows_differ, none.held]
        # What failed or is missing moves the true difference: nobody knows where to.
        said += [some.held] if shape.failed == shape.missing == 0 else []
        print("|", " | ".join([shape.name, *(f"{share:.3f}" for share in said)]), "|", flush=True)


if __name__ == "__main__":
    main()
