"""Objectives: certain misses fail, others warn, what could not be measured is unknown, and the reason has the figures."""

import pytest

from watchkeeper_evaluations.interval import Estimate
from watchkeeper_evaluations.objective import Judged, Objective, Side, overall

AT_MOST = Objective("refusals", "refusal", "at most", 0.2, "share")
AT_LEAST = Objective("relevance", "relevance", "at least", 0.3, "score")


def estimate(lower: float, value: float, upper: float) -> Estimate:
    return Estimate(value, lower, upper, 90, 40)


@pytest.mark.parametrize(
    ("side", "lower", "value", "upper", "verdict"),
    [
        ("at most", 0.0, 0.1, 0.19, "pass"),
        ("at most", 0.0, 0.2, 0.4, "pass"),
        ("at most", 0.19, 0.21, 0.4, "warn"),
        ("at most", 0.2, 0.3, 0.4, "warn"),
        ("at most", 0.21, 0.3, 0.4, "fail"),
        ("at least", 0.21, 0.3, 0.4, "pass"),
        ("at least", 0.1, 0.2, 0.3, "pass"),
        ("at least", 0.1, 0.19, 0.3, "warn"),
        ("at least", 0.1, 0.15, 0.2, "warn"),
        ("at least", 0.1, 0.15, 0.19, "fail"),
    ],
)
def test_the_whole_interval_on_the_wrong_side_fails(
    side: Side, lower: float, value: float, upper: float, verdict: str
) -> None:
    assert Objective("x", "x", side, 0.2, "share").judge(estimate(lower, value, upper)) == verdict


def test_the_worst_decides_and_is_named_with_its_figures() -> None:
    good = Judged(AT_LEAST, estimate(0.5, 0.6, 0.7))
    warned = Judged(AT_MOST, estimate(0.1, 0.25, 0.4))
    failed = Judged(AT_MOST, estimate(0.22, 0.31, 0.41))
    unknown = Judged(AT_LEAST, None, "50 of 90 requests could not be scored")
    assert overall([good], "nothing")[0] == "pass"
    figures = "refusals 25.0% (95% interval 10.0% to 40.0%, 90 requests; at most 20.0%)"
    assert overall([good, warned], "nothing") == ("warn", f"1 of 2 objectives missed, though it may be chance: {figures}")
    assert overall([good, warned, unknown], "nothing") == ("unknown", "relevance: 50 of 90 requests could not be scored")
    verdict, reason = overall([good, warned, unknown, failed], "nothing")
    assert verdict == "fail"
    assert "certainly: refusals 31.0%" in reason
    assert overall([], "write one") == ("unknown", "write one")


def test_a_long_reason_names_some_and_counts_the_others() -> None:
    _, reason = overall([Judged(AT_MOST, estimate(0.22, 0.31, 0.41))] * 6, "")
    assert reason.count("refusals") == 4
    assert reason.endswith("and 2 more")


def test_units() -> None:
    slow = Objective("95% of requests within", "total_p95_ms", "at most", 30_000, "ms")
    assert slow.described(Estimate(31_000.4, 30_500, float("inf"), 40, 40)) == (
        "95% of requests within 31,000 ms (95% interval 30,500 ms to no bound, 40 requests; at most 30,000 ms)"
    )
