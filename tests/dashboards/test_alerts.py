"""Alerts: what is open first, the way to what it rests on, and somebody who looks after it."""

from typing import Any

import pytest

from watchkeeper.lake.alerts import open_alerts


def look(reader: Any, search: str = "?range=24h") -> Any:
    return reader.fire("alerts-body.children", alerts_url_search=search)["response"]["alerts-body"]["children"]


@pytest.fixture
def own(make_house: Any, traffic: Any) -> Any:
    """A small house that may be written to."""
    return make_house(traffic(5, 5))


def test_open_alerts_come_first_with_their_reason_and_ways_on(house: Any, reader_of: Any, read: Any, links: Any) -> None:
    drift, quality, log = look(reader_of(house))
    assert read(drift)[:3] == ["drift", "fail", "since 10 Jan 15:17:30 UTC, 2 hours"]
    words = read(quality)
    assert any("fell to 0.41 <img src=x" in word for word in words)
    assert "grounded.mean 0.41 · grounded.n 62" in words
    assert "ada looks after it since 10 Jan 14:17:30 UTC: the new catalogue" in words
    assert links(quality) == [
        "/alerts?range=24h&acknowledge=alert-2",
        "/quality?evaluation=quality-hour-3",
        "/traces?since=2026-01-10T13%3A00%3A00Z&until=2026-01-10T14%3A00%3A00Z",
        f"http://127.0.0.1:5000/#/experiments/2/runs/{'f00d' * 8}",
    ]
    assert [word for word in read(log) if word in ("fired", "resolved", "acknowledged")] == [
        *("fired", "acknowledged", "fired", "resolved", "fired")
    ]


def test_the_log_is_of_the_chosen_time(house: Any, reader_of: Any, read: Any) -> None:
    words = read(look(reader_of(house), "?range=1h")[-1])
    assert "Nothing happened to alerts in the last hour." in words


def test_the_navigation_counts_what_is_open_and_the_overview_says_it(house: Any, reader_of: Any, read: Any) -> None:
    reader = reader_of(house)
    count = reader.fire("pending/alerts.children", url_pathname="/")["response"]["pending/alerts"]["children"]
    assert read(count) == ["2", " open"]
    notice = reader.fire("overview-body.style", overview_url_search="?range=all")["response"]["overview-alerts"]
    assert read(notice["children"]) == ["2 alerts are open: drift, quality. ", "See why"]


def test_nothing_open_says_what_makes_alerts(make_house: Any, reader_of: Any, read: Any) -> None:
    reader = reader_of(make_house([]))
    shown, _ = look(reader)
    assert "No alert is open" in read(shown)
    assert "watchkeeper schedule" in read(shown)
    assert reader.fire("pending/alerts.children", url_pathname="/")["response"]["pending/alerts"]["children"] == []


def test_an_alert_is_acknowledged_by_name(own: Any, reader_of: Any, read: Any) -> None:
    reader = reader_of(own)
    asked = reader.fire("alerts-question.children", alerts_url_search="?acknowledge=alert-3")["response"]
    assert asked["alerts-dialog"]["title"] == "Acknowledge: drift"
    answer = reader.fire(
        "alerts-said.children", alerts_do_n_clicks=1, alerts_url_search="?acknowledge=alert-3", alerts_by_value="grace",
        alerts_note_value="looking",
    )["response"]  # fmt: skip
    assert read(answer["alerts-said"]["children"]) == ["Acknowledged by grace."]
    row = next(row for row in open_alerts(own.lake).to_pylist() if row["alert_id"] == "alert-3")
    assert (row["acknowledged_by"], row["acknowledged_note"]) == ("grace", "looking")
    assert any("grace looks after it since" in word for word in read(look(reader)))


@pytest.mark.parametrize(
    ("search", "by", "said"),
    [
        ("?acknowledge=alert-3", " ", "Say who you are."),
        ("?range=6h", "grace", "Say who you are."),
        ("?acknowledge=nothing", "grace", "there is no alert 'nothing'"),
    ],
)
def test_what_cannot_be_acknowledged_is_said(own: Any, reader_of: Any, read: Any, search: str, by: str, said: str) -> None:
    answer = reader_of(own).fire(
        "alerts-said.children", alerts_do_n_clicks=1, alerts_url_search=search, alerts_by_value=by
    )["response"]
    assert read(answer["alerts-said"]["children"]) == [said]
    row = next(row for row in open_alerts(own.lake).to_pylist() if row["alert_id"] == "alert-3")
    assert row["acknowledged_at"] is None


def test_nobody_acknowledges_where_others_can_reach_the_app(own: Any, reader_of: Any, read: Any) -> None:
    from watchkeeper.settings import Dashboard

    settings = own.settings.model_copy(update={"dashboard": Dashboard(host="0.0.0.0")})
    answer = reader_of(type(own)(own.lake, settings, own.records)).fire(
        "alerts-said.children", alerts_do_n_clicks=1, alerts_url_search="?acknowledge=alert-3", alerts_by_value="eve"
    )["response"]
    assert "Actions are off" in read(answer["alerts-said"]["children"])[0]
