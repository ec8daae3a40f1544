"""Numbers of experiments as people read them."""

import pytest

from watchkeeper_dashboards.metrics import metric_of


@pytest.mark.parametrize(
    ("name", "kind", "value", "shown", "difference"),
    [
        ("grounded", "assertion", 0.731, "73.1%", "+73.1 pt"),
        ("relevance", "number", -0.0312, "-0.03", "−0.031"),
        ("nobody.knows", "assertion", 0.5, "50.0%", "+50.0 pt"),
        ("total_ms", "number", 1210.0, "1.21 s", "+1.21 s"),
        ("overhead_ms", "number", 3.0, "3 ms", "+3 ms"),
        ("output_tokens", "number", -13.0, "-13", "−13"),
        ("cost_usd", "number", 0.0004, "$0.0004", "+$0.0004"),
        ("grounded", "assertion", 0.0, "0%", "0.0 pt"),
        ("grounded", "assertion", None, "–", "–"),
        ("grounded", "assertion", float("nan"), "–", "–"),
    ],
)
def test_each_in_its_unit(name: str, kind: str, value: float | None, shown: str, difference: str) -> None:
    metric = metric_of(name, kind)
    assert metric.shown(value) == shown
    assert metric.difference(value) == difference


def test_of_one_answer_a_share_is_yes_or_no() -> None:
    assert [metric_of("grounded").of_one(value) for value in (1.0, 0.0, None)] == ["yes", "no", "–"]
    assert metric_of("relevance").of_one(0.5) == "0.50"
