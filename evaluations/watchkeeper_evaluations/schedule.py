"""`watchkeeper schedule`: at each job's ticks, what is due is judged, oldest first, in a process that ends with the work.

The ticks are APScheduler's. A tick only says whose turn it is; one loop, one job at a time, first looks cheaply whether
anything is due (backlog.py) and only then starts the process that loads scorers (catch_up.py), so that this one stays small
and an idle one costs nothing. What is late or failed is looked at again after a pause of its own (retries.py), not only at
the next tick. It may be killed at any moment: what it knows is in the lake. Several may run on one lake.
"""

import contextlib
import logging
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Final

import msgspec

from watchkeeper import cron
from watchkeeper.lake.lake import Lake, LakeUnavailable
from watchkeeper.settings import ScheduledJob, Settings, seconds
from watchkeeper.tracking import Tracking
from watchkeeper_evaluations import alerts, backlog, schedule_status, spending
from watchkeeper_evaluations.backlog import SETTLE_S, Reach
from watchkeeper_evaluations.catch_up import Order, Report, catch_up
from watchkeeper_evaluations.job import JOBS, utc_now
from watchkeeper_evaluations.retries import Retries
from watchkeeper_evaluations.schedule_status import JobStatus, ScheduleStatus
from watchkeeper_evaluations.timetable import Timetable

if TYPE_CHECKING:
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.triggers.base import BaseTrigger

WEBHOOK: Final = "alerts.webhook"
"""What stands for the webhook among the names of jobs: it is told in every round, and fails by itself."""

STOP_S: Final = 5.0
LOOK_S: Final = 0.5

_log = logging.getLogger(__name__)

Work = Callable[[Settings, Sequence[Order], Reach, Callable[[Report], object], Callable[[], bool]], None]
"""Does what the orders ask for and reports; ends early when the last argument says so."""


class JobUnknown(Exception):
    """The settings name a job that there is not; the message is one line."""


class _Known(msgspec.Struct):
    """What is remembered of a job. `judged_by` None: ask anew. `files`: those of `interactions` that were looked through
    for late rows."""

    timetable: Timetable
    judged_by: str | None = None
    files: frozenset[str] = frozenset()
    status: JobStatus = JobStatus()


class Schedule:
    """All jobs of one set-up. `work`: what runs the orders."""

    def __init__(
        self,
        settings: Settings,
        *,
        work: Work,
        stopped: Callable[[], bool] = lambda: False,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._settings = settings
        self._lake = Lake(settings.lake_uri, settings.lake.storage_options)
        self._work = work
        self._stopped = stopped
        self._clock = clock
        self._webhook: str | None = None
        before = schedule_status.read(settings.data)
        self.jobs: dict[str, _Known] = {}
        for number, job in enumerate(settings.jobs):
            if job.job not in JOBS:
                raise JobUnknown(f"jobs.{number}.job: there is no job {job.job!r}; there is {', '.join(JOBS)}")
            status = (before.jobs.get(job.job) if before else None) or JobStatus()
            self.jobs[job.job] = _Known(Timetable.of(job), status=status)

    def round(self, names: Iterable[str], next_runs: Callable[[str], datetime | None] = lambda name: None) -> set[str]:
        """Does what is due for these jobs, looks what tenants spend, tells the webhook, and returns the jobs to look at
        again soon, with `WEBHOOK` if it was not told. Raises nothing that time may heal."""
        again: set[str] = set()
        try:
            work, again = self._due(sorted(set(names), key=list(self.jobs).index))
            if work is not None:
                again |= self._run(*work)
            spending.look(self._settings, self._lake, self._clock())
        except LakeUnavailable as error:
            _log.warning("%s; it is tried again", error)
            again = set(names)
            for name in again:
                self._note(name, error=str(error))
        self._webhook = alerts.tell(self._settings, self._lake, self._clock())
        for name in self.jobs:
            self._note(name, next_run=next_runs(name))
        self._write()
        return again | ({WEBHOOK} if self._webhook else set())

    @property
    def failed(self) -> bool:
        """Whether some job's last try went wrong, or the webhook was not told."""
        return any(map(self.failing, (*self.jobs, WEBHOOK)))

    def failing(self, name: str) -> bool:
        """Whether the last try of a job, or of telling the `WEBHOOK`, went wrong."""
        return bool(self._webhook if name == WEBHOOK else self.jobs[name].status.error)

    def _due(self, names: Sequence[str]) -> tuple[tuple[list[Order], Reach, dict[str, int]] | None, set[str]]:
        """The orders, if any, how far they can be done, and where each file of `interactions` starts; and the jobs of
        which a window is over but on its way to the lake."""
        starts = self._lake.starts("interactions", "received_at")
        if not starts:
            return None, set()
        reach = backlog.reach(self._settings, self._clock())
        orders: list[Order] = []
        waiting: set[str] = set()
        for name in names:
            known = self.jobs[name]
            if known.timetable.number(reach.arrived) < known.timetable.number(reach.over):
                waiting.add(name)
            if known.judged_by is None:
                orders.append(Order(known.timetable, None, 0))
                continue
            numbers = backlog.due(self._lake, known.timetable, known.judged_by, reach.arrived)
            late = self._late(known, known.judged_by, starts, known.timetable.start(numbers.start))
            if numbers or late is not None:
                orders.append(Order(known.timetable, known.judged_by, late))
            else:
                known.files = frozenset(starts)
                self._note(name, error=None)
        return ((orders, reach, starts) if orders else None), waiting

    def _late(self, known: _Known, judged_by: str, starts: dict[str, int], judged_until: int) -> int | None:
        """Since when (µs) there are rows that came after their window was judged; None: there are none."""
        since = backlog.earliest((start for file, start in starts.items() if file not in known.files), judged_until)
        if since is None:
            return None
        window = backlog.late_window(self._clock(), since, judged_until)
        return since if window is not None and backlog.has_unscored(self._lake, judged_by, window) else None

    def _run(self, orders: Sequence[Order], reach: Reach, starts: dict[str, int]) -> set[str]:
        """The jobs that did not get to their end."""
        left = {order.timetable.job for order in orders}
        failed: set[str] = set()
        if not Tracking(self._settings.mlflow.uri).healthy():
            why = f"MLflow does not answer at {self._settings.mlflow.uri}"
            if any(self.jobs[name].status.error != why for name in left):
                _log.warning("%s; it is tried again", why)
            for name in left:
                self._note(name, error=why)
            return left

        def heard(report: Report) -> None:
            known = self.jobs[report.job]
            known.judged_by = report.judged_by
            if report.window is not None:
                self._note(report.job, window=report.window, verdict=report.verdict)
            if report.ended:
                left.discard(report.job)
                self._note(report.job, error=report.error)
                if report.error:
                    failed.add(report.job)
                    known.judged_by = None  # what it left open is settled by the next try
                else:
                    known.files = frozenset(starts)
            self._write()

        self._work(self._settings, orders, reach, heard, self._stopped)
        for name in left:
            self.jobs[name].judged_by = None
            if not self._stopped():
                self._note(name, error="the process that was at it ended before its work did")
                _log.warning("%s: %s; it is tried again", name, self.jobs[name].status.error)
        return failed | left

    def _note(self, name: str, **changes: object) -> None:
        known = self.jobs[name]
        known.status = msgspec.structs.replace(known.status, **changes)

    def _write(self) -> None:
        jobs = {name: known.status for name, known in self.jobs.items()}
        status = ScheduleStatus(self._clock(), jobs, self._webhook)
        try:
            schedule_status.write(self._settings.data, status)
        except OSError as error:  # a full disk: the work itself goes on
            _log.warning("%s cannot be written: %s", schedule_status.FILE, error.strerror)


def in_process(
    settings: Settings,
    orders: Sequence[Order],
    reach: Reach,
    heard: Callable[[Report], object],
    stopped: Callable[[], bool],
) -> None:
    """`catch_up` in a process of its own. Torch and all that it takes go with it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_catch_up, args=(settings, tuple(orders), reach, theirs), daemon=True)
    process.start()
    theirs.close()
    with ours:
        while not stopped():
            if not ours.poll(0.1):
                continue
            try:
                heard(ours.recv())
            except EOFError:
                break
        else:
            process.terminate()  # every step may be the last: the next start makes up for it
    process.join(STOP_S)
    if process.is_alive():
        process.kill()
        process.join()


def _catch_up(settings: Settings, orders: Sequence[Order], reach: Reach, parent: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent says when to end
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    catch_up(settings, orders, reach, parent.send, utc_now)
    sys.stderr.flush()
    os._exit(0)  # taking apart torch and all the rest would only cost time


def _end_with(parent: Connection) -> None:
    """Nothing is ever sent here: an end of the pipe is the end of the parent, whatever killed it."""
    with contextlib.suppress(OSError, EOFError):
        parent.recv()
    os._exit(1)


def run(settings: Settings, *, once: bool, stop: threading.Event) -> int:
    """Until `stop` is set (0). `once`: does what is due now, and returns 1 when something failed or was cut short.

    Raises `JobUnknown`.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    schedule = Schedule(settings, work=in_process, stopped=stop.is_set)
    if once:
        schedule.round(schedule.jobs)
        return 1 if schedule.failed or stop.is_set() else 0
    ticks: queue.SimpleQueue[str] = queue.SimpleQueue()
    scheduler = _ticking(settings.jobs, ticks.put)

    def next_run(name: str) -> datetime | None:
        at: datetime | None = scheduler.get_job(name).next_run_time
        return at

    scheduler.start()
    try:
        retries = Retries(schedule.jobs)  # whatever was missed while this was not running is due now
        while not stop.wait(LOOK_S):
            names = _drained(ticks) | retries.due()
            if names:
                again = schedule.round(names - {WEBHOOK}, next_run)
                for name in names | {WEBHOOK}:
                    retries.tried(name, again=name in again, failed=schedule.failing(name))
    finally:
        scheduler.shutdown(wait=False)
    return 0


def _ticking(jobs: Iterable[ScheduledJob], tick: Callable[[str], object]) -> "BackgroundScheduler":
    """APScheduler, which calls `tick` with a job's name when its time has come; not started."""
    from apscheduler.schedulers.background import BackgroundScheduler

    scheduler = BackgroundScheduler(timezone=UTC)
    for job in jobs:
        # A tick that comes late, because this machine slept, is still a tick.
        options = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        scheduler.add_job(tick, trigger(job), args=(job.job,), id=job.job, **options)
    return scheduler


def trigger(job: ScheduledJob) -> "BaseTrigger":
    """When a job ticks: right after windows of its `every` have settled, or by its `cron`."""
    from apscheduler.triggers.cron import CronTrigger
    from apscheduler.triggers.interval import IntervalTrigger

    if job.every is not None:
        start = datetime.fromtimestamp(SETTLE_S, UTC)
        return IntervalTrigger(seconds=seconds(job.every), start_date=start, timezone=UTC)
    at = cron.parse(job.cron or "")
    listed = {"minute": at.minute, "hour": at.hour, "day": at.day, "month": at.month}
    fields = {name: ",".join(map(str, values)) for name, values in listed.items()}
    # By name: to APScheduler Monday is 0.
    weekdays = ",".join(cron.DAYS[number] for number in at.weekday)
    return CronTrigger(**fields, day_of_week=weekdays, second=SETTLE_S, timezone=UTC)


def _drained(ticks: "queue.SimpleQueue[str]") -> set[str]:
    names: set[str] = set()
    with contextlib.suppress(queue.Empty):
        while True:
            names.add(ticks.get_nowait())
    return names
