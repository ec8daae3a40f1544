"""Two releases held against each other over the same cases: what differs, by how much, and what is more than chance.

    rows of base and candidate → pairs by case (pairing.py) → tests and intervals by session (paired.py) → `Comparison`

The few metrics named primary are what the comparison is made for: below alpha their adjusted p (Holm) holds for all of them
together. The others stand beside: among those of them that are called better or worse, a share of alpha is so by chance
(Benjamini and Hochberg). Pure: knows neither lake nor MLflow, draws with a fixed seed, and gives the same for the same rows
in any order.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from watchkeeper_evaluations.paired import DRAWS, Found, holm, of_assertions, of_numbers
from watchkeeper_evaluations.pairing import ANSWERED, Better, Column, Kind, Row, column, failed, measures, pairs
from watchkeeper_evaluations.scorer import Score

ALPHA: Final = 0.05
PRIMARY: Final = (ANSWERED, "grounded", "reference_similarity")
"""What is primary where the caller names nothing else. Few: each further one makes all of them harder to see."""

Outcome = Literal["better", "worse", "same", "unclear"]
_TIE: Final = 1e-9


class Own(msgspec.Struct, frozen=True, kw_only=True):
    """A metric over the cases of which the base has a value itself, so that nothing is gained by what it lacks."""

    n: int
    clusters: int
    low: float | None
    high: float | None
    p: float


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of both sides, over the `n` cases that have it, of `clusters` sessions.

    `base`, `candidate`: means; of an assertion the share that holds. `delta`: candidate - base, with its interval `low` to
    `high` (level 1 - alpha; None: too few sessions to bound it). `wins`: cases in which the candidate is better (higher,
    where neither way is better). `missing_base`, `missing_candidate`: rows without a value, which the other side has,
    counted as bad; the comparison's `n` less this `n` are the cases left out. `own`: what a gate lets count for the
    candidate; None: the same as the whole, since the base lacks nothing.
    """

    name: str
    kind: Kind
    better: Better | None
    primary: bool
    n: int
    clusters: int
    base: float
    candidate: float
    delta: float
    low: float | None
    high: float | None
    p: float
    adjusted_p: float | None
    wins: int
    ties: int
    losses: int
    missing_base: int
    missing_candidate: int
    test: str
    outcome: Outcome
    own: Own | None


class Failed(msgspec.Struct, frozen=True):
    """Rows that failed, and cases that a side has no row of."""

    base: int
    candidate: int


class Ruled(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate says of one of its rules (gate.py)."""

    metric: str
    rule: Literal["better", "not_worse", "at_least", "at_most"]
    margin: float | None = None
    value: float | None = None
    verdict: Literal["pass", "fail", "unknown"]
    reason: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """`n`: cases of either side. `clusters`: sessions. `rules`: only of a gate."""

    n: int
    clusters: int
    alpha: float
    failed: Failed
    metrics: tuple[Metric, ...]
    rules: tuple[Ruled, ...] | msgspec.UnsetType = msgspec.UNSET

    def metric(self, name: str) -> Metric | None:
        return next((metric for metric in self.metrics if metric.name == name), None)


def compare(
    base: Iterable[Row],
    candidate: Iterable[Row],
    meanings: Iterable[Score],
    primary: Collection[str] = PRIMARY,
    *,
    alpha: float = ALPHA,
    margins: Mapping[str, float] | None = None,
) -> Comparison:
    """Compares what has a meaning, and what answers took; scores without one are details, and left alone.

    `margins`: by metric, how far a mean may move and still be the same. Raises `NotComparable`: no case in common, a case
    of two sessions, an assertion that is neither true nor false.
    """
    cases = pairs(base, candidate)
    columns = [found for measure in measures(meanings) if (found := column(cases, measure)) is not None]
    plain = Comparison(
        n=len(cases),
        clusters=len({case.session for case in cases}),
        alpha=alpha,
        failed=Failed(failed(case.base for case in cases), failed(case.candidate for case in cases)),
        metrics=tuple(measured(found, alpha) for found in columns),
    )
    return read_for(plain, primary, margins or {})


def read_for(comparison: Comparison, primary: Collection[str], margins: Mapping[str, float]) -> Comparison:
    """The same measurements with other metrics primary: adjusted p and outcomes anew."""
    first = [metric for metric in comparison.metrics if metric.name in primary]
    beside = [metric for metric in comparison.metrics if metric.name not in primary]
    adjusted = dict(zip((metric.name for metric in first), holm([metric.p for metric in first]), strict=True))
    discovered = false_discovery_control([metric.p for metric in beside]) if beside else []
    chances = adjusted | {metric.name: float(p) for metric, p in zip(beside, discovered, strict=True)}
    return msgspec.structs.replace(
        comparison,
        metrics=tuple(
            msgspec.structs.replace(
                metric,
                primary=metric.name in adjusted,
                adjusted_p=adjusted.get(metric.name),
                outcome=_outcome(metric, chances[metric.name] < comparison.alpha, margins.get(metric.name)),
            )
            for metric in comparison.metrics
        ),
    )


def measured(found: Column, alpha: float) -> Metric:
    """One metric alone; `read_for` says what it is beside the others."""
    measure = found.measure
    differences = found.candidate - found.base
    tested, clusters = _tested(found, np.ones(len(differences), np.bool_), alpha)
    good = -differences if measure.better == "lower" else differences
    wins, losses = int((good > _TIE).sum()), int((good < -_TIE).sum())
    return Metric(
        name=measure.name,
        kind=measure.kind,
        better=measure.better,
        primary=False,
        n=len(differences),
        clusters=clusters,
        base=float(found.base.mean()),
        candidate=float(found.candidate.mean()),
        delta=float(differences.mean()),
        low=_finite(tested.low),
        high=_finite(tested.high),
        p=tested.p,
        adjusted_p=None,
        wins=wins,
        ties=len(differences) - wins - losses,
        losses=losses,
        missing_base=found.missing_base,
        missing_candidate=found.missing_candidate,
        test=_name(found, tested),
        outcome="unclear",
        own=None if found.held.all() else _own(found, alpha),
    )


def _own(found: Column, alpha: float) -> Own:
    if not found.held.any():
        return Own(n=0, clusters=0, low=None, high=None, p=1.0)
    tested, clusters = _tested(found, found.held, alpha)
    n = int(found.held.sum())
    return Own(n=n, clusters=clusters, low=_finite(tested.low), high=_finite(tested.high), p=tested.p)


def _tested(found: Column, which: NDArray[np.bool_], alpha: float) -> tuple[Found, int]:
    """The test over some of the cases, and of how many sessions they are."""
    differences = (found.candidate - found.base)[which]
    _, sessions = np.unique(found.sessions[which], return_inverse=True)
    sums = np.bincount(sessions, differences).astype(np.float64)
    sizes = np.bincount(sessions).astype(np.float64)
    if found.measure.kind == "assertion":
        return of_assertions(sums, sizes, float((differences**2).sum()), alpha, found.repeats), len(sizes)
    return of_numbers(sums, sizes, alpha), len(sizes)


def _name(found: Column, tested: Found) -> str:
    """The test in words. Assertions with a case a session, each answered once, are what McNemar's test is for."""
    alone = len(set(found.sessions.tolist())) == len(found.sessions)
    if tested.exact and found.measure.kind == "assertion" and found.repeats == 1 and alone:
        return "exact McNemar"
    by = "case" if alone else "session"
    return f"exact sign-flip by {by}" if tested.exact else f"sign-flip by {by}, {DRAWS:,} draws"


def _outcome(metric: Metric, certain: bool, margin: float | None) -> Outcome:
    if certain and metric.better is not None:
        return "better" if (metric.delta > 0) == (metric.better == "higher") else "worse"
    if margin is None or metric.low is None or metric.high is None:
        return "unclear"
    return "same" if -margin <= metric.low and metric.high <= margin else "unclear"


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
