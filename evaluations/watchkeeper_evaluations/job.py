"""What an evaluation does, in order: wait, score, judge, log, record. The jobs are the tuple below.

    wait for the watermark → score the rows that lack scorer@version → judge the window → flagged scores onto their traces
    → MLflow run → row in `evaluations`

Every step may be the last before a crash: run it again and nothing is scored twice or forgotten (scores.py). An
evaluation counts as done when its row is in `evaluations`, and that comes last: with MLflow away the scores stay,
`TrackingUnavailable` says so, and there is no row. Knows nothing of what a job scores, nor of its rules.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from watchkeeper import __version__
from watchkeeper.lake.interactions import evaluation_row, microseconds
from watchkeeper.lake.lake import Lake
from watchkeeper.settings import Settings
from watchkeeper.telemetry.ledger import watermark
from watchkeeper.tracking import Tracking
from watchkeeper.tracking.assessments import Assessments
from watchkeeper_evaluations.assessments import assess
from watchkeeper_evaluations.case import Case, Finding, Verdict
from watchkeeper_evaluations.drift import Drift
from watchkeeper_evaluations.scorer import Scorer, identity
from watchkeeper_evaluations.scores import score_window
from watchkeeper_evaluations.toxic_share import ToxicShare
from watchkeeper_evaluations.window import Window, written

WAIT_S: Final = 30.0
LOOK_AGAIN_S: Final = 0.5


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


_ALL: Final[tuple[Job, ...]] = (ToxicShare(), Drift())
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
) -> Evaluation:
    """Scores and judges one window.

    `reference`: what drift compares with (None: the window before). `wait_s`: how long requests of the window may still be
    on their way to the lake; after that the verdict is unknown. Raises `ValueError` for a job that is not there,
    `TrackingUnavailable`, `LakeUnavailable`, `ScorerBroken`, and what loading the scorer raises (`WeightsMissing`,
    `JudgeUnavailable`): all with one line.
    """
    chosen = JOBS.get(job)
    if chosen is None:
        raise ValueError(f"there is no job {job!r}; there is {', '.join(JOBS)}")
    evaluation_id = f"{job}-{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    complete = _wait(settings, window, wait_s, clock, sleep)
    lake = Lake(settings.lake_uri, settings.lake.storage_options)
    against = (reference or window.previous) if chosen.compares else None
    case = Case(lake, window, against, lake.version("interactions"), settings.evaluations.min_n)
    n = case.rows(window)
    scorers = chosen.scorers(settings) if n else ()
    scored = max(
        (
            score_window(lake, scorer, window, evaluation_id=evaluation_id, clock=clock, version=case.version)
            for scorer in scorers
        ),
        default=0,
    )
    found = _judged(chosen, case, scorers, n, complete, wait_s)
    if scorers:
        mlflow = Assessments(Tracking(settings.mlflow.uri))
        assessed = assess(lake, mlflow, scorers, window, evaluation_id=evaluation_id, at=clock())
        found = replace(found, metrics={**found.metrics, "assessed": assessed.made, "assessed_later": assessed.left})
    evaluation = Evaluation(
        evaluation_id=evaluation_id,
        job=job,
        window=window,
        reference=against,
        n=n,
        scored=scored,
        verdict=found.verdict,
        reason=found.reason,
        metrics=dict(found.metrics),
        lake_version=case.version,
        judged_by=" ".join([f"{chosen.name}@{chosen.version}", *map(identity, scorers)]),
    )
    evaluation = _log(settings, evaluation, scorers, found, now, max(now, clock()))
    _record(lake, evaluation, now)
    return evaluation


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
        return _unknown(Finding("unknown", ""), "there are no requests in the window", complete, wait_s)
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
    began: datetime,
    ended: datetime,
) -> Evaluation:
    """Writes the run in MLflow; the evaluation with the run's id and address."""
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
        "min_n": settings.evaluations.min_n,
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
        },
        artifacts=found.artifacts,
        started_at=began,
        ended_at=ended,
    )
    run_url = tracking.run_url(tracking.experiment_id(experiment), run_id)
    return msgspec.structs.replace(evaluation, mlflow_run_id=run_id, run_url=run_url)


def _record(lake: Lake, evaluation: Evaluation, now: datetime) -> None:
    """The row in `evaluations`: from here on it counts as done."""
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
    )
    lake.append("evaluations", row)
