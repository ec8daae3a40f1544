"""Rows of base and candidate put side by side, case by case: what each says of a case, also where it says nothing.

Knows what a failed row and a missing value count as; nothing of tests, intervals or verdicts.

| a case's row | an assertion, or a score with a good way | a score with none | latency, tokens, cost |
|---|---|---|---|
| failed, or not there | the bad end of its range | left out | left out |
| without the value, the other side has it | the bad end, and counted as missing | left out | left out |
| without it on both sides | left out | left out | left out |
| failed on both sides | the bad end on both: a tie | left out | left out |

Both sides are filled alike, so that where nothing differs nothing is called different. A gate must not let a candidate win
by what the base lacks, though: `held` says which cases count for that, those of which the base has a value itself (for
`answered`: those that either side answered). Rows of one case on one side are repeats: their mean counts.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper_evaluations.scorer import Score

Kind = Literal["assertion", "number"]
Better = Literal["higher", "lower"]
Floats = NDArray[np.float64]
Sides = tuple[Sequence[float | None], Sequence[float | None]]
"""What the rows of one case say, base and candidate."""

ANSWERED: Final = "answered"
COSTS: Final = ("total_ms", "ttft_ms", "input_tokens", "output_tokens", "cost_usd")
"""What an answer took; less is better."""


class NotComparable(Exception):
    """These rows cannot be held against each other; the message is one line."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. `session`: which cases belong together; None: this one stands alone. `values`: by name of score.
    `costs`: by name in `COSTS`. None, or no entry: there is no such value."""

    case_id: str
    session: str | None = None
    failed: bool = False
    values: Mapping[str, float | bool | None] = {}
    costs: Mapping[str, float | None] = {}


@dataclass(frozen=True)
class Measure:
    """Something that each row may have. `bad`: what a row without it counts as; None: such a row is left out."""

    name: str
    kind: Kind
    better: Better | None
    bad: float | None
    read: Callable[[Row], float | None]


@dataclass(frozen=True)
class Column:
    """One measure of the cases that count: (n,) each. `sessions`: numbers, from 0. `held`: cases in which no value of the
    base was filled in. `missing_*`: rows that lacked the value and count as bad. `repeats`: every value is a multiple of
    1/`repeats`, where the measure is an assertion."""

    measure: Measure
    base: Floats
    candidate: Floats
    sessions: NDArray[np.int64]
    held: NDArray[np.bool_]
    missing_base: int
    missing_candidate: int
    repeats: int


@dataclass(frozen=True)
class Pair:
    """The rows of one case, at least one a side."""

    session: tuple[bool, str]
    base: Sequence[Row]
    candidate: Sequence[Row]


def pairs(base: Iterable[Row], candidate: Iterable[Row]) -> list[Pair]:
    """The cases of either side, in the order of their ids. A side that has no row of a case failed there.

    Raises `NotComparable` when no case is on both sides, or a case is of two sessions.
    """
    sides = _by_case(base), _by_case(candidate)
    if not sides[0].keys() & sides[1].keys():
        raise NotComparable("base and candidate have no case in common: only answers to the same dataset can be compared")
    found = []
    for case_id in sorted(sides[0].keys() | sides[1].keys()):
        absent = [Row(case_id=case_id, failed=True)]
        rows = [side.get(case_id, absent) for side in sides]
        sessions = sorted({row.session for side in rows for row in side if row.session})
        if len(sessions) > 1:
            raise NotComparable(f"case {case_id} is of session {sessions[0]!r} and of session {sessions[1]!r}")
        session = (True, sessions[0]) if sessions else (False, case_id)
        found.append(Pair(session, *(sorted(side, key=_canonical) for side in rows)))
    return found


def failed(rows: Iterable[Sequence[Row]]) -> int:
    return sum(row.failed for side in rows for row in side)


def measures(meanings: Iterable[Score]) -> list[Measure]:
    """`answered`, what the meanings name (labels apart), and what answers took."""
    found = [Measure(ANSWERED, "assertion", "higher", 0.0, lambda row: float(not row.failed))]
    for score in meanings:
        if score.kind != "label":
            bad = {"higher": score.low, "lower": score.high, None: None}[score.better]
            kind: Kind = "assertion" if score.kind == "assertion" else "number"
            found.append(Measure(score.name, kind, score.better, bad, _value(score.name)))
    return [*found, *(Measure(name, "number", "lower", None, _cost(name)) for name in COSTS)]


def column(cases: Sequence[Pair], measure: Measure) -> Column | None:
    """None where no case has it. Raises `NotComparable` for an assertion that is neither true nor false."""
    read = [_read(case, measure) for case in cases]
    if not any(_has(sides) for sides in read):
        return None
    kept = [
        (case, sides, means)
        for case, sides in zip(cases, read, strict=True)
        if (means := _means(case, measure, sides)) is not None
    ]
    if not kept:
        return None
    numbers = {session: number for number, session in enumerate(sorted({case.session for case, _, _ in kept}))}
    table = np.array([means for _, _, means in kept], np.float64)
    lacking = [_lacking(case, sides) for case, sides, _ in kept if measure.bad is not None and _has(sides)]
    return Column(
        measure,
        table[:, 0],
        table[:, 1],
        np.array([numbers[case.session] for case, _, _ in kept], np.int64),
        np.array([_held(case, measure, sides) for case, sides, _ in kept], np.bool_),
        sum(base for base, _ in lacking),
        sum(candidate for _, candidate in lacking),
        math.lcm(*(len(side) for _, sides, _ in kept for side in sides)),
    )


def _read(case: Pair, measure: Measure) -> Sides:
    return [measure.read(row) for row in case.base], [measure.read(row) for row in case.candidate]


def _has(sides: Sides) -> bool:
    """Whether any row of either side has the value."""
    return any(value is not None for side in sides for value in side)


def _means(case: Pair, measure: Measure, sides: Sides) -> tuple[float, float] | None:
    """What each side says of a case; None: the case is left out."""
    if not _has(sides) and not all(row.failed for row in (*case.base, *case.candidate)):
        return None
    means = []
    for side in sides:
        filled = [measure.bad if value is None else value for value in side]
        known = [value for value in filled if value is not None]
        if measure.kind == "assertion" and any(value not in {0, 1} for value in known):
            raise NotComparable(f"{measure.name} of case {case.base[0].case_id} is neither true nor false: {known}")
        if not known:
            return None
        means.append(math.fsum(known) / len(known))
    return means[0], means[1]


def _held(case: Pair, measure: Measure, sides: Sides) -> bool:
    if measure.name == ANSWERED:
        return any(not row.failed for row in (*case.base, *case.candidate))
    return all(value is not None for value in sides[0])


def _lacking(case: Pair, sides: Sides) -> tuple[int, int]:
    """Rows of each side that did not fail, and yet lack the value."""
    base, candidate = (
        sum(value is None and not row.failed for value, row in zip(values, rows, strict=True))
        for values, rows in zip(sides, (case.base, case.candidate), strict=True)
    )
    return base, candidate


def _by_case(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.case_id, []).append(row)
    return found


def _canonical(row: Row) -> bytes:
    """So that the order in which repeats were given changes nothing, not even the last digit of a sum."""
    return msgspec.json.encode(row, order="deterministic")


def _value(name: str) -> Callable[[Row], float | None]:
    return lambda row: None if row.failed else _finite(row.values.get(name))


def _cost(name: str) -> Callable[[Row], float | None]:
    return lambda row: None if row.failed else _finite(row.costs.get(name))


def _finite(value: float | bool | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
