"""Differences of two releases: each on a scale that fits, with its interval, and nothing drawn where nothing is known."""

from typing import Any

import pytest

from watchkeeper_dashboards import deltas


def rows_of(component: Any) -> list[Any]:
    return list(component.children.children[2].children)


def metric(name: str, **more: Any) -> dict[str, Any]:
    whole = {
        "name": name, "kind": "number", "better": "higher", "primary": False, "n": 40, "clusters": 20, "base": 0.5,
        "candidate": 0.6, "delta": 0.1, "low": 0.05, "high": 0.15, "p": 0.01, "adjusted_p": None, "wins": 20, "ties": 10,
        "losses": 10, "test": "t", "outcome": "better",
    }  # fmt: skip
    return whole | more


def whisker(row: Any) -> list[dict[str, str]]:
    """The styles of what is drawn on the line of a row."""
    track = row.children[4].children
    return [dict(mark.style) for mark in track.children if getattr(mark, "style", None)]


def test_scores_and_measures_have_a_table_and_a_scale_each() -> None:
    result = {"metrics": [metric("relevance"), metric("total_ms", base=1000.0, delta=-250.0, low=-500.0, high=0.0)]}
    scores, measures = deltas.tables(result, "a@1", "a@2")
    (row,) = rows_of(scores)
    assert whisker(row) == [{"left": "62.50%", "width": "25.00%"}, {"left": "75.00%"}]
    (row,) = rows_of(measures)
    assert whisker(row) == [{"left": "0.00%", "width": "50.00%"}, {"left": "25.00%"}]


@pytest.mark.parametrize(
    ("more", "drawn"),
    [
        ({"low": None, "high": None}, 1),
        ({"low": None, "high": None, "delta": None}, 0),
        ({"low": float("-inf"), "high": float("inf")}, 1),
    ],
)
def test_what_is_not_known_is_not_drawn(more: dict[str, Any], drawn: int) -> None:
    (table,) = deltas.tables({"metrics": [metric("relevance", **more)]}, "a@1", "a@2")
    (row,) = rows_of(table)
    assert len(whisker(row)) == drawn


def test_a_measure_that_was_zero_has_no_share_to_draw() -> None:
    (table,) = deltas.tables({"metrics": [metric("cost_usd", base=0.0, delta=0.1)]}, "a@1", "a@2")
    (row,) = rows_of(table)
    assert whisker(row) == []


def test_no_metrics_are_no_tables() -> None:
    assert deltas.tables({}, "a@1", "a@2") == []
    assert deltas.tables({"metrics": None}, "a@1", "a@2") == []


@pytest.mark.parametrize(("values", "end"), [([], 0.02), ([0.03, -0.11], 0.2), ([0.5], 0.5), ([7.0], 2.0)])
def test_a_scale_ends_where_all_values_fit(values: list[float], end: float) -> None:
    assert deltas.scale_end(values) == end


@pytest.mark.parametrize(("p", "shown"), [(None, "–"), (0.0004, "<0.001"), (0.0321, "0.032"), (1.0, "1.000")])
def test_probabilities(p: float | None, shown: str) -> None:
    assert deltas.probability(p) == shown
