"""Experiments as `experiment run` does them: real loop, real lake, a real MLflow read back by its own client."""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from mlflow import MlflowClient
from numpy.typing import NDArray

from watchkeeper.lake import experiments
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Message
from watchkeeper.release import BUILTIN, Parameters
from watchkeeper.settings import Mlflow, Settings, Stages, Upstream
from watchkeeper.tracking import Tracking, TrackingUnavailable, server_command
from watchkeeper.tracking.prompts import Releases, ReleaseUnknown
from watchkeeper_evaluations.dataset import Case, DatasetUnknown, create
from watchkeeper_evaluations.dataset.dataset import home
from watchkeeper_evaluations.experiment import Experiment, ExperimentImpossible, run

REFERENCED = [
    Case(
        messages=(Message("user", f"What is the limit of plan {n}?"),),
        reference=f"The limit is {n} euros.",
        session=f"s{n}",
    )
    for n in range(5)
]
CASES = (*REFERENCED, Case(messages=(Message("user", "Who are you?"),), session="s0"))

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


class Judge:
    version, source = "judge-1", "weights of a test"

    def score(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        return {"toxicity": np.array([0.9 if "vile" in text else 0.1 for text in texts], np.float32)}


@pytest.fixture(scope="module")
def uri(
    module_processes: Callable[..., Any], module_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """An MLflow with two releases; the second one answers with the limit."""
    data = tmp_path_factory.mktemp("mlflow")
    settings = Settings(data=data, mlflow=Mlflow(uri=f"http://127.0.0.1:{module_port()}"))
    argv, env = server_command(settings, data)
    process = module_processes(argv, ready=f"{settings.mlflow.uri}/health", env=env)
    releases = Releases(Tracking(settings.mlflow.uri), settings.mlflow.prompt)
    releases.promote(releases.register(msgspec.structs.replace(BUILTIN, template="Be vague."), "what serves"))
    better = msgspec.structs.replace(BUILTIN, template="Name the limit.", parameters=Parameters(temperature=0.0))
    releases.register(better, "names limits")
    yield settings.mlflow.uri
    process.stop()


@pytest.fixture
def settings(uri: str, tmp_path: Path, upstreams: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An upstream that follows its prompt, and fails on the question who it is."""
    monkeypatch.setattr("watchkeeper_evaluations.toxicity.load", lambda settings: Judge())
    upstream = upstreams()

    def say(messages: list[dict[str, Any]]) -> list[str]:
        asked = messages[-1]["content"]
        if "Who are you" in asked:
            raise ConnectionAbortedError
        return [f"The limit is {asked[-2]} euros." if "Name" in messages[0]["content"] else "It depends on vile things."]

    upstream.say = say
    return Settings(
        data=tmp_path,
        mlflow=Mlflow(uri=uri),
        stages=Stages(embed=False),
        upstreams=(Upstream(name="scripted", base_url=upstream.url, model="scripted"),),
    )


def dataset(settings: Settings, name: str, cases: Sequence[Case] = CASES, *, frozen: bool = True) -> str:
    create(Tracking(settings.mlflow.uri), settings, name, cases, frozen=frozen)
    return name


def done(settings: Settings, name: str, *releases: str, **more: Any) -> Experiment:
    return run(settings, name, releases or ("watchkeeper@1", "watchkeeper@2"), now=datetime.now(UTC), **more)


def test_an_experiment_is_replayed_scored_logged_and_recorded(settings: Settings, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = done(settings, dataset(settings, "limits"), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12)
    assert found.experiment_id.startswith("experiment-")
    assert (found.dataset, found.cases) == ("limits", 6)
    base, candidate = found.trials
    assert (base.release, candidate.release) == ("watchkeeper@1", "watchkeeper@2")
    assert [(trial.n, trial.failed) for trial in found.trials] == [(6, 1), (6, 1)]
    assert candidate.metrics["reference_f1"] == 1.0
    assert base.metrics["reference_f1"] < 0.5
    assert base.metrics["toxicity.output"] == pytest.approx(0.9)
    assert base.metrics["total_ms.p50"] > 0

    lake = Lake(settings.lake_uri)
    assert experiments.trials(lake, found.experiment_id) == [base, candidate]
    answers = experiments.answers(lake, found.experiment_id)
    assert {(each.release, each.case_id) for each in answers} == {
        (trial.release, case.case_id) for trial in found.trials for case in CASES
    }
    assert {each.session for each in answers} == {f"s{n}" for n in range(5)}
    scores = {name for each in answers for name in each.scores}
    assert {"grounded", "refusal", "reference_f1", "toxicity.output", "readability"} <= scores
    (unreferenced,) = (each for each in answers if each.release == candidate.release and "Who" in each.prompt)
    assert unreferenced.failed
    assert unreferenced.scores["reference_f1"].value is None
    assert lake.query("SELECT count(*) AS n FROM rollups").to_pylist() == [{"n": 0}]
    assert lake.query("SELECT DISTINCT replay, evaluation_id FROM scores").to_pylist() == [
        {"replay": True, "evaluation_id": found.experiment_id}
    ]
    assert not (tmp_path / "spool").exists()
    assert not (tmp_path / "sessions.sqlite").exists()


def test_mlflow_shows_all_of_it(settings: Settings, tmp_path: Path) -> None:
    found = done(settings, dataset(settings, "shown"))
    client = MlflowClient(settings.mlflow.uri)
    place = Tracking(settings.mlflow.uri).experiment_id(home(settings))
    parent = client.get_run(found.trials[0].mlflow_parent_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["dataset_digest"] == found.dataset_digest
    assert parent.data.tags["experiment_id"] == found.experiment_id
    children = client.search_runs([place], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {run.info.run_name: run.info.status for run in children} == {
        "watchkeeper@1": "FINISHED",
        "watchkeeper@2": "FINISHED",
    }
    candidate = client.get_run(found.trials[1].mlflow_run_id)
    assert candidate.data.metrics["reference_f1"] == 1.0
    assert (candidate.data.metrics["n"], candidate.data.metrics["failed"]) == (6, 1)
    assert candidate.data.params["template"] == "Name the limit."
    assert candidate.data.params["parameters.temperature"] == "0.0"
    assert candidate.data.params["policies.pii.action"] == "redact"
    assert "toxicity@judge-1" in candidate.data.params["scorers"]
    assert json.loads(candidate.data.tags["mlflow.linkedPrompts"]) == [{"name": "watchkeeper", "version": "2"}]
    for run_ in (parent, candidate):
        assert run_.inputs is not None
        (used,) = run_.inputs.dataset_inputs
        assert (used.dataset.name, used.dataset.digest) == ("shown", found.dataset_digest[:36])
    folder = tmp_path / "artifacts"
    for run_, rows in ((parent, 12), (candidate, 6)):
        client.download_artifacts(run_.info.run_id, "rows.json", str(folder / run_.info.run_id))
        table = json.loads((folder / run_.info.run_id / "rows.json").read_text())
        assert {"case_id", "prompt", "reference", "answer", "status", "reference_f1", "request_id"} <= set(table["columns"])
        assert len(table["data"]) == rows
    traces = client.search_traces(locations=[place], run_id=candidate.info.run_id, include_spans=False)
    at = table["columns"].index("request_id")
    assert {trace.info.trace_id for trace in traces} == {f"tr-{row[at]}" for row in table["data"]}


def test_what_breaks_in_the_middle_is_taken_for_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers are there, and no page will ever find them: the row in `experiments` comes last."""
    name = dataset(settings, "broken")

    def broken(self: Any, name: str, columns: Any) -> None:
        raise TrackingUnavailable("MLflow went away")

    with monkeypatch.context() as patch:
        patch.setattr("watchkeeper.tracking.experiments.Run.table", broken)
        with pytest.raises(TrackingUnavailable, match="went away"):
            done(settings, name)
    lake = Lake(settings.lake_uri)
    (row,) = lake.query("SELECT DISTINCT evaluation_id FROM scores").to_pylist()
    assert experiments.answers(lake, row["evaluation_id"]) == []
    assert experiments.newest_trials(lake) == []
    client = MlflowClient(settings.mlflow.uri)
    place = Tracking(settings.mlflow.uri).experiment_id(home(settings))
    runs = client.search_runs([place], f"tags.experiment_id = '{row['evaluation_id']}'")
    assert [run.info.status for run in runs] == ["FAILED", "FAILED"], "the parent, and the child that broke"
    again = done(settings, name)
    assert again.experiment_id != row["evaluation_id"]
    assert len(experiments.answers(lake, again.experiment_id)) == 12


def test_repeats_are_kept_apart(settings: Settings) -> None:
    found = done(settings, dataset(settings, "twice", CASES[:2]), "champion", repeats=2)
    answers = experiments.answers(Lake(settings.lake_uri), found.experiment_id)
    assert sorted((each.case_id, each.repeat) for each in answers) == sorted(
        (case.case_id, repeat) for case in CASES[:2] for repeat in (0, 1)
    )
    assert found.trials[0].n == 4


def test_what_cannot_be_tried_is_said_before_anything_is(settings: Settings) -> None:
    loose = dataset(settings, "loose", frozen=False)
    with pytest.raises(ExperimentImpossible, match="freeze it with `watchkeeper dataset freeze loose`"):
        done(settings, loose)
    frozen = dataset(settings, "fixed")
    with pytest.raises(ReleaseUnknown, match="no release 'watchkeeper@9'; there is watchkeeper@2, watchkeeper@1"):
        done(settings, frozen, "watchkeeper@9")
    with pytest.raises(ExperimentImpossible, match="champion and watchkeeper@1 are the same release, watchkeeper@1"):
        done(settings, frozen, "champion", "watchkeeper@1")
    with pytest.raises(ExperimentImpossible, match="at least once"):
        done(settings, frozen, repeats=0)
    with pytest.raises(DatasetUnknown, match="'nothing'"):
        done(settings, "nothing")
    assert not Path(settings.lake_uri).exists()
