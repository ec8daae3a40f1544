"""The charts: valid Plotly figures, painted in our tokens, honest about what is not there."""

import json
import math
import re
from typing import Any

import numpy as np
import pytest

from watchkeeper.record import STAGES
from watchkeeper_dashboards import figures, theme
from watchkeeper_dashboards.canvas import Figure, Series, Times

START = np.datetime64("2026-01-10T11:00:00", "s")


def times(n: int, width_s: int = 300) -> Times:
    return START + np.arange(n) * np.timedelta64(width_s, "s")


def series(*values: float) -> Series:
    return np.array(values, dtype=float)


def latency(n: int, slowest: bool = True) -> Figure:
    p50 = np.linspace(800, 1_200, n)
    marks = [("2026-01-10 11:02:00", 9_000.0, "a" * 32)] if slowest else []
    return figures.latency(times(n), 300, p50, p50 * 2, p50 * 3, marks)


def all_figures(n: int) -> dict[str, Figure]:
    counts = np.arange(n, dtype=float)
    return {
        "latency": latency(n),
        "stages": figures.stages(dict.fromkeys(STAGES, 2.0), dict.fromkeys(STAGES, 5.0)),
        "interventions": figures.interventions(times(n), 300, counts + 10, {"flag": counts, "block": counts / 2}),
        "categories": figures.categories({"toxicity": 3, "prompt_injection": 12}),
        "tokens": figures.tokens(times(n), 300, counts * 100, counts * 50, counts * 0.001),
    }


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [found for item in value.values() for found in strings(item)]
    if isinstance(value, list):
        return [found for item in value for found in strings(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("n", [1, 2, 3, 4, 72])
def test_every_chart_is_a_valid_figure_and_plain_json(n: int, validate: Any) -> None:
    for figure in all_figures(n).values():
        validate(figure)


def test_every_colour_is_a_token_of_the_palette() -> None:
    for figure in all_figures(12).values():
        tokens = [found for found in strings(figure) if re.match(r"^\$[a-z]", found)]
        assert tokens
        assert {token[1:].split("/")[0] for token in tokens} <= theme.LIGHT.keys()
        assert not [found for found in strings(figure) if re.match(r"^#[0-9a-fA-F]{3,8}$", found)]


def test_few_buckets_are_bars_from_p50_to_p95_and_many_are_a_band() -> None:
    few = latency(2, slowest=False)["data"]
    assert [trace["type"] for trace in few] == ["bar", "scatter", "scatter", "scatter"]
    assert few[0]["base"] == [800.0, 1200.0]
    assert few[0]["y"] == [800.0, 1200.0]
    many = latency(12, slowest=False)["data"]
    assert [trace["type"] for trace in many] == ["scatter"] * 3
    assert many[1]["fill"] == "tonexty"


def test_a_bucket_without_requests_is_a_gap_not_a_zero() -> None:
    p50 = series(800, math.nan, 900, 950, 1000)
    figure = figures.latency(times(5), 300, p50, p50 * 2, p50 * 3, [])
    assert figure["data"][0]["y"][1] is None
    assert figure["data"][0]["connectgaps"] is False


def test_nothing_at_all_still_draws(validate: Any) -> None:
    nothing = np.full(4, math.nan)
    validate(figures.latency(times(4), 300, nothing, nothing, nothing, []))
    validate(figures.stages({}, {}))
    validate(figures.categories({}))


def test_a_diamond_carries_its_trace() -> None:
    diamonds = latency(12)["data"][-1]
    assert diamonds["customdata"] == ["a" * 32]
    assert diamonds["y"] == [9000.0]


def test_the_slowest_trace_fits_on_the_axis() -> None:
    low, high = latency(12)["layout"]["yaxis"]["range"]
    assert low < math.log10(800)
    assert high > math.log10(9_000)


def test_two_bars_do_not_fill_the_chart() -> None:
    first, last = latency(2)["layout"]["xaxis"]["range"]
    assert np.datetime64(last) - np.datetime64(first) == np.timedelta64(8 * 300, "s")
    assert np.datetime64(first) < START


def test_stages_stand_in_the_order_of_the_loop_from_the_top() -> None:
    figure = figures.stages(dict.fromkeys(STAGES, 2.0), dict.fromkeys(STAGES, 5.0))
    labels = [figures.STAGE_LABELS[stage] for stage in STAGES]
    assert figure["layout"]["yaxis"]["categoryarray"] == labels[::-1]
    assert [note["y"] for note in figure["layout"]["annotations"]] == labels


def test_a_stage_without_data_keeps_its_place_and_has_no_mark() -> None:
    figure = figures.stages({"embed": 9.0, "generate": math.nan}, {"embed": 12.0, "generate": math.nan})
    assert figure["data"][1]["y"] == ["Embed"]
    assert len(figure["layout"]["yaxis"]["categoryarray"]) == len(STAGES)


def test_interventions_are_shares_of_all_requests_with_a_pattern_each() -> None:
    actions = {"pass": series(8, 0), "flag": series(1, 0), "block": series(1, 0)}
    figure = figures.interventions(times(2), 300, series(10, 0), actions)
    shares = {trace["name"]: trace["y"] for trace in figure["data"]}
    assert shares == {"flag": [0.1, 0.0], "redact": [0.0, 0.0], "block": [0.1, 0.0], "unknown": [0.0, 0.0]}
    patterns = {trace["name"]: trace["marker"].get("pattern", {}) for trace in figure["data"]}
    assert {pattern.get("fillmode") for name, pattern in patterns.items() if name != "flag"} == {"overlay"}


def test_categories_are_ranked_and_cut() -> None:
    figure = figures.categories({f"c{n}": n for n in range(20)} | {"x" * 60: 99}, most=5)
    assert figure["data"][0]["x"] == [99, 19, 18, 17, 16]
    assert len(figure["data"][0]["y"][0]) == 26


def test_cost_gets_its_own_axis_only_where_something_cost_something() -> None:
    counts = series(1, 2, 3, 4)
    assert "yaxis2" not in figures.tokens(times(4), 300, counts, counts, counts * 0)["layout"]
    priced = figures.tokens(times(4), 300, counts, counts, counts)
    assert priced["data"][-1]["yaxis"] == "y2"
    assert priced["layout"]["yaxis"]["domain"][0] > priced["layout"]["yaxis2"]["domain"][1]


@pytest.mark.parametrize(("lowest", "highest"), [(0.05, 3_000), (700, 900), (1, 2), (0.01, 1e7)])
def test_a_log_axis_has_a_few_readable_ticks(lowest: float, highest: float) -> None:
    p50 = series(lowest, lowest, lowest, lowest)
    axis = figures.latency(times(4), 300, p50, p50, series(highest, highest, highest, highest), [])["layout"]["yaxis"]
    assert 1 <= len(axis["tickvals"]) <= 6
    assert len(axis["tickvals"]) == len(axis["ticktext"])


@pytest.mark.parametrize("buckets", [1, 24, 25, 72, 200])
def test_bars_stay_few(buckets: int) -> None:
    assert math.ceil(buckets / figures.buckets_a_bar(buckets)) <= figures.MOST_BARS


def test_a_day_of_points_stays_small() -> None:
    assert len(json.dumps(latency(72))) < 12_000
