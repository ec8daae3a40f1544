"""One score over time: a valid figure, the number behind every point, and the way to the requests behind it."""

from typing import Any

import numpy as np
import pytest

from watchkeeper_dashboards.score_chart import ENOUGH, score_chart, shown
from watchkeeper_dashboards.scores import ScoreWords, in_order, score_of_one, words_of
from watchkeeper_evaluations.scorers import MEANINGS

TIMES = np.arange("2026-01-10T12:00", "2026-01-10T16:00", 3600, dtype="datetime64[s]")
QUERIES = [f"?since={hour}" for hour in range(4)]


@pytest.mark.parametrize("name", ["relevance", "grounded", "readability", "nobody.knows"])
@pytest.mark.parametrize("values", [(0.2, 0.4, np.nan, 0.9), (np.nan, np.nan, np.nan, 0.5), (0.0, 0.0, 0.0, 0.0)])
def test_it_is_a_valid_figure(name: str, values: tuple[float, ...], validate: Any) -> None:
    mean = np.array(values)
    n = np.where(np.isfinite(mean), 40.0, 0.0)
    figure = score_chart(words_of(name), TIMES, 3600, mean, n, QUERIES)
    validate(figure)
    low, high = figure["layout"]["yaxis"]["range"]
    assert all(low <= value <= high for value in mean[np.isfinite(mean)])


def test_few_scores_make_a_ring_and_say_so() -> None:
    n = np.array([ENOUGH, ENOUGH - 1, 0, 200])
    line, counts = score_chart(words_of("grounded"), TIMES, 3600, np.array([0.5, 0.25, np.nan, 0.75]), n, QUERIES)["data"]
    assert line["marker"]["color"] == ["$blue", "$card", "$card", "$blue"]
    assert line["hovertext"][0] == "50.0%, n = 20: open these requests"
    assert "too few" in line["hovertext"][1]
    assert line["hovertext"][2] == ""
    assert line["customdata"] == QUERIES
    assert counts["y"] == [20, 19, 0, 200]


@pytest.mark.parametrize(
    ("name", "value", "mean", "one"),
    [("grounded", 1.0, "100%", "yes"), ("grounded", 0.0, "0%", "no"), ("relevance", 0.456, "0.46", "0.46"),
     ("grounded", 0.5, "50.0%", "0.50"), ("relevance", float("nan"), "–", "–")],
)  # fmt: skip
def test_values_are_written_as_what_they_are(name: str, value: float, mean: str, one: str) -> None:
    assert shown(words_of(name), value) == mean
    assert score_of_one(words_of(name), value) == one


def test_a_score_that_nobody_described_is_shown_under_its_own_name() -> None:
    assert words_of("tool_use.ok") == ScoreWords("tool_use.ok", "Tool use ok", "", None)
    assert in_order(["zeta", "grounded", "alpha", "relevance"]) == ["relevance", "grounded", "alpha", "zeta"]


def test_our_words_say_the_same_as_the_scorers() -> None:
    """The dashboard loads no scorer, so it says again which way is better and what is a share."""
    for name, meaning in MEANINGS.items():
        words = words_of(name)
        assert words.meaning, name
        assert (words.better, words.share) == (meaning.better, meaning.kind == "assertion"), name
        assert (meaning.low, meaning.high) == (0.0, 1.0), name
