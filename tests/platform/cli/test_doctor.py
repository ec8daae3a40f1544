"""The doctor on the schedule: running, behind, failing, or never seen."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from watchkeeper.cli.doctor import LOOKS, Finding
from watchkeeper.settings import Settings
from watchkeeper_evaluations.schedule_status import JobStatus, ScheduleStatus, write
from watchkeeper_evaluations.window import Window

NOW = datetime.now(UTC)
WINDOW = Window(datetime(2026, 4, 1, 12, tzinfo=UTC), datetime(2026, 4, 1, 13, tzinfo=UTC))


def looked(data: Path) -> list[Finding]:
    (look,) = (look for look in LOOKS if look.__name__ == "_schedule")
    return list(look(Settings(data=data)))


def test_a_schedule_that_never_ran_is_off(tmp_path: Path) -> None:
    (finding,) = looked(tmp_path)
    assert (finding.part, finding.state) == ("schedule", "off")


@pytest.mark.parametrize(
    ("status", "state", "says"),
    [
        (JobStatus(NOW + timedelta(minutes=5), WINDOW, "pass"), "good", "judged until 2026-04-01 13:00Z; looks again at"),
        (JobStatus(NOW + timedelta(minutes=5)), "good", "no window judged yet"),
        (JobStatus(NOW - timedelta(hours=2), WINDOW, "pass"), "off", "it is not running"),
        (JobStatus(NOW + timedelta(minutes=5), WINDOW, "pass", "ScorerBroken: no"), "bad", "ScorerBroken: no"),
    ],
)
def test_each_job_says_how_it_is(tmp_path: Path, status: JobStatus, state: str, says: str) -> None:
    write(tmp_path, ScheduleStatus(NOW, {"drift": status}))
    (finding,) = looked(tmp_path)
    assert (finding.part, finding.state) == ("schedule drift", state)
    assert says in finding.detail


def test_a_webhook_that_takes_nothing_is_bad(tmp_path: Path) -> None:
    write(tmp_path, ScheduleStatus(NOW, {}, "the webhook was not told: HTTP 500"))
    (finding,) = looked(tmp_path)
    assert (finding.part, finding.state) == ("alerts.webhook", "bad")
