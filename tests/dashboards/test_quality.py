"""Scores and verdicts over time: the right numbers, each with its n, and links to exactly the requests behind them."""

import json
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from watchkeeper.lake import reading
from watchkeeper_dashboards.pages import quality, quality_verdicts
from watchkeeper_dashboards.period import named, period


def look(reader: Any, search: str = "?range=24h") -> dict[str, Any]:
    response: dict[str, Any] = reader.fire("quality-verdicts.children", quality_url_search=search)["response"]
    return response


def figure_of(response: dict[str, Any], number: int) -> Any:
    return next(
        value["data"]
        for key, value in response.items()
        if key.startswith("{") and json.loads(key)["figure"] == f"score-{number}"
    )


def test_every_score_has_its_card_in_order(house: Any, reader_of: Any, read: Any, validate: Any) -> None:
    response = look(reader_of(house))
    titles = [read(response[f"quality-head-{number}"]["children"])[0] for number in range(9)]
    assert titles == ["Relevance", "Support", "Grounded", "Refusals", "Repetition", "Language match", "Readability",
                      "Cut off", "Toxicity of answers"]  # fmt: skip
    assert response["quality-slot-8"]["className"] == "wk-card"
    assert response["quality-slot-9"]["className"] == "wk-card wk-waiting"
    for number in range(9):
        validate(figure_of(response, number))


def test_a_point_is_the_mean_of_the_requests_that_it_opens(house: Any, reader_of: Any) -> None:
    line = figure_of(look(reader_of(house)), 2)["data"][0]
    for value, query, words in zip(line["y"], line["customdata"], line["hovertext"], strict=True):
        span = named(query)
        asked = parse_qs(query.lstrip("?"))
        assert span is not None
        assert asked["score"] == ["grounded"]
        page = reading.traces(house.lake, span.start, span.end, limit=1000, scored=reading.Scored("grounded"))
        scores = page.rows.column("score").to_pylist()
        assert f"n = {len(scores)}" in words
        assert value == pytest.approx(sum(scores) / len(scores), abs=0.011)


def test_a_release_slices_every_score(house: Any, reader_of: Any, read: Any) -> None:
    mine = sum(record.release == "support@3" for record in house.records)
    response = look(reader_of(house), "?range=24h&release=support@3")
    for number in range(9):
        head = read(response[f"quality-head-{number}"]["children"])
        assert f"n = {mine:,}" in head, head
        assert all("release=support%403" in query for query in figure_of(response, number)["data"][0]["customdata"])
    assert response["quality-release"]["data"] == ["support@3", "support@4"]


def test_each_job_is_a_strip_of_its_windows_with_n_and_reason(house: Any, reader_of: Any, read: Any, links: Any) -> None:
    strips = look(reader_of(house))["quality-verdicts"]["children"]
    words = read(strips)
    assert [word for word in words if word in ("drift", "latency", "quality", "safety", "toxicity")] == [
        *("drift", "latency", "quality", "safety", "toxicity")
    ]
    assert any(word.startswith("fail, 10 Jan 14:00 to 15:00, n = 62: the share of grounded answers fell") for word in words)
    assert any(word.startswith("unknown, 10 Jan 05:00 to 06:00, n = 4") for word in words)
    chosen = [parse_qs(urlsplit(address).query)["evaluation"][0] for address in links(strips)]
    assert len(chosen) == len(set(chosen)) == 12 + 12 + 4


def test_a_chosen_verdict_shows_its_reason_numbers_and_ways_on(house: Any, reader_of: Any, read: Any, links: Any) -> None:
    panel = look(reader_of(house), "?range=24h&evaluation=quality-hour-2")["quality-panel"]["children"]
    words = read(panel)
    assert "quality, 10 Jan 14:00 to 15:00" in words
    assert any("fell to 0.41" in word for word in words)
    assert words[words.index("grounded") + 1 :][:4] == ["0.41", "0.3", "0.5", "62"]
    addresses = links(panel)
    assert "/traces?since=2026-01-10T14%3A00%3A00Z&until=2026-01-10T15%3A00%3A00Z" in addresses
    assert f"http://127.0.0.1:5000/#/experiments/2/runs/{'f00d' * 8}" in addresses
    assert "/quality?range=24h&evaluation=quality-hour-3" in addresses
    assert "/quality?range=24h" in addresses


def test_a_verdict_of_another_time_can_be_shown_too(house: Any, reader_of: Any, read: Any) -> None:
    reader = reader_of(house)
    shown = look(reader, "?range=1h&evaluation=drift-hour-9")["quality-panel"]["children"]
    assert "drift, 10 Jan 07:00 to 08:00" in read(shown)
    missing = look(reader, "?range=1h&evaluation=nothing")["quality-panel"]["children"]
    assert read(missing) == ["There is no evaluation 'nothing' in the lake."]


def test_nothing_scored_and_nothing_judged_say_what_to_type(make_house: Any, reader_of: Any, read: Any) -> None:
    response = look(reader_of(make_house([])))
    assert "watchkeeper evaluate all --last 1h" in read(response["quality-verdicts"]["children"])
    assert "watchkeeper evaluate quality --last 1h" in read(response["quality-empty"]["children"])
    assert response["quality-slot-0"]["className"] == "wk-card wk-waiting"


def test_windows_over_each_other_get_lanes_and_neighbours_share_one() -> None:
    assert quality_verdicts.lanes_of([(0.0, 0.5), (0.5, 1.0), (0.497, 0.6)]) == [0, 0, 1]
    assert max(quality_verdicts.lanes_of([(0.0, 1.0)] * 9)) == 2


def test_very_many_windows_are_drawn_as_the_worst_of_their_neighbours() -> None:
    rows: list[dict[str, Any]] = [{"verdict": "pass", "evaluation_id": str(number)} for number in range(600)]
    rows[77]["verdict"] = "fail"
    groups = quality_verdicts.merged(rows)
    assert len(groups) == quality_verdicts.MOST
    assert [quality_verdicts.worst(group)["evaluation_id"] for group in groups][7] == "77"
    assert sum(len(group) for group in groups) == 600


def test_courses_begin_where_the_scores_begin(house: Any) -> None:
    now = house.sources().now()
    first = now - timedelta(days=3)
    times, width_s, courses = quality.read_courses(house.sources(), period("all", now, first), None, first)
    assert len(times) <= 24 + 1
    assert max(course.n[0] for course in courses) > 0
    assert courses[0].overall == pytest.approx(0.52, abs=0.05)
    assert width_s % 300 == 0


def test_a_young_system_is_shown_by_five_minutes_whatever_time_is_chosen(
    make_house: Any, reader_of: Any, traffic: Any
) -> None:
    reader = reader_of(make_house(traffic(200, 14)))
    for chosen in ("1h", "6h", "24h"):
        line = figure_of(look(reader, f"?range={chosen}"), 0)["data"][0]
        assert sum(value is not None for value in line["y"]) >= 3, chosen
