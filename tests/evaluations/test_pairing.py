"""What a case counts as when a side failed, lacks a value or was asked several times: nothing can be won by it."""

import math

import pytest

from watchkeeper_evaluations.pairing import ANSWERED, COSTS, Column, NotComparable, Row, column, measures, pairs
from watchkeeper_evaluations.scorer import Score

MEANINGS = (
    Score("grounded", kind="assertion", better="higher"),
    Score("refusal", kind="assertion", better="lower"),
    Score("support", better="higher"),
    Score("toxicity.output", better="lower"),
    Score("readability", high=100.0),
    Score("language", kind="label"),
)
BAD = {"grounded": 0.0, "refusal": 1.0, "support": 0.0, "toxicity.output": 1.0}
GOOD: dict[str, float | bool | None] = {
    "grounded": True,
    "refusal": False,
    "support": 0.8,
    "toxicity.output": 0.1,
    "readability": 60.0,
}


def good(case_id: str = "a", **values: float | bool | None) -> Row:
    return Row(case_id=case_id, values=GOOD | values, costs={"total_ms": 800.0, "cost_usd": 0.001})


def failed(case_id: str = "a") -> Row:
    """It has values all the same: of what came before it failed."""
    return Row(case_id=case_id, failed=True, values=GOOD, costs={"total_ms": 5.0})


def columns(base: list[Row], candidate: list[Row]) -> dict[str, Column]:
    cases = pairs(base, candidate)
    found = {measure.name: column(cases, measure) for measure in measures(MEANINGS)}
    return {name: values for name, values in found.items() if values is not None}


def sides(found: Column) -> list[tuple[float, float]]:
    return list(zip(found.base.tolist(), found.candidate.tolist(), strict=True))


def test_both_sides_have_it() -> None:
    found = columns([good()], [good(grounded=False, support=0.3)])
    assert sides(found["grounded"]) == [(1, 0)]
    assert sides(found["support"]) == [(0.8, 0.3)]
    assert sides(found[ANSWERED]) == [(1, 1)]
    assert sides(found["total_ms"]) == [(800, 800)]
    assert "language" not in found
    assert "ttft_ms" not in found


@pytest.mark.parametrize("other", [[failed()], []])
def test_a_row_that_failed_or_is_not_there_is_bad_at_everything_and_has_no_latency(other: list[Row]) -> None:
    found = columns([good(), good("b")], [*other, good("b")])
    assert {name: sides(found[name])[0][1] for name in BAD} == BAD
    assert sides(found[ANSWERED])[0] == (1, 0)
    assert [len(found[name].base) for name in ("readability", "total_ms", "cost_usd")] == [1, 1, 1]
    assert found["support"].missing_candidate == 0


def test_a_value_that_only_one_side_lacks_is_bad_whichever_side() -> None:
    base = [good("a", support=None), good("b"), good("c")]
    candidate = [good("a"), good("b", support=math.nan, readability=None), good("c")]
    found = columns(base, candidate)
    assert sides(found["support"]) == [(0, 0.8), (0.8, 0), (0.8, 0.8)]
    assert (found["support"].missing_base, found["support"].missing_candidate) == (1, 1)
    assert len(found["readability"].base) == 2


def test_a_value_that_both_sides_lack_is_left_out() -> None:
    found = columns([good("a", support=None), good("b")], [good("a", support=None), good("b")])
    assert len(found["support"].base) == 1


def test_a_failed_row_does_not_count_where_the_other_side_has_nothing_to_score() -> None:
    found = columns([failed("a"), good("b")], [good("a", support=None), good("b")])
    assert sides(found["support"]) == [(0.8, 0.8)]


def test_failed_on_both_sides_is_a_tie_at_the_bad_end() -> None:
    found = columns([failed("a"), good("b")], [failed("a"), good("b")])
    assert {name: sides(found[name])[0] for name in BAD} == {name: (bad, bad) for name, bad in BAD.items()}
    assert len(found["total_ms"].base) == 1


def test_a_metric_that_nobody_has_is_not_there_though_rows_failed() -> None:
    assert "support" not in columns([failed("a"), good("b", support=None)], [failed("a"), good("b", support=None)])


def test_repeats_are_averaged_within_their_case() -> None:
    base = [good(), good(grounded=False), failed()]
    candidate = [good(), good(support=None)]
    found = columns(base, candidate)
    assert sides(found["grounded"])[0] == pytest.approx((1 / 3, 1))
    assert sides(found["support"])[0] == pytest.approx((1.6 / 3, 0.4))
    assert sides(found["total_ms"]) == [(800, 800)]
    assert found["grounded"].repeats == 6


def test_cases_of_a_session_belong_together_and_one_without_stands_alone() -> None:
    base = [Row(case_id=name, session=session) for name, session in (("a", "s"), ("b", None), ("c", "s"), ("d", "b"))]
    found = columns(base, [Row(case_id=row.case_id, session=row.session) for row in base])
    numbers = found[ANSWERED].sessions.tolist()
    assert numbers[0] == numbers[2]
    assert len(set(numbers)) == 3


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(NotComparable, match="no case in common"):
        pairs([good("a")], [good("b")])
    with pytest.raises(NotComparable, match="case a is of session 'one' and of session 'two'"):
        pairs([Row(case_id="a", session="one")], [Row(case_id="a", session="two")])
    with pytest.raises(NotComparable, match="grounded of case a is neither true nor false"):
        columns([good(grounded=0.5)], [good()])


def test_every_cost_is_read() -> None:
    row = Row(case_id="a", costs=dict.fromkeys(COSTS, 1.0))
    assert set(COSTS) <= columns([row], [row]).keys()
