"""The overview over a real lake: what a reader sees with much, little and no data, and when the lake is away."""

import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from watchkeeper.lake.lake import Lake, LakeUnavailable
from watchkeeper.record import Verdict
from watchkeeper_dashboards.pages import overview

CHARTS = ("latency", "stages", "interventions", "categories", "tokens")


def look(reader: Any, search: str = "") -> dict[str, Any]:
    answer: dict[str, Any] = reader.fire("overview-body.style", overview_url_search=search)
    return answer


def stored(answer: dict[str, Any], name: str) -> Any:
    return next(
        value["data"]
        for key, value in answer["response"].items()
        if key.startswith("{") and json.loads(key)["figure"] == name
    )


def test_a_day_of_traffic_fills_every_chart_and_table(house: Any, reader_of: Any, read: Any) -> None:
    answer = look(reader_of(house), "?range=all")
    response = answer["response"]
    assert response["overview-empty"]["children"] is None
    assert response["overview-body"]["style"] == {}
    assert all(stored(answer, name)["data"] for name in CHARTS)
    assert f"{len(house.records):,}" in read(response["overview-tiles"]["children"])
    assert {"unknown", "warn", "pass", "fail"} <= set(read(response["overview-jobs"]["children"]))
    assert answer["sideUpdate"]["notice"] == {"children": None}
    assert answer["sideUpdate"]["updated"]["children"].startswith("updated 16:57:30 UTC")


def test_the_charts_agree_with_the_records(house: Any, reader_of: Any) -> None:
    answer = look(reader_of(house), "?range=all")
    shares = stored(answer, "interventions")["data"]
    counted = {trace["name"]: sum(part for part, _ in trace["customdata"]) for trace in shares}
    for action in ("flag", "redact", "block", "unknown"):
        assert counted[action] == sum(record.action == action for record in house.records), action
    spent = {trace["name"]: sum(trace["y"]) for trace in stored(answer, "tokens")["data"]}
    assert spent["input"] == sum(record.input_tokens for record in house.records)
    assert spent["cost"] == pytest.approx(sum(record.cost_usd for record in house.records), rel=1e-3)


def test_a_shorter_range_shows_less(house: Any, reader_of: Any, read: Any) -> None:
    reader = reader_of(house)
    counts = [
        int(read(look(reader, f"?range={name}")["response"]["overview-tiles"]["children"])[1].replace(",", ""))
        for name in ("1h", "6h", "24h")
    ]
    assert counts[0] < counts[1] < counts[2]


def test_the_diamonds_are_the_slowest_requests(house: Any, reader_of: Any) -> None:
    diamonds = stored(look(reader_of(house), "?range=all"), "latency")["data"][-1]
    slowest = max(house.records, key=lambda record: record.total_ms)
    assert slowest.request_id in diamonds["customdata"]


def test_what_needs_review_is_newest_first_and_never_a_plain_pass(house: Any, reader_of: Any) -> None:
    review = look(reader_of(house), "?range=all")["response"]["overview-review"]["children"]
    rows = review["props"]["children"]["props"]["children"][2]["props"]["children"]
    shown = [row["props"]["children"][0]["props"]["children"]["props"]["href"] for row in rows]
    expected = [record for record in reversed(house.records) if record.action != "pass" or record.status == 502]
    assert shown == [f"/traces/{record.request_id}?range=all" for record in expected[: overview.REVIEWED]]


def test_what_others_served_is_no_review_for_want_of_guards(make_house: Any, reader_of: Any, traffic: Any) -> None:
    ours, *theirs = (record for record in traffic(40, 8) if record.action == "flag" or record.status == 200)
    others = [msgspec.structs.replace(one, source="otlp", verdicts=(), finish_reason="stop", error=None) for one in theirs]
    flagged = msgspec.structs.replace(ours, verdicts=(Verdict("pii", "prompt", "EMAIL", "flag", None, "", "1"),))
    review = look(reader_of(make_house([flagged, *others])), "?range=all")["response"]["overview-review"]["children"]
    assert str(review).count("/traces/") == str(review).count(f"/traces/{flagged.request_id}") > 0


def test_a_young_system_is_drawn_as_bars(make_house: Any, reader_of: Any, traffic: Any) -> None:
    answer = look(reader_of(make_house(traffic(40, 8))))
    assert stored(answer, "latency")["data"][0]["type"] == "bar"
    assert len(stored(answer, "interventions")["data"][0]["y"]) <= 3


def test_an_empty_lake_says_how_to_send_the_first_request(make_house: Any, reader_of: Any, read: Any) -> None:
    response = look(reader_of(make_house([])))["response"]
    words = " ".join(read(response["overview-empty"]["children"]))
    assert "Nothing has been served yet" in words
    assert "curl http://127.0.0.1:8080/v1/chat/completions" in words
    assert response["overview-body"]["style"] == {"display": "none"}


def test_a_quiet_hour_says_when_the_last_request_was(make_house: Any, reader_of: Any, read: Any, traffic: Any) -> None:
    import msgspec

    day = int(timedelta(days=1).total_seconds() * 1e6)
    old = [msgspec.structs.replace(record, received_at=record.received_at - day) for record in traffic(30, 60)]
    words = " ".join(read(look(reader_of(make_house(old)), "?range=1h")["response"]["overview-empty"]["children"]))
    assert "No requests in the last hour" in words
    assert "9 Jan 2026 16:55:00 UTC" in words
    assert "Show all time" in words


def test_a_lake_that_is_away_is_a_sentence_and_no_stack_trace(
    house: Any, reader_of: Any, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise LakeUnavailable("/data/lake/rollups: cannot be opened: no such bucket")

    monkeypatch.setattr(Lake, "query", away)
    answer = look(reader_of(house))
    notice = " ".join(read(answer["sideUpdate"]["notice"]["children"]))
    assert "cannot be opened: no such bucket" in notice
    assert "Trying again" in notice
    assert "Traceback" not in json.dumps(answer)
    assert not answer.get("response")
