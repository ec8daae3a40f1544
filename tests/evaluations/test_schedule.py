"""The schedule: when it ticks, when it looks again, and that it starts no process without need. Its work is recorded here,
not done; `tests/journey/test_schedule.py` runs it whole."""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from watchkeeper.lake.alerts import alert_row
from watchkeeper.lake.interactions import microseconds, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record
from watchkeeper.settings import Alerts, ScheduledJob, Settings
from watchkeeper.tracking import Tracking
from watchkeeper_evaluations import backlog, retries, schedule_status
from watchkeeper_evaluations.backlog import Reach
from watchkeeper_evaluations.catch_up import Order, Report
from watchkeeper_evaluations.job import JOBS
from watchkeeper_evaluations.schedule import WEBHOOK, JobUnknown, Schedule, in_process, run, trigger

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
JUDGES = {"toxicity": "toxicity@1 toxicity@judge-1", "drift": "drift@1"}


class Worker:
    """Judges whatever it is asked to, at once; or fails, or dies."""

    def __init__(self, settings: Settings) -> None:
        self.asked: list[list[Order]] = []
        self.errors: dict[str, str] = {}
        self.dies = False
        self._lake = Lake(settings.lake_uri)

    def __call__(
        self, settings: Settings, orders: Sequence[Order], reach: Reach, heard: Callable[[Report], object],
        stopped: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.asked.append(list(orders))
        for order in orders:
            name = order.timetable.job
            if self.dies:
                return
            if error := self.errors.get(name):
                heard(Report(name, None, ended=True, error=error))
                continue
            number = order.timetable.number(reach.arrived) - 1
            none = self._lake.query("SELECT * FROM evaluations").slice(0, 0)
            self._lake.append("evaluations", none, app_id=order.timetable.app_id(JUDGES[name]), version=number)
            heard(Report(name, JUDGES[name], order.timetable.window(number), "pass"))
            heard(Report(name, JUDGES[name], ended=True))


class Clock:
    def __init__(self) -> None:
        self.now = NOON + 3 * HOUR + timedelta(minutes=1)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    jobs = (ScheduledJob(job="toxicity", every="1h"), ScheduledJob(job="drift", every="1h"))
    return Settings(data=tmp_path, jobs=jobs)


@pytest.fixture
def worker(settings: Settings) -> Worker:
    return Worker(settings)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tracking, "healthy", lambda tracking: True)


@pytest.fixture
def schedule(settings: Settings, worker: Worker, clock: Clock) -> Schedule:
    return Schedule(settings, work=worker, clock=clock)


def fill(settings: Settings, hour: float) -> None:
    at = microseconds(NOON + hour * HOUR)
    Lake(settings.lake_uri).append("interactions", to_arrow([Record(request_id=f"{at:032x}", received_at=at)]))


def names(orders: Sequence[Order]) -> list[str]:
    return [order.timetable.job for order in orders]


def test_an_empty_lake_needs_no_process(schedule: Schedule, worker: Worker) -> None:
    assert schedule.round(schedule.jobs) == set()
    assert worker.asked == []


def test_at_first_all_jobs_are_asked_together_then_only_when_a_window_is_over(
    schedule: Schedule, worker: Worker, clock: Clock, settings: Settings
) -> None:
    fill(settings, 0.5)
    assert schedule.round({"drift", "toxicity"}) == set()
    (first,) = worker.asked
    assert names(first) == ["toxicity", "drift"]
    assert {(order.judged_by, order.late_since) for order in first} == {(None, 0)}
    schedule.round({"drift", "toxicity"})
    assert len(worker.asked) == 1
    clock.now += HOUR
    schedule.round({"drift"})
    assert names(worker.asked[-1]) == ["drift"]
    assert worker.asked[-1][0].judged_by == "drift@1"


def test_a_late_row_is_work_for_jobs_that_score_and_a_new_one_is_not(
    schedule: Schedule, worker: Worker, settings: Settings
) -> None:
    fill(settings, 0.5)
    schedule.round(schedule.jobs)
    fill(settings, 3.01)
    schedule.round(schedule.jobs)
    assert len(worker.asked) == 1
    fill(settings, 1.5)
    schedule.round({"drift"})
    assert len(worker.asked) == 1
    schedule.round(schedule.jobs)
    (order,) = worker.asked[-1]
    assert (order.timetable.job, order.late_since) == ("toxicity", microseconds(NOON + 1.5 * HOUR))
    schedule.round(schedule.jobs)
    assert len(worker.asked) == 2


def test_a_window_on_its_way_to_the_lake_is_looked_at_again_and_not_judged(
    schedule: Schedule, worker: Worker, clock: Clock, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings, 0.5)
    schedule.round(schedule.jobs)
    clock.now += HOUR
    reached = NOON + 3.9 * HOUR
    monkeypatch.setattr(backlog, "watermark", lambda settings: microseconds(reached))
    assert schedule.round(schedule.jobs) == {"toxicity", "drift"}
    assert len(worker.asked) == 1
    reached = NOON + 4 * HOUR
    assert schedule.round(schedule.jobs) == set()
    assert len(worker.asked) == 2


def test_what_fails_is_asked_again_as_if_for_the_first_time(
    schedule: Schedule, worker: Worker, clock: Clock, settings: Settings
) -> None:
    fill(settings, 0.5)
    worker.errors["toxicity"] = "ScorerBroken: no"
    assert schedule.round(schedule.jobs) == {"toxicity"}
    assert schedule.failed
    status = schedule_status.read(settings.data)
    assert status is not None
    assert (status.jobs["toxicity"].error, status.jobs["toxicity"].window) == ("ScorerBroken: no", None)
    assert (status.jobs["drift"].error, status.jobs["drift"].verdict) == (None, "pass")
    worker.errors.clear()
    assert schedule.round({"toxicity"}) == set()
    assert worker.asked[-1][0].judged_by is None
    assert not schedule.failed


def test_with_mlflow_away_no_process_is_started(
    schedule: Schedule,
    worker: Worker,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Tracking, "healthy", lambda tracking: False)
    fill(settings, 0.5)
    for _ in range(2):
        assert schedule.round(schedule.jobs) == {"toxicity", "drift"}
    assert worker.asked == []
    assert schedule.failed
    assert len(caplog.records) == 1
    monkeypatch.setattr(Tracking, "healthy", lambda tracking: True)
    assert schedule.round(schedule.jobs) == set()
    assert not schedule.failed


def test_a_process_that_dies_is_said_and_asked_again(schedule: Schedule, worker: Worker, settings: Settings) -> None:
    fill(settings, 0.5)
    worker.dies = True
    assert schedule.round(schedule.jobs) == {"toxicity", "drift"}
    status = schedule_status.read(settings.data)
    assert status is not None
    assert "ended before its work did" in str(status.jobs["drift"].error)


def test_a_lake_that_cannot_be_read_is_tried_again(schedule: Schedule, settings: Settings) -> None:
    log = Path(settings.lake_uri) / "interactions" / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text("no json")
    assert schedule.round({"drift"}) == {"drift"}
    assert schedule.failed


def test_a_webhook_that_takes_nothing_is_said_and_tried_again(worker: Worker, settings: Settings, clock: Clock) -> None:
    row = alert_row(
        alert_id="a", event="fired", at=NOON, job="drift", evaluation_id="e", window_start=NOON, window_end=NOON + HOUR,
        verdict="fail", evidence={"run_url": ""},
    )  # fmt: skip
    Lake(settings.lake_uri).append("alerts", row)
    settings = settings.model_copy(update={"alerts": Alerts(webhook="http://127.0.0.1:9/", timeout="1s")})
    schedule = Schedule(settings, work=worker, clock=clock)
    assert schedule.round({"drift"}) == {WEBHOOK}
    assert schedule.failed
    assert [schedule.failing(name) for name in ("drift", WEBHOOK)] == [False, True]
    status = schedule_status.read(settings.data)
    assert status is not None
    assert "the webhook was not told" in str(status.webhook)


def test_the_status_says_how_far_jobs_are_and_outlives_a_restart(
    schedule: Schedule, worker: Worker, clock: Clock, settings: Settings
) -> None:
    fill(settings, 0.5)
    schedule.round(schedule.jobs, {"toxicity": clock.now + HOUR, "drift": clock.now}.get)
    Schedule(settings, work=worker, clock=clock).round(())
    status = schedule_status.read(settings.data)
    assert status is not None
    toxicity = status.jobs["toxicity"]
    assert toxicity.window is not None
    assert (toxicity.window.end, toxicity.verdict) == (NOON + 3 * HOUR, "pass")


def test_a_job_that_is_not_there_yet_names_its_setting(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(JOBS, "drift")
    with pytest.raises(JobUnknown, match=r"jobs\.1\.job: there is no job 'drift'; there is toxicity"):
        Schedule(settings, work=in_process)


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (ScheduledJob(job="drift", every="15m"), "2026-04-01 12:15:05"),
        (ScheduledJob(job="drift", every="7d"), "2026-04-02 00:00:05"),
        (ScheduledJob(job="drift", cron="30 3 * * *", window="1d"), "2026-04-02 03:30:05"),
        (ScheduledJob(job="drift", cron="0 6 * * 0", window="7d"), "2026-04-05 06:00:05"),
        (ScheduledJob(job="drift", cron="0 6 * * 1-2", window="7d"), "2026-04-06 06:00:05"),
        (ScheduledJob(job="drift", cron="0 0 1 */4 *", window="1d"), "2026-05-01 00:00:05"),
    ],
)
def test_ticks_come_right_after_windows_and_as_cron_says(job: ScheduledJob, expected: str) -> None:
    at = trigger(job).get_next_fire_time(None, NOON + timedelta(minutes=7))
    assert at is not None
    assert f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" == expected


def test_it_ticks_until_it_is_told_to_stop(settings: Settings, wait_for: Callable[..., None]) -> None:
    stop = threading.Event()
    settings = settings.model_copy(update={"jobs": (ScheduledJob(job="drift", every="1s"),)})
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run(settings, once=False, stop=stop)))
    thread.start()
    seen: set[datetime | None] = set()

    def moved_on() -> bool:
        status = schedule_status.read(settings.data)
        seen.add(status.jobs["drift"].next_run if status else None)
        return len(seen - {None}) >= 2

    wait_for(moved_on, what="two ticks")
    stop.set()
    thread.join(10)
    assert codes == [0]


def test_a_job_that_goes_well_does_not_put_off_the_next_try_of_another(
    settings: Settings, worker: Worker, wait_for: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`drift` ticks more often than `toxicity` is to be tried again, and nothing else would wake that."""
    monkeypatch.setattr("watchkeeper_evaluations.schedule.in_process", worker)
    monkeypatch.setattr(retries, "AGAIN_S", 2.5)
    fill(settings, 0.5)
    worker.errors["toxicity"] = "ScorerBroken: no"
    jobs = (ScheduledJob(job="toxicity", every="7d"), ScheduledJob(job="drift", every="1s"))
    settings = settings.model_copy(update={"jobs": jobs})
    stop = threading.Event()
    thread = threading.Thread(target=lambda: run(settings, once=False, stop=stop))
    thread.start()
    try:
        wait_for(lambda: sum("toxicity" in names(orders) for orders in worker.asked) >= 2, what="another try", within_s=30)
    finally:
        stop.set()
        thread.join(10)
    assert sum("drift" in names(orders) for orders in worker.asked) >= 2
