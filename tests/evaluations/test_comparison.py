"""Comparisons say what is in the rows: false alarms as rare as alpha, power as of the exact paired test, and no order."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest
from scipy.stats import permutation_test
from statsmodels.stats.contingency_tables import mcnemar

from watchkeeper_evaluations.comparison import ALPHA, Comparison, Metric, compare, measured
from watchkeeper_evaluations.pairing import Column, Row
from watchkeeper_evaluations.scorer import Score
from watchkeeper_evaluations.simulation import METRIC, SHAPES, meaning, rates, tables

TABLES = 200
MOST = 17
"""Of 200 tables without a difference: with a rate of .05, more are called different once in a hundred times."""

BY_NAME = {shape.name: shape for shape in SHAPES}
MEANINGS = (
    Score("grounded", kind="assertion", better="higher"),
    Score("refusal", kind="assertion", better="lower"),
    Score("support", better="higher"),
    Score("toxicity.output", better="lower"),
    Score("readability", high=100.0),
)


def exact(column: Column) -> float:
    """p of the exact paired test, by other people's code: McNemar's, or the permutation test of whole sessions."""
    sums = np.bincount(column.sessions, column.candidate - column.base)
    if column.measure.kind == "assertion" and len(sums) == len(column.base):
        return float(mcnemar([[0, (sums < 0).sum()], [(sums > 0).sum(), 0]], exact=True).pvalue)
    return float(
        permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=999, vectorized=True, rng=1).pvalue
    )


@pytest.mark.parametrize("name", BY_NAME)
def test_no_difference_is_rarely_called_one(name: str) -> None:
    assert rates(BY_NAME[name], 0.0, TABLES, seed=3).different * TABLES <= MOST


@pytest.mark.parametrize(
    "name",
    [
        "100 sessions of 1",
        "60 sessions of 8, turns alike",
        "60 sessions of 1 to 20, 5% failed, 5% missing",
        "15 sessions of 8",
        "60 numbers",
        "60 sessions of numbers, 5% failed, 5% missing",
    ],
)
def test_a_difference_is_found_as_often_as_by_the_exact_paired_test(name: str) -> None:
    columns = [table.column() for table in tables(BY_NAME[name], 0.1, TABLES, seed=4)]
    ours = np.mean([measured(column, ALPHA).p < ALPHA for column in columns])
    theirs = np.mean([exact(column) < ALPHA for column in columns])
    assert 0.15 < theirs < 0.99
    assert abs(ours - theirs) <= 0.05


def test_single_rows_would_raise_false_alarms_where_sessions_do_not() -> None:
    """Why sessions are what is exchanged: McNemar's test of single rows, on turns that are alike."""
    assert rates(BY_NAME["60 sessions of 8, turns alike"], 0.0, TABLES, seed=3).rows_differ * TABLES > 2 * MOST


@pytest.mark.parametrize("name", [shape.name for shape in SHAPES if not shape.failed])
def test_intervals_hold_what_is_true(name: str) -> None:
    """Of .95, 200 tables show .91 to .98; skewed numbers of few sessions are held a little less often."""
    assert rates(BY_NAME[name], 0.1, TABLES, seed=5).held > (0.86 if "skewed" in name else 0.9)


@pytest.mark.parametrize("name", ["60 sessions of 1 to 20, 5% failed, 5% missing", "30 sessions of 1 to 20 skewed numbers"])
def test_rows_are_compared_as_the_simulated_columns_are(name: str) -> None:
    shape = BY_NAME[name]
    for table in tables(shape, 0.1, 5):
        base, candidate = table.rows()
        metric = compare(base, candidate, [meaning(shape)], [METRIC]).metric(METRIC)
        assert metric is not None
        assert metric.outcome == ("unclear" if metric.p >= ALPHA else "better")
        alone = msgspec.structs.replace(metric, primary=False, adjusted_p=None, outcome="unclear")
        assert alone == measured(table.column(), ALPHA)


def rows(seed: int, n: int = 90, shift: float = 0.0) -> list[Row]:
    """Everything that rows can be: sessions, repeats, failures, missing values, details that have no meaning."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        values: dict[str, float | bool | None] = {
            "grounded": bool(rng.random() < 0.4 + shift),
            "refusal": bool(rng.random() < 0.2),
            "support": None if rng.random() < 0.1 else float(rng.random()),
            "toxicity.output": float(rng.random() / 50),
            "readability": float(60 + rng.normal()),
            "toxicity.output.threat": 0.3,
        }
        costs = {"total_ms": float(rng.exponential(900)), "output_tokens": float(rng.integers(10, 90)), "ttft_ms": None}
        session = f"session{number // 3}" if number % 10 else None
        repeats = 2 if number % 7 == 0 else 1
        failed = bool(rng.random() < 0.05)
        row = Row(case_id=f"case{number:04}", session=session, failed=failed, values=values, costs=costs)
        made += [row] + [msgspec.structs.replace(row, failed=False, values=values | {"grounded": True})] * (repeats - 1)
    return made


def mirrored(metric: Metric) -> Metric:
    outcome = {"better": "worse", "worse": "better"}.get(metric.outcome, metric.outcome)
    return msgspec.convert(
        msgspec.structs.asdict(metric)
        | {
            "base": metric.candidate,
            "candidate": metric.base,
            "delta": -metric.delta,
            "low": None if metric.high is None else -metric.high,
            "high": None if metric.low is None else -metric.low,
            "wins": metric.losses,
            "losses": metric.wins,
            "missing_base": metric.missing_candidate,
            "missing_candidate": metric.missing_base,
            "outcome": outcome,
        },
        Metric,
    )


def test_exchanging_base_and_candidate_mirrors_everything() -> None:
    margins = {"toxicity.output": 0.1}
    there = compare(rows(1), rows(2, shift=0.3), MEANINGS, margins=margins)
    back = compare(rows(2, shift=0.3), rows(1), MEANINGS, margins=margins)
    assert {metric.outcome for metric in there.metrics} >= {"better", "same", "unclear"}
    # All but `own`, which is the base's view by intent.
    alike = [msgspec.structs.replace(metric, own=None) for metric in back.metrics]
    assert [msgspec.structs.replace(mirrored(metric), own=None) for metric in there.metrics] == alike
    assert (there.failed.base, there.failed.candidate) == (back.failed.candidate, back.failed.base)


def test_the_order_of_rows_changes_nothing() -> None:
    base, candidate = rows(1), rows(2)
    rng = np.random.default_rng(0)
    one, other = ([side[place] for place in rng.permutation(len(side))] for side in (base, candidate))
    assert compare(one, other, MEANINGS) == compare(base, candidate, MEANINGS)


def test_primary_metrics_pay_for_each_other_and_the_others_stand_beside() -> None:
    found = compare(rows(1), rows(2, shift=0.3), MEANINGS, ["grounded", "support", "nothing"])
    adjusted = {metric.name: metric.adjusted_p for metric in found.metrics if metric.primary}
    grounded, support = found.metric("grounded"), found.metric("support")
    assert grounded is not None
    assert support is not None
    assert adjusted == {"grounded": pytest.approx(2 * grounded.p), "support": pytest.approx(max(support.p, 2 * grounded.p))}
    assert [metric.name for metric in found.metrics] == [
        "answered", "grounded", "refusal", "support", "toxicity.output", "readability", "total_ms", "output_tokens",
    ]  # fmt: skip


def one(base: Sequence[bool], candidate: Sequence[bool], margin: float | None = None) -> Metric:
    before, after = (
        [Row(case_id=f"{n:03}", values={"grounded": holds}) for n, holds in enumerate(side)] for side in (base, candidate)
    )
    found = compare(before, after, MEANINGS[:1], margins={} if margin is None else {"grounded": margin})
    metric = found.metric("grounded")
    assert metric is not None
    return metric


def test_the_four_outcomes() -> None:
    half = [number % 2 == 0 for number in range(200)]
    more = [holds or number % 5 == 0 for number, holds in enumerate(half)]
    assert one(half, more).outcome == "better"
    assert one(more, half).outcome == "worse"
    assert one(half, half, margin=0.05).outcome == "same"
    assert one(half, half, margin=0.01).outcome == "unclear"
    assert one(half, half).outcome == "unclear"


def test_a_number_without_a_good_way_is_neither_better_nor_worse() -> None:
    base = [Row(case_id=f"{n:03}", values={"readability": 50.0 + n % 3}) for n in range(40)]
    candidate = [Row(case_id=f"{n:03}", values={"readability": 60.0 + n % 2}) for n in range(40)]
    metric = compare(base, candidate, MEANINGS).metric("readability")
    assert metric is not None
    assert (metric.p < 0.001, metric.outcome, metric.better, metric.wins) == (True, "unclear", None, 40)


def test_the_document_is_what_is_kept_of_a_comparison() -> None:
    found = compare(rows(1), rows(2), MEANINGS)
    document = msgspec.to_builtins(found)
    assert list(document) == ["n", "clusters", "alpha", "failed", "metrics"]
    assert document["failed"].keys() == {"base", "candidate"}
    assert set(document["metrics"][0]) >= {
        "name", "kind", "better", "primary", "n", "clusters", "base", "candidate", "delta", "low", "high", "p",
        "adjusted_p", "wins", "ties", "losses", "test", "outcome",
    }  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(found), type=Comparison) == found


def test_tests_are_named_for_what_they_are() -> None:
    tests = {metric.name: metric.test for metric in compare(rows(1), rows(2), MEANINGS).metrics}
    assert tests["grounded"] == "exact sign-flip by session"
    assert tests["support"] == "sign-flip by session, 9,999 draws"
    assert one([True] * 9, [False] * 9).test == "exact McNemar"


def test_many_cases_take_linear_time(bounded: Callable[..., None]) -> None:
    few, many = ((rows(1, count), rows(2, count)) for count in (200, 800))
    bounded(lambda: compare(*many, MEANINGS), lambda: compare(*few, MEANINGS))
