"""What an evaluation does, as the command line would ask for it: a real lake, a judge that stands in for Detoxify."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import requests
from numpy.typing import NDArray

import watchkeeper_evaluations.job as module
from watchkeeper.lake.interactions import microseconds, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Origin, Record, Verdict
from watchkeeper.settings import Mlflow, Settings, Stages
from watchkeeper.tracking import Tracking, TrackingUnavailable, server_command
from watchkeeper.tracking.assessments import Assessment, Held
from watchkeeper_evaluations.job import JOBS, Evaluation, evaluate
from watchkeeper_evaluations.window import Window

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = Window(NOON, NOON + HOUR)


class Judge:
    version, source = "judge-1", "weights of a test"

    def score(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        return {"toxicity": np.array([0.9 if "vile" in text else 0.1 for text in texts], np.float32)}


class Runs:
    """MLflow that keeps runs and assessments in memory, or is away. It has a trace of every request but those in
    `traceless`."""

    def __init__(self) -> None:
        self.away = False
        self.runs: list[dict[str, Any]] = []
        self.assessments: list[Assessment] = []
        self.traceless: set[str] = set()

    def held(self, request_ids: Iterable[str]) -> dict[str, list[Held]]:
        names = set(request_ids) - self.traceless
        return {
            name: [Held(one.name, dict(one.metadata)) for one in self.assessments if one.request_id == name]
            for name in names
        }

    def create(self, assessment: Assessment) -> None:
        self.assessments.append(assessment)

    def __call__(self, _: object) -> "Runs":
        return self

    def experiment_id(self, name: str) -> str:
        return name

    def log_run(self, experiment: str, run_name: str, **said: Any) -> str:
        if self.away:
            raise TrackingUnavailable("MLflow does not answer")
        self.runs.append({"experiment": experiment, "name": run_name, **said})
        return f"run-{len(self.runs)}"

    def run_url(self, experiment_id: str, run_id: str) -> str:
        return f"{experiment_id}/{run_id}"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(module, "Tracking", runs)
    monkeypatch.setattr(module, "Assessments", runs)
    return runs


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("watchkeeper_evaluations.toxicity.load", lambda settings: Judge())
    """Without an encoder, and so without relevance."""
    return Settings(data=tmp_path, stages=Stages(embed=False))


def fill(settings: Settings, start: int, stop: int, *, output: str = "fine", source: Origin = "gateway") -> None:
    records = [
        Record(
            request_id=f"{number:032x}",
            received_at=microseconds(NOON + timedelta(seconds=number)),
            prompt_text=f"hello {number % 50}",
            output_text=output,
            source=source,
            verdicts=(Verdict("pii", "output", "none", "pass", None, "", "1"),),
        )
        for number in range(start, stop)
    ]
    Lake(settings.lake_uri).append("interactions", to_arrow(records))


def rows(settings: Settings, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Lake(settings.lake_uri).query(f"SELECT * FROM {table}").to_pylist()
    return found


def run(settings: Settings, job: str = "toxicity", **more: Any) -> Evaluation:
    return evaluate(settings, job, WINDOW, now=NOON + HOUR, **more)


def test_an_evaluation_is_scored_judged_logged_and_recorded(settings: Settings, runs: Runs) -> None:
    fill(settings, 0, 38)
    fill(settings, 38, 40, output="vile")
    done = run(settings)
    assert (done.n, done.scored, done.verdict) == (40, 40, "warn")
    assert done.metrics["toxicity.output.share"] == 0.05
    logged = runs.runs[0]
    assert logged["experiment"] == "watchkeeper-jobs"
    assert logged["tags"]["verdict"] == "warn"
    assert logged["params"]["window_start"] == "2026-04-01T12:00:00Z"
    assert logged["params"]["scorer"] == "toxicity@judge-1"
    assert logged["params"]["scorer_source"] == "weights of a test"
    assert logged["params"]["lake_version"] == Lake(settings.lake_uri).version("interactions")
    assert set(logged["artifacts"]) == {"report.html", "report.json"}
    recorded = rows(settings, "evaluations")[0]
    assert recorded["evaluation_id"] == done.evaluation_id
    assert recorded["mlflow_run_id"] == done.mlflow_run_id == "run-1"
    assert recorded["reason"] == done.reason
    assert msgspec.json.decode(recorded["metrics"]) == done.metrics
    assert {row["evaluation_id"] for row in rows(settings, "scores")} == {done.evaluation_id}
    assert msgspec.json.decode(msgspec.json.encode(done))["window"]["start"] == "2026-04-01T12:00:00Z"


def test_again_nothing_is_scored_twice_and_the_whole_window_is_judged(settings: Settings, runs: Runs) -> None:
    fill(settings, 0, 40)
    first = run(settings)
    fill(settings, 40, 50)
    second = run(settings)
    assert (first.scored, second.scored) == (40, 10)
    assert (first.n, second.n) == (40, 50)
    assert second.metrics["toxicity.output.n"] == 50


def test_flagged_scores_are_assessed_once_and_what_has_no_trace_yet_the_next_time(settings: Settings, runs: Runs) -> None:
    fill(settings, 0, 38)
    fill(settings, 38, 40, output="vile")
    runs.traceless = {f"{38:032x}"}
    first = run(settings)
    assert (first.metrics["assessed"], first.metrics["assessed_later"]) == (1, 1)
    assert runs.runs[0]["metrics"]["assessed"] == 1
    (one,) = runs.assessments
    assert (one.request_id, one.name, one.kind, one.source) == (f"{39:032x}", "toxicity.output", "CODE", "toxicity@judge-1")
    assert one.metadata["watchkeeper.evaluation_id"] == first.evaluation_id
    runs.traceless = set()
    assert run(settings).metrics["assessed"] == 1
    assert run(settings).metrics["assessed"] == 0
    assert sorted(one.request_id for one in runs.assessments) == [f"{38:032x}", f"{39:032x}"]


def test_too_few_are_scored_all_the_same_and_unknown(settings: Settings, runs: Runs) -> None:
    fill(settings, 0, 5)
    done = run(settings)
    assert (done.verdict, done.n, done.scored) == ("unknown", 5, 5)
    assert done.reason == "5 requests in the window, 30 are needed"
    assert done.metrics["toxicity.output.n"] == 5


@pytest.mark.parametrize("job", list(JOBS))
def test_an_empty_window_is_unknown(settings: Settings, runs: Runs, job: str) -> None:
    done = run(settings, job)
    assert (done.verdict, done.n) == ("unknown", 0)
    assert len(rows(settings, "evaluations")) == 1


def test_replays_are_left_out(settings: Settings, runs: Runs) -> None:
    fill(settings, 0, 40)
    fill(settings, 40, 60, source="replay")
    assert run(settings).n == 40
    assert len({row["request_id"] for row in rows(settings, "scores")}) == 40


def test_with_mlflow_away_scores_stay_and_the_next_one_completes(settings: Settings, runs: Runs) -> None:
    fill(settings, 0, 40)
    runs.away = True
    with pytest.raises(TrackingUnavailable, match="does not answer"):
        run(settings)
    assert len(rows(settings, "scores")) == 80
    assert rows(settings, "evaluations") == []
    runs.away = False
    done = run(settings)
    assert (done.scored, done.verdict) == (0, "pass")
    assert len(rows(settings, "scores")) == 80
    assert len(rows(settings, "evaluations")) == 1


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = NOON + HOUR

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def test_it_waits_until_the_window_has_reached_the_lake(
    settings: Settings, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()

    def watermark(settings: Settings) -> int | None:
        if clock.now < NOON + HOUR + timedelta(seconds=5):
            return microseconds(WINDOW.end) - 1
        if not rows(settings, "interactions"):
            fill(settings, 0, 40)
        return microseconds(WINDOW.end)

    monkeypatch.setattr(module, "watermark", watermark)
    done = run(settings, wait_s=20, clock=clock, sleep=clock.sleep)
    assert (done.verdict, done.n) == ("pass", 40)


def test_a_window_that_never_gets_there_is_unknown_but_scored(
    settings: Settings, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    fill(settings, 0, 40)
    monkeypatch.setattr(module, "watermark", lambda settings: microseconds(NOON))
    done = run(settings, wait_s=20, clock=clock, sleep=clock.sleep)
    assert (done.verdict, done.scored) == ("unknown", 40)
    assert "had not reached the lake after 20 s" in done.reason
    assert clock.now == NOON + HOUR + timedelta(seconds=20)


def test_a_job_that_is_not_there_names_those_that_are(settings: Settings) -> None:
    with pytest.raises(ValueError, match="no job 'astrology'; there is toxicity, quality, safety, latency, drift"):
        run(settings, "astrology")


def test_drift_compares_with_the_window_before(settings: Settings, runs: Runs) -> None:
    fill(settings, 0, 40)
    done = run(settings, "drift")
    assert done.reference == WINDOW.previous
    assert done.verdict == "unknown"
    assert runs.runs[0]["params"]["reference"] == str(WINDOW.previous)
    assert run(settings, "toxicity").reference is None


def test_a_verdict_that_turns_is_an_alert_and_comes_back(settings: Settings, runs: Runs) -> None:
    fill(settings, 0, 40, output="vile")
    failed = run(settings)
    (fired,) = rows(settings, "alerts")
    assert (failed.verdict, fired["event"], fired["evaluation_id"]) == ("fail", "fired", failed.evaluation_id)
    assert (fired["reason"], fired["job"]) == (failed.reason, "toxicity")
    assert msgspec.json.decode(fired["evidence"])["run_url"] == failed.run_url
    run(settings)
    assert len(rows(settings, "alerts")) == 1
    fill(settings, 3600, 3640)
    later = Window(WINDOW.end, WINDOW.end + HOUR)
    assert evaluate(settings, "toxicity", later, now=later.end).verdict == "pass"
    assert sorted(row["event"] for row in rows(settings, "alerts")) == ["fired", "resolved"]


def test_an_alert_has_no_words_of_users(settings: Settings, runs: Runs) -> None:
    def say(start: int, text: str) -> None:
        at = [microseconds(NOON + timedelta(seconds=start + number)) for number in range(100)]
        records = [
            Record(request_id=f"{t:032x}", received_at=t, prompt_text=f"{text} {t % 7}", output_text="fine") for t in at
        ]
        Lake(settings.lake_uri).append("interactions", to_arrow(records))

    say(-3600, "how many days of holiday are left")
    say(0, "the diagnosis of my illness")
    done = run(settings, "drift")
    assert done.verdict == "fail"
    assert "diagnosis" in done.reason
    (fired,) = rows(settings, "alerts")
    assert "prompt_text (AUC" in fired["reason"]
    assert "diagnosis" not in str(fired)


def test_a_reference_that_overlaps_the_window_is_no_evidence(settings: Settings, runs: Runs) -> None:
    fill(settings, 0, 40)
    done = run(settings, "drift", reference=Window(NOON - HOUR, NOON + timedelta(minutes=1)))
    assert done.verdict == "unknown"
    assert "compared with themselves" in done.reason


@pytest.mark.servers
def test_with_a_real_mlflow_and_evidently(
    settings: Settings, tmp_path: Path, free_port: Callable[[], int], run_process: Callable[..., Any]
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    settings = settings.model_copy(update={"mlflow": Mlflow(uri=uri)})
    argv, environment = server_command(settings, tmp_path)
    run_process(argv, ready=f"{uri}/health", env={**os.environ, **environment})
    fill(settings, -3600, -3500)
    fill(settings, 0, 100)
    for job in JOBS:
        done = run(settings, job)
        assert done.verdict == "pass", done.reason
        logged = _run(uri, done.mlflow_run_id)
        assert logged["info"]["status"] == "FINISHED"
        tags = {tag["key"]: tag["value"] for tag in logged["data"]["tags"]}
        assert (tags["verdict"], tags["evaluation_id"]) == ("pass", done.evaluation_id)
        assert {"n", "scored"} <= {metric["key"] for metric in logged["data"]["metrics"]}
        listed = requests.get(f"{uri}/api/2.0/mlflow/artifacts/list", {"run_id": done.mlflow_run_id}, timeout=10).json()
        sizes = {file["path"]: int(file["file_size"]) for file in listed["files"]}
        assert set(sizes) == {"report.html", "report.json"}
        assert min(sizes.values()) > 500
        assert done.run_url == Tracking(uri).run_url(logged["info"]["experiment_id"], done.mlflow_run_id)


def _run(uri: str, run_id: str) -> Mapping[str, Any]:
    answer = requests.get(f"{uri}/api/2.0/mlflow/runs/get", {"run_id": run_id}, timeout=10)
    found: Mapping[str, Any] = answer.json()["run"]
    return found
