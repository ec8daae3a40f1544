"""Runs that were left open, on a real server; and what the schedule makes of them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from watchkeeper.lake.interactions import evaluation_row
from watchkeeper.lake.lake import Lake
from watchkeeper.settings import Mlflow, Settings
from watchkeeper.tracking import Tracking, TrackingUnavailable
from watchkeeper.tracking.unfinished import delete_run, finish_run, unfinished_runs
from watchkeeper_evaluations.open_runs import settle

pytestmark = pytest.mark.servers

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
EXPERIMENT = "watchkeeper-jobs"


@pytest.fixture
def settings(mlflow_uri: str, tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, mlflow=Mlflow(uri=mlflow_uri))


def log(settings: Settings, evaluation_id: str, *, job: str, finish: bool = False) -> str:
    return Tracking(settings.mlflow.uri).log_run(
        EXPERIMENT, evaluation_id, params={}, metrics={"n": 1}, artifacts={}, started_at=NOON, ended_at=NOON, finish=finish,
        tags={"job": job, "scheduled": "true", "evaluation_id": evaluation_id},
    )  # fmt: skip


def run(settings: Settings, run_id: str) -> dict[str, Any]:
    url = f"{settings.mlflow.uri}/api/2.0/mlflow/runs/get"
    info: dict[str, Any] = requests.get(url, {"run_id": run_id}, timeout=10).json()["run"]["info"]
    return info


def left(settings: Settings, job: str) -> dict[str, str]:
    tags = {"job": job, "scheduled": "true"}
    return unfinished_runs(Tracking(settings.mlflow.uri), EXPERIMENT, tags, "evaluation_id")


def test_open_runs_are_found_finished_and_deleted(settings: Settings) -> None:
    assert left(settings, "drift") == {}
    first, second = log(settings, "a", job="drift"), log(settings, "b", job="drift")
    log(settings, "c", job="drift", finish=True)
    log(settings, "d", job="latency")
    assert left(settings, "drift") == {first: "a", second: "b"}
    tracking = Tracking(settings.mlflow.uri)
    for _ in range(2):
        finish_run(tracking, first, NOON + timedelta(seconds=5))
    info = run(settings, first)
    assert (info["status"], info["end_time"]) == ("FINISHED", int((NOON.timestamp() + 5) * 1000))
    delete_run(tracking, second)
    assert left(settings, "drift") == {}
    assert run(settings, second)["lifecycle_stage"] == "deleted"


def test_a_run_that_a_row_names_is_finished_another_goes_and_one_without_a_row_waits(settings: Settings) -> None:
    named, other, waiting = (log(settings, name, job="quality") for name in ("done", "done", "begun"))
    lake = Lake(settings.lake_uri)
    row = evaluation_row(
        evaluation_id="done", job="quality", evaluated_at=NOON, window_start=NOON, window_end=NOON + timedelta(hours=1),
        lake_version=1, n=1, verdict="pass", metrics={}, mlflow_run_id=named,
    )  # fmt: skip
    lake.append("evaluations", row)
    settle(settings, lake, "quality", NOON)
    assert run(settings, named)["status"] == "FINISHED"
    assert run(settings, other)["lifecycle_stage"] == "deleted"
    assert left(settings, "quality") == {waiting: "begun"}


def test_a_server_that_is_away_says_so(free_port: Callable[[], int]) -> None:
    tracking = Tracking(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TrackingUnavailable, match="does not answer"):
        finish_run(tracking, "x", NOON)
    with pytest.raises(TrackingUnavailable, match="does not answer"):
        delete_run(tracking, "x")
