"""One tick's work, in a process of its own that ends with it: rows that came late are scored, due windows are judged.

Windows of all jobs are taken by their end, oldest first, so that no job's backlog holds up the others and drift finds the
scores of its windows. A job that fails leaves the rest of its windows for the next tick, and takes no other with it.
Scorers are loaded once, when the first row needs them; a stretch of windows without requests is one commit, loads nothing
and makes no run.
"""

import logging
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa

from watchkeeper.carrying import carrying
from watchkeeper.lake.interactions import evaluation_row
from watchkeeper.lake.lake import Lake
from watchkeeper.settings import Settings
from watchkeeper.tracking import Tracking
from watchkeeper.tracking.assessments import Assessments
from watchkeeper_evaluations import backlog
from watchkeeper_evaluations.assessments import assess
from watchkeeper_evaluations.backlog import Reach
from watchkeeper_evaluations.job import EMPTY, JOBS, Slot, evaluate, judged_by
from watchkeeper_evaluations.open_runs import settle
from watchkeeper_evaluations.scorer import Scorer
from watchkeeper_evaluations.scores import score_window
from watchkeeper_evaluations.timetable import Timetable
from watchkeeper_evaluations.window import Window

ASSESSED_FOR: Final = timedelta(days=1)
"""For so long flagged scores are tried again whose trace MLflow did not have."""

EMPTY_AT_ONCE: Final = 2000
"""Windows without requests that one commit records."""

_log = logging.getLogger(__name__)


class Order(msgspec.Struct, frozen=True):
    """What is asked for one job. `judged_by`: as it was last time; None: not known, so the scorers are loaded to know it,
    and runs that were left open are settled. `late_since`: rows that may have come late start there (µs)."""

    timetable: Timetable
    judged_by: str | None
    late_since: int | None


class Report(msgspec.Struct, frozen=True):
    """How far a job is: after each window, and with `ended` at the end. `error`: why it ended early, in a line."""

    job: str
    judged_by: str | None = None
    window: Window | None = None
    verdict: str | None = None
    ended: bool = False
    error: str | None = None


class Stretch(msgspec.Struct, frozen=True):
    """Windows that are recorded together: one with requests, or neighbours without."""

    numbers: range
    empty: bool


class Lane:
    """One job's part of the work."""

    def __init__(self, settings: Settings, lake: Lake, order: Order, until: int, clock: Callable[[], datetime]) -> None:
        self.timetable = order.timetable
        self.known = order.judged_by
        self.stretches: deque[Stretch] = deque()
        self.judged_until = 0
        self._settings = settings
        self._lake = lake
        self._order = order
        self._until = until
        self._clock = clock
        self._scorers: Sequence[Scorer] | None = None

    @property
    def name(self) -> str:
        return self.timetable.job

    def prepare(self) -> None:
        """Settles what was left open, scores what came late, and lists what is due."""
        if self.known is None:
            settle(self._settings, self._lake, self.name, self._clock())
        judges = self.known or self._load()
        self._list(judges)
        if self._order.late_since is not None:
            self._score_late(judges)

    def step(self) -> Report:
        """The oldest stretch that is due."""
        stretch = self.stretches[0]
        judges = (self.known if stretch.empty else None) or self._load()
        if judges != self.known:  # another version since the last tick: it has judged nothing yet
            self.known = judges
            self._list(judges)
            return Report(self.name, judges)
        self.stretches.popleft()
        verdict = self._skip(stretch.numbers) if stretch.empty else self._judge(stretch.numbers.start)
        return Report(self.name, judges, self.timetable.window(stretch.numbers[-1]), verdict)

    def finish(self) -> None:
        if self._order.judged_by is None:
            settle(self._settings, self._lake, self.name, self._clock())
        if self._scorers:  # loaded, so something was judged: flagged scores whose trace came to MLflow since
            since = self._clock() - ASSESSED_FOR
            for window in backlog.half_assessed(self._lake, self.name, self.known or "", since):
                self._assess(window)

    def _load(self) -> str:
        """The scorers, and who judges with them."""
        job = JOBS[self.name]
        if self._scorers is None:
            self._scorers = job.scorers(self._settings)
        judges = judged_by(job, self._scorers)
        self.known = self.known or judges
        return judges

    def _list(self, judges: str) -> None:
        """What is due, anew."""
        numbers = backlog.due(self._lake, self.timetable, judges, self._until)
        self.judged_until = self.timetable.start(numbers.start)
        self.stretches = deque(cut(numbers, backlog.with_requests(self._lake, self.timetable, numbers)))

    def _score_late(self, judges: str) -> None:
        now = self._clock()
        window = backlog.late_window(now, self._order.late_since or 0, self.judged_until)
        if window is None or not backlog.has_unscored(self._lake, judges, window):
            return
        self._load()
        with carrying(self._settings.data, "evaluation"):
            score_window(
                self._lake,
                self._scorers or (),
                window,
                evaluation_id=f"{self.name}-late-{now:%Y%m%dT%H%M%S}",
                clock=self._clock,
                version=self._lake.version("interactions"),
            )
        self._assess(window)

    def _assess(self, window: Window) -> None:
        mlflow = Assessments(Tracking(self._settings.mlflow.uri))
        evaluation_id = f"{self.name}-late-{self._clock():%Y%m%dT%H%M%S}"
        assess(self._lake, mlflow, self._scorers or (), window, evaluation_id=evaluation_id, at=self._clock())

    def _judge(self, number: int) -> str:
        judges = self._load()
        done = evaluate(
            self._settings,
            self.name,
            self.timetable.window(number),
            reference=self.timetable.compared_with(number),
            now=self._clock(),
            clock=self._clock,
            min_n=self.timetable.min_n,
            lake=self._lake,
            slot=Slot(
                evaluation_id=self.timetable.evaluation_id(number, judges),
                app_id=self.timetable.app_id(judges),
                number=number,
                judged_by=judges,
                scorers=self._scorers or (),
            ),
        )
        return done.verdict

    def _skip(self, numbers: range) -> str:
        judges, now = self.known or self._load(), self._clock()
        version = self._lake.version("interactions")
        rows = [
            evaluation_row(
                evaluation_id=self.timetable.evaluation_id(number, judges),
                job=self.name,
                evaluated_at=now,
                window_start=self.timetable.window(number).start,
                window_end=self.timetable.window(number).end,
                lake_version=version,
                n=0,
                verdict="unknown",
                reason=EMPTY,
                metrics={},
                judged_by=judges,
                scheduled=True,
            )
            for number in numbers
        ]
        app_id = self.timetable.app_id(judges)
        # No text, but a file: an erasure that believes itself alone would take it from under the commit.
        with carrying(self._settings.data, "evaluation"):
            mine = self._lake.append(
                "evaluations", pa.concat_tables(rows), app_id=app_id, version=numbers[-1], first=numbers.start
            )
        if not mine:  # another process was at some of them: what is due now?
            self._list(judges)
        return "unknown"


def cut(numbers: range, filled: Sequence[int]) -> list[Stretch]:
    """The windows `numbers`, of which `filled` hold requests, as stretches in order."""
    found: list[Stretch] = []
    start = numbers.start
    for number in chain(filled, [numbers.stop]):
        for first in range(start, number, EMPTY_AT_ONCE):
            found.append(Stretch(range(first, min(first + EMPTY_AT_ONCE, number)), empty=True))
        if number < numbers.stop:
            found.append(Stretch(range(number, number + 1), empty=False))
        start = number + 1
    return found


def catch_up(
    settings: Settings,
    orders: Sequence[Order],
    reach: Reach,
    report: Callable[[Report], object],
    clock: Callable[[], datetime],
) -> None:
    """Does what the orders ask for. Never raises what a job raises: its last report says it."""
    lake = Lake(settings.lake_uri, settings.lake.storage_options)
    lanes = [Lane(settings, lake, order, reach.arrived, clock) for order in orders]
    failed: set[str] = set()

    def attempt(lane: Lane, act: Callable[[], Report | None]) -> None:
        # Any exception: whatever a job trips over must not take the other jobs with it.
        try:
            done = act()
        except Exception as error:
            why = _why(error)
            _log.warning("%s: %s; it is tried again", lane.name, why)
            lane.stretches.clear()
            failed.add(lane.name)
            report(Report(lane.name, lane.known, ended=True, error=why))
        else:
            if done is not None:
                report(done)

    for lane in lanes:
        attempt(lane, lane.prepare)
    while waiting := [lane for lane in lanes if lane.stretches]:
        oldest = min(waiting, key=lambda lane: lane.timetable.start(lane.stretches[0].numbers.stop))
        attempt(oldest, oldest.step)
    for lane in lanes:
        if lane.name not in failed:
            attempt(lane, lane.finish)
        if lane.name not in failed:
            report(Report(lane.name, lane.known, ended=True))


def _why(error: Exception) -> str:
    """What went wrong, in a line. Of an error that is not ours the place only: its message may hold a text of a user's."""
    name = type(error).__name__
    if type(error).__module__.startswith("watchkeeper"):
        return f"{name}: {' '.join(str(error).split())}"
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{name} in {place.name}, line {place.lineno} of {Path(place.filename).name}"
