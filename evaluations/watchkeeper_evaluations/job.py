"""What an evaluation does, in order: wait, score, judge, log, record. The jobs are the tuple below.

    wait for the watermark → score the rows that lack scorer@version → judge the window → flagged scores onto their traces
    → MLflow run → what the verdict turns (alerts.py) → row in `evaluations` → the webhook

Every step may be the last before a crash: run it again and nothing is scored twice or forgotten (scores.py). An
evaluation counts as done when its row is in `evaluations`: with MLflow away the scores stay, `TrackingUnavailable` says
so, and there is no row. Knows nothing of what a job scores, of its rules, nor of when windows are due.
"""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from watchkeeper import __version__
from watchkeeper.carrying import carrying
from watchkeeper.lake.interactions import evaluation_row, microseconds
from watchkeeper.lake.lake import Lake
from watchkeeper.settings import Settings
from watchkeeper.telemetry.ledger import watermark
from watchkeeper.tracking import Tracking, TrackingUnavailable
from watchkeeper.tracking.assessments import Assessments
from watchkeeper.tracking.unfinished import delete_run, finish_run
from watchkeeper_evaluations import alerts
from watchkeeper_evaluations.assessments import assess
from watchkeeper_evaluations.case import Case, Finding, Verdict
from watchkeeper_evaluations.drift import Drift
from watchkeeper_evaluations.latency import Latency
from watchkeeper_evaluations.quality import Quality
from watchkeeper_evaluations.safety import Safety
from watchkeeper_evaluations.scorer import Scorer, identity
from watchkeeper_evaluations.scores import score_window
from watchkeeper_evaluations.toxic_share import ToxicShare
from watchkeeper_evaluations.window import Window, written

WAIT_S: Final = 30.0
LOOK_AGAIN_S: Final = 0.5
EMPTY: Final = "there are no requests in the window"

_log_line = logging.getLogger(__name__)


class Job(Protocol):
    """`version` changes whenever verdicts would. `scorers`: what scores each row before the window is judged; none where
    the lake has all that is judged. `compares`: whether the window is held against a reference."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def compares(self) -> bool: ...
    def scorers(self, settings: Settings) -> Sequence[Scorer]: ...
    def judge(self, case: Case, scorers: Sequence[Scorer]) -> Finding: ...


_ALL: Final[tuple[Job, ...]] = (ToxicShare(), Quality(), Safety(), Latency(), Drift())
JOBS: Final = {job.name: job for job in _ALL}
"""By name, in the order in which `all` runs them."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """`n`: requests in the window. `scored`: how many of them were scored just now; the others had been before.
    `judged_by`: the job and its scorers, each name@version."""

    evaluation_id: str
    job: str
    window: Window
    reference: Window | None
    n: int
    scored: int
    verdict: Verdict
    reason: str
    metrics: dict[str, float]
    lake_version: int | None
    judged_by: str
    mlflow_run_id: str = ""
    run_url: str = ""


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation's place in the schedule: the lake takes `number` once under `app_id`. `scorers` are loaded already."""

    evaluation_id: str
    app_id: str
    number: int
    judged_by: str
    scorers: Sequence[Scorer]


def judged_by(job: Job, scorers: Sequence[Scorer]) -> str:
    """The job and its scorers, each name@version."""
    return " ".join([f"{job.name}@{job.version}", *map(identity, scorers)])


def utc_now() -> datetime:
    return datetime.now(UTC)


def evaluate(
    settings: Settings,
    job: str,
    window: Window,
    *,
    reference: Window | None = None,
    now: datetime,
    wait_s: float = WAIT_S,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
    min_n: int | None = None,
    slot: Slot | None = None,
    lake: Lake | None = None,
) -> Evaluation:
    """Scores and judges one window.

    `reference`: what drift compares with (None: the window before). `wait_s`: how long requests of the window may still be
    on their way to the lake; after that the verdict is unknown. `min_n`: another one than the settings'. `slot`: of a
    scheduled evaluation, whose window has reached the lake; it is recorded once, whoever else is at it. `lake`: opened
    already.

    Raises `ValueError` for a job that is not there, `TrackingUnavailable`, `LakeUnavailable`, `ScorerBroken`,
    `ScorerUnavailable`, and what loading the scorer raises (`WeightsMissing`, `JudgeUnavailable`): all with one line.
    """
    chosen = JOBS.get(job)
    if chosen is None:
        raise ValueError(f"there is no job {job!r}; there is {', '.join(JOBS)}")
    evaluation_id = slot.evaluation_id if slot else f"{job}-{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    complete = slot is not None or _wait(settings, window, wait_s, clock, sleep)
    lake = lake or Lake(settings.lake_uri, settings.lake.storage_options)
    against = (reference or window.previous) if chosen.compares else None
    with carrying(settings.data, "evaluation"):
        case = Case(
            lake, window, against, lake.version("interactions"), min_n or settings.evaluations.min_n, settings.objectives
        )
        evaluation, found = _evaluated(settings, chosen, case, evaluation_id, complete, wait_s, now, clock, slot)
        turned = alerts.look(lake, _judged_as(evaluation, found), now)
        recorded = _record(lake, evaluation, now, slot)
    if slot:
        _close(settings, evaluation, recorded, max(now, clock()))
    if turned:
        alerts.tell(settings, lake, max(now, clock()))
    return evaluation


def _evaluated(
    settings: Settings,
    chosen: Job,
    case: Case,
    evaluation_id: str,
    complete: bool,
    wait_s: float,
    now: datetime,
    clock: Callable[[], datetime],
    slot: Slot | None,
) -> tuple[Evaluation, Finding]:
    """Scored, judged and logged, but not recorded yet."""
    lake, window = case.lake, case.window
    n = case.rows(window)
    scorers = slot.scorers if slot else chosen.scorers(settings) if n else ()
    scored = score_window(lake, scorers, window, evaluation_id=evaluation_id, clock=clock, version=case.version)
    found = _judged(chosen, case, scorers, n, complete, wait_s)
    if scorers:
        mlflow = Assessments(Tracking(settings.mlflow.uri))
        assessed = assess(lake, mlflow, scorers, window, evaluation_id=evaluation_id, at=clock())
        found = replace(found, metrics={**found.metrics, "assessed": assessed.made, "assessed_later": assessed.left})
    evaluation = Evaluation(
        evaluation_id=evaluation_id,
        job=chosen.name,
        window=window,
        reference=case.reference,
        n=n,
        scored=scored,
        verdict=found.verdict,
        reason=found.reason,
        metrics=dict(found.metrics),
        lake_version=case.version,
        judged_by=slot.judged_by if slot else judged_by(chosen, scorers),
    )
    return _log(settings, evaluation, scorers, found, slot, case.min_n, now, max(now, clock())), found


def _wait(
    settings: Settings,
    window: Window,
    wait_s: float,
    clock: Callable[[], datetime],
    sleep: Callable[[float], None],
) -> bool:
    """Whether every request that was accepted before the window's end is in the lake; waits for it up to `wait_s`."""
    began = clock()
    while True:
        reached = watermark(settings)
        if reached is None or reached >= microseconds(window.end):
            return True
        if (clock() - began).total_seconds() >= wait_s:
            return False
        sleep(LOOK_AGAIN_S)


def _judged(job: Job, case: Case, scorers: Sequence[Scorer], n: int, complete: bool, wait_s: float) -> Finding:
    """What the job finds; but of too little, or of a part, nothing is known. The metrics are kept either way."""
    if n == 0:
        return _unknown(Finding("unknown", ""), EMPTY, complete, wait_s)
    if case.reference is not None and case.reference.overlaps(case.window):
        return Finding(
            "unknown", f"the reference {case.reference} overlaps the window: rows would be compared with themselves"
        )
    found = job.judge(case, scorers)
    if n < case.min_n:
        return _unknown(found, f"{n} requests in the window, {case.min_n} are needed", complete, wait_s)
    return found if complete else _unknown(found, "", complete, wait_s)


def _unknown(found: Finding, reason: str, complete: bool, wait_s: float) -> Finding:
    if not complete:
        late = f"some requests of the window had not reached the lake after {wait_s:g} s; is `watchkeeper ship` running?"
        reason = f"{reason}, and {late}" if reason else late
    return Finding("unknown", reason, found.metrics, found.params, found.artifacts)


def _log(
    settings: Settings,
    evaluation: Evaluation,
    scorers: Sequence[Scorer],
    found: Finding,
    slot: Slot | None,
    min_n: int,
    began: datetime,
    ended: datetime,
) -> Evaluation:
    """Writes the run in MLflow; the evaluation with the run's id and address. A scheduled one's stays open."""
    tracking = Tracking(settings.mlflow.uri)
    experiment = f"{settings.mlflow.experiment}-jobs"
    params: dict[str, Any] = {
        "window_start": written(evaluation.window.start),
        "window_end": written(evaluation.window.end),
        "reference": str(evaluation.reference or "none"),
        "lake_version": evaluation.lake_version,
        "code_version": __version__,
        "scorer": ", ".join(map(identity, scorers)) or "none",
        "scorer_source": "; ".join(dict.fromkeys(scorer.source for scorer in scorers)) or "none",
        "min_n": min_n,
    }
    run_id = tracking.log_run(
        experiment,
        f"{evaluation.job} {evaluation.window}",
        params=params | dict(found.params),
        metrics={"n": evaluation.n, "scored": evaluation.scored, **found.metrics},
        tags={
            "verdict": found.verdict,
            "reason": found.reason,
            "job": evaluation.job,
            "evaluation_id": evaluation.evaluation_id,
            "scheduled": "true" if slot else "false",
        },
        artifacts=found.artifacts,
        started_at=began,
        ended_at=ended,
        finish=slot is None,
    )
    run_url = tracking.run_url(tracking.experiment_id(experiment), run_id)
    return msgspec.structs.replace(evaluation, mlflow_run_id=run_id, run_url=run_url)


def _judged_as(evaluation: Evaluation, found: Finding) -> alerts.Judged:
    return alerts.Judged(
        job=evaluation.job,
        evaluation_id=evaluation.evaluation_id,
        window=evaluation.window,
        verdict=evaluation.verdict,
        reason=evaluation.reason if found.plain is None else found.plain,
        metrics=evaluation.metrics,
        mlflow_run_id=evaluation.mlflow_run_id,
        run_url=evaluation.run_url,
    )


def _record(lake: Lake, evaluation: Evaluation, now: datetime, slot: Slot | None) -> bool:
    """The row in `evaluations`: from here on it counts as done. Whether it is ours: of a scheduled one, whose number was
    taken, another process wrote it."""
    row = evaluation_row(
        evaluation_id=evaluation.evaluation_id,
        job=evaluation.job,
        evaluated_at=now,
        window_start=evaluation.window.start,
        window_end=evaluation.window.end,
        lake_version=evaluation.lake_version,
        n=evaluation.n,
        verdict=evaluation.verdict,
        reason=evaluation.reason,
        metrics=evaluation.metrics,
        mlflow_run_id=evaluation.mlflow_run_id,
        judged_by=evaluation.judged_by,
        scheduled=slot is not None,
    )
    if slot is None:
        return lake.append("evaluations", row)
    if lake.append("evaluations", row, app_id=slot.app_id, version=slot.number):
        return True
    # An object store may have taken it and not said so: only the row tells.
    sql = "SELECT mlflow_run_id FROM evaluations WHERE evaluation_id = $id"
    return bool(lake.query(sql, {"id": slot.evaluation_id}).column(0).to_pylist() == [evaluation.mlflow_run_id])


def _close(settings: Settings, evaluation: Evaluation, recorded: bool, ended: datetime) -> None:
    """Finishes the run that the row names; one that no row names goes. What fails here, `open_runs.settle` makes up for."""
    tracking = Tracking(settings.mlflow.uri)
    try:
        if recorded:
            finish_run(tracking, evaluation.mlflow_run_id, ended)
        else:
            delete_run(tracking, evaluation.mlflow_run_id)
    except TrackingUnavailable as error:
        _log_line.warning("%s is recorded, but its run is still open: %s", evaluation.evaluation_id, error)
