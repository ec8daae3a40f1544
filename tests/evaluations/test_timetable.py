"""Windows of a scheduled job: contiguous, aligned, each with a number and an id of its own."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.lake.interactions import microseconds
from watchkeeper.settings import ScheduledJob
from watchkeeper_evaluations.timetable import Timetable, moment_of
from watchkeeper_evaluations.window import Window

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
HOURLY = Timetable("drift", 3600)


@given(st.integers(0, 4_000_000_000_000_000), st.integers(1, 40 * 86_400))
def test_every_moment_is_in_the_one_window_of_its_number(at: int, length: int) -> None:
    timetable = Timetable("drift", length)
    number = timetable.number(at)
    window = timetable.window(number)
    assert window.start <= moment_of(at) < window.end
    assert timetable.window(number + 1).start == window.end
    assert window.end - window.start == timedelta(seconds=length)
    assert microseconds(moment_of(at)) == at


def test_an_hour_starts_on_the_hour() -> None:
    number = HOURLY.number(microseconds(NOON + timedelta(minutes=59)))
    assert HOURLY.window(number) == Window(NOON, NOON + timedelta(hours=1))


def test_ids_tell_apart_job_length_window_and_who_judges() -> None:
    ids = {
        timetable.evaluation_id(number, judges)
        for timetable in (HOURLY, Timetable("drift", 1800), Timetable("latency", 3600))
        for number in (500_000, 500_001)
        for judges in ("drift@1", "drift@2")
    }
    assert len(ids) == 12
    assert HOURLY.evaluation_id(500_000, "drift@1").startswith("drift-20270115T080000-")


def test_a_job_of_the_settings() -> None:
    job = ScheduledJob(job="drift", every="1h", window="2h", reference="2026-04-01..2026-04-02", min_n=5)
    timetable = Timetable.of(job)
    assert (timetable.length, timetable.min_n) == (7200, 5)
    assert timetable.compared_with(1) == Window(NOON - timedelta(hours=12), NOON + timedelta(hours=12))
    assert HOURLY.compared_with(1) is None
