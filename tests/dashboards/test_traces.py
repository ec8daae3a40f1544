"""The list of requests: every row once, in order, filtered by what the URL says and by nothing else."""

import sys
from datetime import timedelta
from typing import Any

import pytest

from watchkeeper_dashboards import actions
from watchkeeper_dashboards.pages import traces
from watchkeeper_dashboards.period import period


def read_all(house: Any, filters: dict[str, str], sort: list[dict[str, str]], size: int = 100) -> list[dict[str, Any]]:
    """Scrolls to the end, as the grid does."""
    span = period("all", house.sources().now(), house.sources().now() - timedelta(days=30))
    rows: list[dict[str, Any]] = []
    cursors: dict[str, list[Any]] = {}
    while True:
        asked = {"startRow": len(rows), "endRow": len(rows) + size, "sortModel": sort}
        block = traces.read_block(house.lake, span, filters, asked, cursors)
        rows += block.rows
        cursors = block.cursors
        if block.last is not None:
            assert block.last == len(rows)
            return rows


def test_scrolling_shows_every_request_once_newest_first(house: Any) -> None:
    shown = [row["request_id"] for row in read_all(house, {}, [])]
    assert shown == [record.request_id for record in reversed(house.records)]


@pytest.mark.parametrize("descending", [True, False])
def test_sorting_by_time_taken(house: Any, descending: bool) -> None:
    sort = [{"colId": "total_ms", "sort": "desc" if descending else "asc"}]
    shown = [row["total_ms"] for row in read_all(house, {}, sort)]
    assert shown == sorted((record.total_ms for record in house.records), reverse=descending)


def test_an_unknown_sort_is_no_sort(house: Any) -> None:
    shown = read_all(house, {}, [{"colId": "1; DROP TABLE interactions", "sort": "asc"}])
    assert shown[0]["request_id"] == house.records[-1].request_id


def test_filters_work_together(house: Any) -> None:
    shown = {row["request_id"] for row in read_all(house, {"action": "flag", "language": "de", "release": "support@3"}, [])}
    expected = {
        record.request_id
        for record in house.records
        if record.action == "flag" and record.language == "de" and record.release == "support@3"
    }
    assert expected
    assert shown == expected


def test_the_status_is_how_the_request_ended_for_its_caller(house: Any) -> None:
    assert len(read_all(house, {"status": "error"}, [])) == sum(record.status == 502 for record in house.records)
    assert len(read_all(house, {"status": "blocked"}, [])) == sum(record.action == "block" for record in house.records)


def test_text_is_found_whatever_its_case_and_never_run(house: Any) -> None:
    assert [row["request_id"] for row in read_all(house, {"q": "ONERROR=alert"}, [])] == [house.hostile.request_id]
    assert read_all(house, {"q": "'; DROP TABLE interactions; --"}, []) == []


def test_a_row_has_its_newest_toxicity_score(house: Any) -> None:
    assert all(row["toxicity"] is not None for row in read_all(house, {"action": "flag"}, []))


def test_a_block_whose_cursor_is_not_known_is_reached_all_the_same(house: Any) -> None:
    span = period("all", house.sources().now(), house.sources().now() - timedelta(days=30))
    block = traces.read_block(house.lake, span, {}, {"startRow": 300, "endRow": 310}, {})
    expected = [record.request_id for record in reversed(house.records)][300:310]
    assert [row["request_id"] for row in block.rows] == expected


def test_a_greedy_question_gets_a_bounded_answer(house: Any) -> None:
    span = period("all", house.sources().now(), house.sources().now() - timedelta(days=30))
    assert len(traces.read_block(house.lake, span, {}, {"startRow": 0, "endRow": 10**9}, {}).rows) == 500


def test_the_url_names_filters_and_what_is_none_is_ignored() -> None:
    assert traces.filters_of("?range=1h&action=flag&session=a%26b&evil=1&q=") == {"action": "flag", "session": "a&b"}
    assert traces.filters_of(None) == {}


def test_the_grid_gets_rows_as_text(house: Any, reader_of: Any) -> None:
    answer = reader_of(house).fire(
        "traces-grid.getRowsResponse",
        traces_grid_getRowsRequest={"startRow": 0, "endRow": 100},
        traces_url_search="?range=24h",
    )
    response = answer["response"]["traces-grid"]["getRowsResponse"]
    assert response["rowData"][0]["prompt"] == house.hostile.prompt_text
    assert response["rowData"][0]["time"] == "10 Jan 16:57:10"
    assert response["rowCount"] is None
    assert answer["response"]["traces-cursors"]["data"]["cursors"].keys() == {"100"}


def test_cursors_of_another_order_are_not_followed(house: Any, reader_of: Any) -> None:
    reader = reader_of(house)
    first = reader.fire(
        "traces-grid.getRowsResponse",
        traces_grid_getRowsRequest={"startRow": 0, "endRow": 100},
        traces_url_search="?range=all",
    )["response"]
    second = reader.fire(
        "traces-grid.getRowsResponse",
        traces_grid_getRowsRequest={"startRow": 100, "endRow": 200, "sortModel": [{"colId": "total_ms", "sort": "desc"}]},
        traces_url_search="?range=all",
        traces_cursors_data=first["traces-cursors"]["data"],
    )["response"]
    slowest = sorted(house.records, key=lambda record: (-record.total_ms, record.request_id))
    shown = [row["request_id"] for row in second["traces-grid"]["getRowsResponse"]["rowData"]]
    assert shown == [record.request_id for record in slowest[100:200]]


def test_nothing_found_says_why(house: Any, make_house: Any, reader_of: Any, read: Any) -> None:
    asked = {"startRow": 0, "endRow": 100}
    answer = reader_of(house).fire(
        "traces-grid.getRowsResponse", traces_grid_getRowsRequest=asked, traces_url_search="?q=nobody+said+this"
    )["response"]
    assert "No request matches" in read(answer["traces-empty"]["children"])
    assert answer["traces-frame"]["style"] == {"display": "none"}


def test_an_empty_lake_is_an_empty_list(make_house: Any, reader_of: Any, read: Any) -> None:
    reader = reader_of(make_house([]))
    answer = reader.fire("traces-grid.getRowsResponse", traces_grid_getRowsRequest={"startRow": 0, "endRow": 100})[
        "response"
    ]
    assert "No requests in the last 6 hours" in read(answer["traces-empty"]["children"])
    choices = reader.fire("traces-language.data", traces_url_search="?range=all&language=xx")["response"]
    assert choices["traces-language"]["data"] == ["xx"]


def test_filters_without_a_control_are_chips_that_can_be_taken_away(house: Any, reader_of: Any, read: Any) -> None:
    answer = reader_of(house).fire("traces-language.data", traces_url_search="?range=24h&session=session-7")["response"]
    assert {"en", "de"} <= set(answer["traces-language"]["data"])
    assert answer["traces-release"]["data"] == ["support@3", "support@4"]
    chip = answer["traces-chips"]["children"][0]
    assert read(chip) == ["session: ", "session-7", "Take the filter on session away"]
    assert chip["props"]["children"][2]["props"]["href"] == "/traces?range=24h"


def test_the_requests_behind_a_point_are_listed_worst_first(house: Any, reader_of: Any, read: Any) -> None:
    search = "?since=2026-01-10T14:00:00Z&until=2026-01-10T15:00:00Z&score=relevance&below=0.4&release=support@3"
    reader = reader_of(house)
    answer = reader.fire(
        "traces-grid.getRowsResponse", traces_grid_getRowsRequest={"startRow": 0, "endRow": 100}, traces_url_search=search
    )["response"]
    rows = answer["traces-grid"]["getRowsResponse"]["rowData"]
    shown = [row["score"] for row in rows]
    assert len(shown) > 5
    assert shown == sorted(shown)
    assert max(shown) < "0.41"
    assert all(row["time"].startswith("10 Jan 14:") for row in rows)
    assert "in 10 Jan 14:00 to 15:00" in answer["traces-note"]["children"]
    mine = {record.request_id for record in house.records if record.release == "support@3"}
    assert {row["request_id"] for row in rows} <= mine


def test_a_score_that_should_be_low_is_listed_from_the_top(house: Any) -> None:
    shown = read_all(house, {"score": "toxicity.output", "at_least": "0.05"}, [])
    values = [row["score"] for row in shown]
    assert values == sorted(values, reverse=True)
    assert min(values) >= 0.05
    assert all(row["score"] == row["toxicity"] for row in shown)


def test_scored_requests_can_still_be_sorted_by_time(house: Any) -> None:
    shown = read_all(house, {"score": "grounded", "below": "no number"}, [{"colId": "received_at", "sort": "asc"}])
    assert [row["request_id"] for row in shown] == [record.request_id for record in house.records]


def test_time_and_score_are_chips_that_can_be_taken_away(house: Any, reader_of: Any, read: Any) -> None:
    search = "?range=24h&since=2026-01-10T14:00:00Z&until=2026-01-10T15:00:00Z&score=grounded&below=0.5"
    chips = reader_of(house).fire("traces-language.data", traces_url_search=search)["response"]["traces-chips"]["children"]
    assert [read(chip)[:2] for chip in chips] == [["time: ", "10 Jan 14:00 to 15:00"], ["score: ", "grounded below 0.5"]]
    assert [chip["props"]["children"][2]["props"]["href"] for chip in chips] == [
        "/traces?range=24h&score=grounded&below=0.5",
        "/traces?range=24h&since=2026-01-10T14:00:00Z&until=2026-01-10T15:00:00Z",
    ]


def test_ticked_requests_go_into_a_dataset_by_our_own_command(
    house: Any, reader_of: Any, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [record.request_id for record in house.records[:2]]
    echo = "import json, sys; print(json.dumps({'added': len(sys.stdin.read().split()), 'argv': sys.argv[1:]}))"
    asked = actions.Command.argv

    def argv(self: actions.Command, config: str, data: str) -> list[str]:
        return [sys.executable, "-c", echo, *asked(self, config, data)[3:]]

    monkeypatch.setattr(actions.Command, "argv", argv)
    answer = reader_of(house).fire(
        "traces-added.children",
        traces_add_n_clicks=1,
        traces_dataset_value=" hard cases ",
        traces_grid_selectedRows=[{"request_id": request_id} for request_id in ids],
    )["response"]
    assert read(answer["traces-added"]["children"]) == [
        "hard cases", ": 2 added", "watchkeeper dataset add 'hard cases' --create --ids -",
    ]  # fmt: skip
    assert answer["traces-grid"]["selectedRows"] == []


@pytest.mark.parametrize(("name", "rows"), [("", [{"request_id": "a" * 32}]), ("x", []), (None, None)])
def test_nothing_is_run_without_a_name_and_a_selection(
    house: Any, reader_of: Any, read: Any, monkeypatch: pytest.MonkeyPatch, name: Any, rows: Any
) -> None:
    monkeypatch.setattr(actions, "run", pytest.fail)
    answer = reader_of(house).fire(
        "traces-added.children", traces_add_n_clicks=1, traces_dataset_value=name, traces_grid_selectedRows=rows
    )["response"]
    assert read(answer["traces-added"]["children"]) == ["Tick the requests, and name the dataset that they go into."]


def test_a_stranger_cannot_act(house: Any, reader_of: Any) -> None:
    """The callback of an action is one request like any other: another origin or another name gets 403."""
    http = reader_of(house).http
    for headers in ({"Origin": "http://elsewhere.example"}, {"Host": "rebound.example"}):
        assert http.post("/_dash-update-component", json={}, headers=headers).status_code == 403
