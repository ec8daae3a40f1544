"""`watchkeeper demo` as a script runs it, and with it the whole story: from a prompt to a verdict, from failing answers to
a dataset, an experiment, a gate and a promotion, and to better answers. Its one JSON document agrees with MLflow's own
client and with DuckDB on the lake's files. Then the reverse: on what it left, a worse candidate is stopped."""

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

import watchkeeper
from watchkeeper.settings import load

pytestmark = [pytest.mark.models, pytest.mark.servers, pytest.mark.alone]

REQUESTS = 180
FIRST, BETTER = "watchkeeper@1", "watchkeeper@2"
JOBS = ("toxicity", "quality", "safety", "latency")


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
        [*command, "--data", str(folder)], capture_output=True, text=True, timeout=1200, env={**os.environ, **ports}
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
    assert [evaluation["job"] for evaluation in told["evaluations"]] == [*JOBS, *JOBS, "drift", *JOBS, "drift"]
    assert {evaluation["verdict"] for evaluation in told["evaluations"]} <= {"pass", "warn", "fail", "unknown"}


def test_scores_fall_with_the_shift_and_recover_after_the_promotion(told: dict[str, Any]) -> None:
    before, shifted, after = told["grounded"]
    assert shifted < 0.8 * before
    assert after > 1.5 * shifted
    drift = told["parts"][1]["drift"]
    assert drift["verdict"] == "fail"
    assert "prompt_text" in drift["reason"], "the shift is named"


def test_failing_answers_became_a_better_release_on_evidence(told: dict[str, Any]) -> None:
    done = told["improvement"]
    assert (done["base"], done["candidate"], done["verdict"]) == (FIRST, BETTER, "pass")
    assert done["cases"] >= 12
    assert done["metrics"]["grounded"]["candidate"] > done["metrics"]["grounded"]["base"]
    assert done["followed_s"] < 5


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
        assert evaluation["mlflow_run_id"]
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

    replayed = 2 * told["improvement"]["cases"]
    for source, n in (("gateway", REQUESTS), ("replay", replayed)):
        assert count("interactions", f"count(*) FILTER (source = '{source}')") == n
        assert count("interactions", f"count(DISTINCT request_id) FILTER (source = '{source}')") == n
    assert count("scores", "count(DISTINCT request_id) FILTER (replay IS NOT TRUE)") == REQUESTS
    assert count("scores", "count(DISTINCT request_id) FILTER (replay)") == replayed
    assert count("rollups", "sum(n)") == REQUESTS
    assert count("evaluations", "count(*)") == len(told["evaluations"])
    releases = {FIRST: count("interactions", f"count(*) FILTER (release = '{FIRST}' AND source = 'gateway')")}
    releases[BETTER] = count("interactions", f"count(*) FILTER (release = '{BETTER}' AND source = 'gateway')")
    assert releases == {FIRST: REQUESTS * 2 // 3, BETTER: REQUESTS - REQUESTS * 2 // 3}


def test_mlflow_shows_the_experiment_the_dataset_and_the_releases(
    told: dict[str, Any], mlflow_client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    done = told["improvement"]
    experiment = mlflow_client.get_experiment_by_name("watchkeeper-experiments")
    assert experiment is not None
    runs = mlflow_client.search_runs([experiment.experiment_id])
    parent = next(run for run in runs if done["run_url"].endswith(run.info.run_id))
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    tried = {run.data.params["release"]: run for run in children if "release" in run.data.params}
    assert tried.keys() == {FIRST, BETTER}
    for release, run in tried.items():
        side = "base" if release == FIRST else "candidate"
        assert run.data.metrics["grounded"] == pytest.approx(done["metrics"]["grounded"][side], abs=0.2)
        assert run.inputs is not None
        assert [given.dataset.name for given in run.inputs.dataset_inputs] == ["bills"]
        rows = json.loads(Path(mlflow_client.download_artifacts(run.info.run_id, "rows.json", str(tmp_path))).read_text())
        assert len(rows["data"]) == done["cases"]
    assert mlflow_client.get_prompt_version_by_alias("watchkeeper", "champion").version == 2
    (dataset,) = mlflow_client.search_datasets(experiment_ids=[experiment.experiment_id])
    assert (dataset.name, "watchkeeper.frozen" in dataset.tags) == ("bills", True)


def command(told: dict[str, Any], *words: str) -> tuple[int, dict[str, Any], str]:
    typed = [sys.executable, "-m", "watchkeeper", *words, "--json", "--config", told["config"]]
    done = subprocess.run(typed, capture_output=True, text=True, timeout=120)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def test_a_worse_candidate_is_stopped(told: dict[str, Any], mlflow_client: mlflow.MlflowClient) -> None:
    """The first release as a candidate against the better one, on the same answers."""
    policy = Path(watchkeeper.__file__).parent / "cli" / "demo" / "gate.toml"
    code, judged, _ = command(told, "gate", BETTER, FIRST, "--policy", str(policy))
    assert (code, judged["verdict"]) == (1, "fail")
    code, _, said = command(told, "release", "promote", FIRST)
    assert code == 1
    assert "Traceback" not in said
    assert mlflow_client.get_prompt_version_by_alias("watchkeeper", "champion").version == 2


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
