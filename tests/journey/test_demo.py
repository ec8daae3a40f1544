"""`watchkeeper demo` as a script runs it: one JSON document whose counts agree with each other, with MLflow's own client
and with DuckDB on the lake's files; then `verify` over what it left."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import mlflow
import pytest
from deltalake import DeltaTable

from watchkeeper.settings import load

pytestmark = [pytest.mark.models, pytest.mark.servers]

REQUESTS = 60


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, module_port: Callable[[], int]) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("demo")
    ports = {
        "WATCHKEEPER_GATEWAY__PORT": str(module_port()),
        "WATCHKEEPER_DASHBOARD__PORT": str(module_port()),
        "WATCHKEEPER_MODEL__PORT": str(module_port()),
        "WATCHKEEPER_ENCODER__PORT": str(module_port()),
        "WATCHKEEPER_MLFLOW__URI": f"http://127.0.0.1:{module_port()}",
    }
    command = [sys.executable, "-m", "watchkeeper", "demo", "--requests", str(REQUESTS), "--exit", "--json"]
    done = subprocess.run(
        [*command, "--data", str(folder)], capture_output=True, text=True, timeout=900, env={**os.environ, **ports}
    )
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-2000:]
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.fixture(scope="module")
def mlflow_client(told: dict[str, Any], module_processes: Callable[..., Any]) -> Iterator[mlflow.MlflowClient]:
    """MLflow's own client on a server over what the demo left: it ended with the demo."""
    from watchkeeper.tracking import server_command

    settings = load(Path(told["config"]))
    command, env = server_command(settings, settings.data)
    process = module_processes(command, ready=f"{settings.mlflow.uri}/health", env=env)
    yield mlflow.MlflowClient(settings.mlflow.uri)
    process.stop()


def test_all_counts_are_what_the_clients_sent(told: dict[str, Any]) -> None:
    names = ("clients", "served", "spooled", "mlflow", "lake", "scored")
    assert {name: told[name] for name in names} == dict.fromkeys(names, REQUESTS)
    assert told["missing"] == {"mlflow": [], "lake": []}


def test_the_demo_shows_blocks_and_verdicts(told: dict[str, Any]) -> None:
    assert told["blocked"] > 0
    verdicts = [(evaluation["job"], evaluation["verdict"]) for evaluation in told["evaluations"]]
    assert [job for job, _ in verdicts] == ["toxicity", "toxicity", "drift"]
    assert {verdict for _, verdict in verdicts} <= {"pass", "warn", "fail", "unknown"}


def test_mlflows_own_client_counts_the_same(told: dict[str, Any], mlflow_client: mlflow.MlflowClient) -> None:
    experiment = mlflow_client.get_experiment_by_name("watchkeeper")
    assert experiment is not None
    traces = mlflow_client.search_traces(locations=[experiment.experiment_id], max_results=500)
    assert len({trace.info.trace_id for trace in traces}) == REQUESTS
    assert all(trace.info.status in ("OK", "ERROR") for trace in traces)


def test_a_blocked_request_is_found_by_its_tag(told: dict[str, Any], mlflow_client: mlflow.MlflowClient) -> None:
    experiment = mlflow_client.get_experiment_by_name("watchkeeper")
    assert experiment is not None
    blocked = mlflow_client.search_traces(
        locations=[experiment.experiment_id], filter_string="tags.`watchkeeper.action` = 'block'", max_results=500
    )
    assert len(blocked) == told["blocked"]


def test_each_job_is_a_run_with_metrics_and_reports(told: dict[str, Any], mlflow_client: mlflow.MlflowClient) -> None:
    for evaluation in told["evaluations"]:
        run = mlflow_client.get_run(evaluation["mlflow_run_id"])
        assert run.data.metrics["n"] == evaluation["n"]
        assert "lake_version" in run.data.params
        names = {artifact.path for artifact in mlflow_client.list_artifacts(run.info.run_id)}
        if evaluation["job"] == "drift" and evaluation["verdict"] != "unknown":
            assert any(name.endswith(".html") for name in names)
            assert any(name.endswith(".json") for name in names)


def test_duckdb_on_the_lakes_files_counts_the_same(told: dict[str, Any]) -> None:
    def count(table: str, what: str) -> int:
        files = DeltaTable(str(Path(told["data"]) / "lake" / table)).file_uris()
        row = duckdb.connect().execute(f"SELECT {what} FROM read_parquet(?, union_by_name = true)", [files]).fetchone()
        assert row is not None
        return int(row[0])

    assert count("interactions", "count(*)") == REQUESTS
    assert count("interactions", "count(DISTINCT request_id)") == REQUESTS
    assert count("scores", "count(DISTINCT request_id)") == REQUESTS
    assert count("rollups", "sum(n)") == REQUESTS
    assert count("evaluations", "count(*)") == 3


def test_verify_over_what_it_left_exits_0(told: dict[str, Any], mlflow_client: mlflow.MlflowClient) -> None:
    command = [sys.executable, "-m", "watchkeeper", "verify", "--scored", "--json", "--config", told["config"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["served"] == REQUESTS


def test_nothing_of_the_invented_personal_data_is_on_disk(told: dict[str, Any]) -> None:
    """Every byte under the data folder, MLflow's database and artifacts included."""
    planted = [b"martha.oakfield", b"4111 1111 1111 1111", b"AKIAIOSFODNN7EXAMPLE", b"DE89 3704 0044 0532 0130 00"]
    for path in Path(told["data"]).rglob("*"):
        if path.is_file():
            body = path.read_bytes()
            assert [text for text in planted if text in body] == [], path
