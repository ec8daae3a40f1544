"""An experiment: a frozen dataset replayed on some releases, every answer scored, everything logged.

    dataset, releases and scorers found → MLflow run begun → replay → answers and scores into the lake → under the run a run
    for each release, with its table and traces → rows in `experiments`

Those rows come last and say that it is done: what is cut off leaves a run that failed and answers that no page and no gate
will find. Run again it is a new experiment. Knows nothing of how releases are held against each other.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import pyarrow as pa

from watchkeeper import __version__
from watchkeeper.carrying import carrying
from watchkeeper.lake.experiments import Trial, trial_rows
from watchkeeper.lake.interactions import to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.tables import SCORES
from watchkeeper.record import Record
from watchkeeper.release import Release
from watchkeeper.settings import Settings
from watchkeeper.telemetry.otlp import export_request
from watchkeeper.tracking import Tracking
from watchkeeper.tracking.experiments import Input, Run, running
from watchkeeper.tracking.prompts import Releases
from watchkeeper_evaluations.dataset import Case, Dataset, load
from watchkeeper_evaluations.dataset.dataset import home
from watchkeeper_evaluations.replay import Progress, replay
from watchkeeper_evaluations.scorer import Scorer, identity, score
from watchkeeper_evaluations.scorers import all_scorers
from watchkeeper_evaluations.trial import Part, scored

TABLE: Final = "rows.json"
TRACES_A_REQUEST: Final = 100


class ExperimentImpossible(Exception):
    """What was asked for cannot be tried; the message is one line that says what to change."""


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """`cases`: how many there are; each release was asked each of them `repeats` times. `trials`: in the order in which the
    releases were named."""

    experiment_id: str
    started_at: datetime
    ended_at: datetime
    dataset: str
    dataset_digest: str
    cases: int
    repeats: int
    trials: tuple[Trial, ...]
    run_url: str


def utc_now() -> datetime:
    return datetime.now(UTC)


def run(
    settings: Settings,
    dataset: str,
    releases: Sequence[str],
    *,
    repeats: int = 1,
    progress: Progress = lambda done, total: None,
    now: datetime,
    clock: Callable[[], datetime] = utc_now,
) -> Experiment:
    """The experiment of these releases (each by id, version or alias) on the dataset of this name.

    Raises `ExperimentImpossible` and `ReplayImpossible`, what finding datasets and releases raises (`DatasetUnknown`,
    `DatasetChanged`, `ReleaseUnknown`, `ReleaseChanged`), what scoring raises (`WeightsMissing`, `JudgeUnavailable`,
    `ScorerBroken`), `TrackingUnavailable` and `LakeUnavailable`: all with one line.
    """
    tracking = Tracking(settings.mlflow.uri)
    with carrying(settings.data, "experiment"):
        cases = load(tracking, settings, dataset)
        if not cases.frozen:
            raise ExperimentImpossible(
                f"dataset {dataset!r} is not frozen, so its cases may change between two experiments: "
                f"freeze it with `watchkeeper dataset freeze {dataset}`"
            )
        if repeats < 1:
            raise ExperimentImpossible(f"every case is asked at least once, not {repeats} times")
        chosen = _chosen(Releases(tracking, settings.mlflow.prompt), releases)
        scorers = all_scorers(settings)
        return try_out(settings, tracking, cases, chosen, scorers, repeats=repeats, progress=progress, now=now, clock=clock)


def _chosen(known: Releases, named: Sequence[str]) -> list[Release]:
    """Each once: two names of one release would compare it with itself."""
    found: dict[str, tuple[str, Release]] = {}
    for name in named:
        release = known.get(name)
        if release.id in found:
            raise ExperimentImpossible(f"{found[release.id][0]} and {name} are the same release, {release.id}")
        found[release.id] = (name, release)
    if not found:
        raise ExperimentImpossible("name at least one release")
    return [release for _, release in found.values()]


def try_out(
    settings: Settings,
    tracking: Tracking,
    dataset: Dataset,
    releases: Sequence[Release],
    scorers: Sequence[Scorer],
    *,
    repeats: int,
    progress: Progress,
    now: datetime,
    clock: Callable[[], datetime],
) -> Experiment:
    """`run`, once everything has been found."""
    experiment_id = f"experiment-{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    used = Input(dataset.dataset_id, dataset.name, dataset.digest, len(dataset.cases))
    common = {
        "dataset": dataset.name,
        "dataset_digest": dataset.digest,
        "cases": len(dataset.cases),
        "repeats": repeats,
        "code_version": __version__,
        "scorers": ", ".join(map(identity, scorers)),
    }
    tags = {"experiment_id": experiment_id}
    lake = Lake(settings.lake_uri, settings.lake.storage_options)
    name = f"{dataset.name}: {', '.join(release.id for release in releases)}"
    with running(tracking, home(settings), name, tags=tags, clock=clock, dataset=used) as parent:
        parent.log(params=common | {"releases": ", ".join(release.id for release in releases)})
        records = replay(
            settings,
            dataset.cases,
            releases,
            tags={"experiment": experiment_id, "dataset": dataset.name},
            repeats=repeats,
            progress=progress,
        )
        scores = _into_the_lake(lake, records, dataset, scorers, experiment_id, clock)
        parts = _parts(records, releases, dataset, scores, scorers)
        ended = clock()
        trials = []
        for part in parts:
            with running(
                tracking,
                home(settings),
                part.release.id,
                tags=tags | {"release": part.release.id, "digest": part.release.digest},
                clock=clock,
                parent=parent,
                dataset=used,
                prompt=(part.release.name, part.release.version),
            ) as child:
                _log(child, part, common)
            trials.append(_trial(part, experiment_id, dataset, now, ended, child, parent))
        parent.table(TABLE, _stacked(parts))
        lake.append("experiments", trial_rows(trials))
    return Experiment(
        experiment_id=experiment_id,
        started_at=now,
        ended_at=ended,
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        cases=len(dataset.cases),
        repeats=repeats,
        trials=tuple(trials),
        run_url=parent.url,
    )


def _into_the_lake(
    lake: Lake,
    records: Sequence[Record],
    dataset: Dataset,
    scorers: Sequence[Scorer],
    experiment_id: str,
    clock: Callable[[], datetime],
) -> pa.Table:
    """Writes the answers, scores them, writes the scores; the scores. Replays have no rollups."""
    rows = to_arrow(records)
    lake.append("interactions", rows)
    references = {case.case_id: case.reference for case in dataset.cases}
    expected = pa.array([references[record.tags["case"]] for record in records], pa.string())
    batch = rows.append_column("reference", expected)
    columns = ("request_id", "received_at")
    tables = [
        score(
            scorer,
            batch.select(list(dict.fromkeys((*columns, *scorer.columns)))),
            scored_at=clock(),
            evaluation_id=experiment_id,
            replay=True,
        )
        for scorer in scorers
    ]
    scores = pa.concat_tables(tables) if tables else SCORES.empty_table()
    lake.append("scores", scores)
    return scores


def _parts(
    records: Sequence[Record], releases: Sequence[Release], dataset: Dataset, scores: pa.Table, scorers: Sequence[Scorer]
) -> list[Part]:
    cases: dict[str, Case] = {case.case_id: case for case in dataset.cases}
    names = [each.name for scorer in scorers for each in scorer.scores]
    found = scored(scores)
    return [
        Part(release, [record for record in records if record.release == release.id], cases, found, names)
        for release in releases
    ]


def _log(run: Run, part: Part, common: Mapping[str, Any]) -> None:
    """Parameters, metrics, table and traces of one release's run."""
    metrics = part.metrics() | {"n": len(part.records), "failed": part.failed}
    run.log(params={**common, **_parameters(part.release)}, metrics=metrics)
    run.table(TABLE, part.columns())
    for start in range(0, len(part.records), TRACES_A_REQUEST):
        records = part.records[start : start + TRACES_A_REQUEST]
        run.traces(export_request(records), [record.request_id for record in records])


def _parameters(release: Release) -> dict[str, Any]:
    """Everything that decides how a release behaves, flat: `parameters.temperature`, `policies.pii.action`."""

    def flat(plain: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in plain.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    plain = msgspec.to_builtins(msgspec.structs.replace(release, name="", version=0))
    told = {key: value for key, value in flat(plain, "") if key not in ("name", "version")}
    return {"release": release.id, "digest": release.digest, **told}


def _trial(
    part: Part, experiment_id: str, dataset: Dataset, began: datetime, ended: datetime, child: Run, parent: Run
) -> Trial:
    return Trial(
        experiment_id=experiment_id,
        started_at=began,
        ended_at=ended,
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        release=part.release.id,
        digest=part.release.digest,
        n=len(part.records),
        failed=part.failed,
        metrics=part.metrics(),
        mlflow_run_id=child.run_id,
        mlflow_parent_id=parent.run_id,
    )


def _stacked(parts: Sequence[Part]) -> dict[str, list[Any]]:
    """The tables of all releases as one."""
    tables = [part.columns() for part in parts]
    return {name: [value for table in tables for value in table[name]] for name in tables[0]}
