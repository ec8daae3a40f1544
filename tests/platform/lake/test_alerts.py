"""The event log of alerts: what is open, what was said of it, and what the webhook has yet to hear."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.lake.alerts import (
    AlertEvent,
    AlertUnknown,
    acknowledge,
    alert_log,
    alert_row,
    last_turn,
    open_alerts,
    silence,
    untold,
)
from watchkeeper.lake.lake import Lake

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def write(lake: Lake, alert_id: str, event: AlertEvent, minute: int, job: str = "drift", reason: str = "") -> None:
    at = NOON + minute * MINUTE
    lake.append(
        "alerts", alert_row(alert_id=alert_id, event=event, at=at, job=job, reason=reason, evidence={"metrics": {}})
    )


def told(lake: Lake, since: datetime = NOON) -> list[tuple[Any, Any]]:
    return [(row["alert_id"], row["event"]) for row in untold(lake, since)]


def test_a_lake_without_alerts_has_none(lake: Lake) -> None:
    assert open_alerts(lake).num_rows == alert_log(lake, NOON, NOON + MINUTE).num_rows == 0
    assert last_turn(lake, "drift") is None
    assert untold(lake, NOON) == []


def test_open_is_what_fired_and_is_not_resolved_with_what_people_said_last(lake: Lake) -> None:
    write(lake, "a", "fired", 0)
    write(lake, "b", "fired", 1, job="toxicity", reason="toxic")
    write(lake, "c", "fired", 2, job="quality")
    write(lake, "a", "resolved", 3)
    acknowledge(lake, "b", "ada", NOON + 4 * MINUTE, "looking")
    acknowledge(lake, "b", "bob", NOON + 5 * MINUTE, "found it")
    silence(lake, "b", "bob", NOON + 6 * MINUTE)
    newest, older = open_alerts(lake).to_pylist()
    assert (newest["alert_id"], newest["acknowledged_by"], newest["silenced_at"]) == ("c", None, None)
    assert (older["alert_id"], older["job"], older["reason"]) == ("b", "toxicity", "toxic")
    assert (older["acknowledged_by"], older["acknowledged_note"]) == ("bob", "found it")
    assert older["acknowledged_at"] == NOON + 5 * MINUTE
    assert older["silenced_at"] == NOON + 6 * MINUTE


def test_the_log_is_of_its_time_newest_first(lake: Lake) -> None:
    write(lake, "a", "fired", 0)
    write(lake, "a", "acknowledged", 1)
    write(lake, "a", "resolved", 2)
    listed = alert_log(lake, NOON, NOON + 2 * MINUTE).column("event").to_pylist()
    assert listed == ["acknowledged", "fired"]


def test_the_last_turn_is_the_jobs_own(lake: Lake) -> None:
    write(lake, "a", "fired", 0)
    write(lake, "a", "acknowledged", 1)
    write(lake, "b", "resolved", 2, job="toxicity")
    turned = last_turn(lake, "drift")
    assert turned is not None
    assert (turned["alert_id"], turned["event"], turned["at"]) == ("a", "fired", NOON)


def test_untold_is_what_was_not_notified_silenced_or_is_too_old(lake: Lake) -> None:
    write(lake, "old", "fired", -1)
    write(lake, "a", "fired", 1)
    write(lake, "a", "notified", 1, reason="fired")
    write(lake, "a", "resolved", 2)
    write(lake, "b", "fired", 3)
    write(lake, "c", "fired", 4)
    assert told(lake) == [("a", "resolved"), ("b", "fired"), ("c", "fired")]
    silence(lake, "b", "ada", NOON)
    assert told(lake) == [("a", "resolved"), ("c", "fired")]
    write(lake, "a", "notified", 5, reason="resolved")
    assert told(lake) == [("c", "fired")]


@pytest.mark.parametrize("say", [acknowledge, silence])
def test_of_an_alert_that_is_not_there_nothing_can_be_said(lake: Lake, say: Any) -> None:
    with pytest.raises(AlertUnknown, match="there is no alert 'x'"):
        say(lake, "x", "ada", NOON)
    assert alert_log(lake, NOON, NOON + MINUTE).num_rows == 0
