"""The gate: what is shown passes, what is broken fails, and too little evidence is neither."""

from collections.abc import Sequence

import pytest

from watchkeeper_evaluations.comparison import Comparison, compare
from watchkeeper_evaluations.gate import Gate, judge
from watchkeeper_evaluations.pairing import NotComparable, Row
from watchkeeper_evaluations.policy import Policy, PolicyError, Require, load_policy
from watchkeeper_evaluations.scorer import Score

MEANINGS = (
    Score("grounded", kind="assertion", better="higher"),
    Score("toxicity.output", better="lower"),
    Score("readability", high=100.0),
)


def rows(grounded: Sequence[bool], *, failed: int = 0, toxic: float = 0.01, session_of: int = 1) -> list[Row]:
    """A row a case; the first `failed` of them failed."""
    return [
        Row(
            case_id=f"case{number:03}",
            session=f"session{number // session_of}",
            failed=number < failed,
            values={"grounded": holds, "toxicity.output": toxic + number % 7 / 1000, "readability": 50.0 + number % 5},
            costs={"total_ms": 900.0 + number},
        )
        for number, holds in enumerate(grounded)
    ]


def grounded(holding: int, of: int = 100) -> list[bool]:
    return [number < holding for number in range(of)]


def one(rule: Require, **others: int) -> Policy:
    return Policy(require=(rule,), **others)


def compared(base: list[Row], candidate: list[Row]) -> Comparison:
    return compare(base, candidate, MEANINGS)


def test_a_better_release_passes_the_default_policy() -> None:
    gate = judge(compared(rows(grounded(40)), rows(grounded(70))), load_policy())
    assert gate.verdict == "pass", gate.reason
    assert [(rule.metric, rule.verdict) for rule in gate.rules] == [
        ("answered", "pass"),
        ("toxicity.output", "pass"),
        ("grounded", "pass"),
    ]
    assert "0.4 → 0.7 (+0.3" in gate.reason
    assert [metric.name for metric in gate.comparison.metrics if metric.primary] == ["grounded"]


def test_a_worse_release_is_stopped() -> None:
    gate = judge(compared(rows(grounded(70)), rows(grounded(40))), load_policy())
    assert gate.verdict == "fail"
    assert gate.reason.startswith("grounded better: 0.7 → 0.4 (-0.3")
    assert "worse for certain" in gate.reason


def test_a_release_that_fails_more_often_is_stopped_however_good_its_answers_are() -> None:
    gate = judge(compared(rows(grounded(40)), rows(grounded(100), failed=12)), load_policy())
    assert gate.verdict == "fail"
    assert gate.reason.startswith("answered not_worse: ")


def test_no_difference_is_not_enough_evidence() -> None:
    gate = judge(compared(rows(grounded(40)), rows(grounded(42))), load_policy())
    assert gate.verdict == "unknown"
    assert "grounded better" in gate.reason
    assert "in 8 of 10 comparisons" in gate.reason


@pytest.mark.parametrize(("cases", "session_of"), [(29, 1), (100, 6)])
def test_too_few_cases_or_sessions_never_pass_or_fail(cases: int, session_of: int) -> None:
    none, everything = grounded(0, cases), grounded(cases, cases)
    for base, candidate in ((none, everything), (everything, none)):
        measured = compared(rows(base, session_of=session_of), rows(candidate, session_of=session_of))
        gate = judge(measured, load_policy())
        assert {rule.verdict for rule in gate.rules} == {"unknown"}
        assert "are needed" in gate.reason


def test_a_metric_that_no_case_has_is_unknown() -> None:
    gate = judge(compared(rows(grounded(40)), rows(grounded(70))), one(Require(metric=("reference_f1",), rule="better")))
    assert (gate.verdict, gate.reason) == ("unknown", "reference_f1 better: no case has reference_f1")


@pytest.mark.parametrize(
    ("base", "candidate", "verdict"),
    [(50, 60, "pass"), (50, 80, "pass"), (50, 52, "fail"), (50, 45, "fail")],
)
def test_an_effect_that_was_asked_for_and_is_not_there_fails(base: int, candidate: int, verdict: str) -> None:
    """400 cases, no losses beside wins: intervals of a few hundredths."""
    measured = compared(rows(grounded(base * 4, 400)), rows(grounded(candidate * 4, 400)))
    gate = judge(measured, one(Require(metric=("grounded",), rule="better", margin=0.1)))
    assert gate.verdict == verdict, gate.reason


@pytest.mark.parametrize(
    ("losses", "margin", "verdict"), [(0, 0.05, "pass"), (0, 0.01, "unknown"), (2, 0.05, "unknown"), (12, 0.05, "fail")]
)
def test_not_worse_needs_evidence_that_it_is_not(losses: int, margin: float, verdict: str) -> None:
    measured = compared(rows(grounded(60)), rows(grounded(60 - losses)))
    gate = judge(measured, one(Require(metric=("grounded",), rule="not_worse", margin=margin)))
    assert gate.verdict == verdict, gate.reason
    assert verdict != "unknown" or "such cases would tell" in gate.reason


def test_worse_for_certain_but_within_the_margin_is_allowed() -> None:
    measured = compared(rows(grounded(60), toxic=0.010), rows(grounded(60), toxic=0.015))
    metric = measured.metric("toxicity.output")
    assert metric is not None
    assert metric.outcome == "worse"
    gate = judge(measured, one(Require(metric=("toxicity.output",), rule="not_worse", margin=0.02)))
    assert gate.verdict == "pass"


@pytest.mark.parametrize(("rule", "verdict"), [("at_least", "fail"), ("at_most", "pass")])
def test_limits_are_held_against_what_these_cases_showed(rule: str, verdict: str) -> None:
    measured = compared(rows(grounded(60)), rows(grounded(60)))
    policy = Policy.model_validate({"require": [{"metric": "total_ms", "rule": rule, "value": 1000.0}]})
    assert judge(measured, policy).verdict == verdict


def test_the_first_metric_that_enough_cases_have_is_judged() -> None:
    rule = Require(metric=("reference_similarity", "grounded"), rule="better")
    gate = judge(compared(rows(grounded(40)), rows(grounded(70))), one(rule))
    assert [ruled.metric for ruled in gate.rules] == ["grounded"]


def test_better_rules_pay_for_each_other() -> None:
    """p of .03 alone passes; beside a second `better` rule it does not, and the gate's metrics say the same."""
    base = [number % 10 < 5 for number in range(100)]
    won = [holds or number in {5, 6, 7, 8, 9, 15} for number, holds in enumerate(base)]
    measured = compared(rows(base), rows(won))
    alone = one(Require(metric=("grounded",), rule="better"))
    both = Policy(require=(*alone.require, Require(metric=("answered",), rule="better")))
    assert judge(measured, alone).verdict == "pass"
    gate = judge(measured, both)
    assert gate.verdict == "unknown"
    metric = gate.comparison.metric("grounded")
    assert metric is not None
    assert (metric.p, metric.adjusted_p) == pytest.approx((0.03125, 0.0625))
    assert metric.outcome == "unclear"


def test_a_rule_that_makes_no_sense_of_its_metric_is_wrong_use() -> None:
    measured = compared(rows(grounded(40)), rows(grounded(70)))
    with pytest.raises(PolicyError, match="readability is neither good nor bad: ask for at_least or at_most"):
        judge(measured, one(Require(metric=("readability",), rule="better")))


def test_intervals_of_another_alpha_are_not_judged() -> None:
    measured = compare(rows(grounded(40)), rows(grounded(70)), MEANINGS, alpha=0.1)
    with pytest.raises(NotComparable, match=r"alpha 0\.1, the policy has 0\.05"):
        judge(measured, load_policy())


def similar(value: float | None, number: int) -> float | None:
    return None if value is None else value + number % 7 / 100


def answered(values: Sequence[float | None], *, failed: Sequence[int] = ()) -> list[Row]:
    """Rows with a similarity; None: nothing to score."""
    return [
        Row(
            case_id=f"case{number:03}", session=f"session{number}", failed=number in failed,
            values={"reference_similarity": similar(value, number), "toxicity.output": 0.01},
        )
        for number, value in enumerate(values)
    ]  # fmt: skip


def nearer(base: list[Row], candidate: list[Row]) -> Gate:
    meanings = (Score("reference_similarity", better="higher"), Score("toxicity.output", better="lower"))
    return judge(compare(base, candidate, meanings), load_policy())


@pytest.mark.parametrize(
    ("base", "candidate"),
    [
        (answered([0.9] * 100, failed=range(100)), answered([0.3] * 100)),
        (answered([0.9] * 100, failed=range(10)), answered([0.9] * 100)),
        (answered([0.5] * 100, failed=range(94)), answered([0.6] * 100, failed=range(94))),
    ],
    ids=["the base was down", "the base was away for a moment", "both were down but for six cases"],
)
def test_an_outage_while_the_base_was_asked_is_no_evidence(base: list[Row], candidate: list[Row]) -> None:
    gate = nearer(base, candidate)
    assert gate.verdict == "unknown", gate.reason


def test_a_base_that_could_not_be_scored_earns_the_candidate_nothing() -> None:
    gate = nearer(answered([None if number < 10 else 0.9 for number in range(100)]), answered([0.9] * 100))
    assert gate.verdict == "unknown", gate.reason


def test_claims_made_up_where_the_base_claimed_nothing_are_not_better() -> None:
    def row(number: int, held: bool | None) -> Row:
        values = {"grounded": held, "toxicity.output": 0.01}
        return Row(case_id=f"case{number:03}", session=f"session{number}", values=values)

    base = [row(number, None) for number in range(100)]
    candidate = [row(number, number < 30) for number in range(100)]
    gate = judge(compared(base, candidate), load_policy())
    assert gate.verdict == "unknown", gate.reason


def test_a_candidate_that_loses_answers_is_seen_also_where_the_base_lost_some() -> None:
    gate = nearer(answered([0.5] * 100, failed=range(3)), answered([0.9] * 100, failed=range(50, 90)))
    assert gate.verdict == "fail", gate.reason


def test_what_is_better_of_its_own_passes_although_the_base_lost_a_few() -> None:
    gate = nearer(answered([0.5] * 100, failed=range(3)), answered([0.9] * 100))
    assert gate.verdict == "pass", gate.reason
