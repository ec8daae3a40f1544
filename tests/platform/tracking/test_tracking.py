"""MLflow as we speak to it: one real server, made by the command that `up` runs."""

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from watchkeeper.settings import Mlflow, Settings
from watchkeeper.tracking import Tracking, TrackingUnavailable, server_command, tracking
from watchkeeper.tracking.stored import stored_trace_ids

START = datetime(2026, 5, 29, 12, tzinfo=UTC)
END = datetime(2026, 5, 29, 12, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def server(
    module_processes: Callable[..., Any], module_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleNamespace]:
    """A server that `up` could have started, on data of its own."""
    data = tmp_path_factory.mktemp("a folder's name")
    settings = Settings(data=data, mlflow=Mlflow(uri=f"http://127.0.0.1:{module_port()}"))
    argv, env = server_command(settings, data)
    process = module_processes(argv, ready=f"{settings.mlflow.uri}/health", env=env)
    yield SimpleNamespace(uri=settings.mlflow.uri, data=data, log=process.log)
    process.stop()


@pytest.fixture
def mlflow(server: SimpleNamespace) -> Tracking:
    return Tracking(server.uri)


def send(mlflow: Tracking, experiment: str, traces: dict[str, int], *, finished: bool = True) -> None:
    """Traces (request id → start in ms) as another process would send them; unfinished: only a span from inside yet."""
    spans = [
        Span(
            trace_id=bytes.fromhex(name),
            span_id=bytes.fromhex(name[:16]),
            name="request",
            start_time_unix_nano=at * 1_000_000,
            end_time_unix_nano=(at + 1) * 1_000_000,
            parent_span_id=b"" if finished else b"\1" * 8,
            status=Status(code=Status.STATUS_CODE_OK),
        )
        for name, at in traces.items()
    ]
    body = ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])])
    headers = {"content-type": "application/x-protobuf", "x-mlflow-experiment-id": mlflow.experiment_id(experiment)}
    answer = requests.post(f"{mlflow.uri}/v1/traces", data=body.SerializeToString(), headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text


def log(mlflow: Tracking, **changes: Any) -> str:
    given: dict[str, Any] = {"params": {}, "metrics": {}, "tags": {}, "artifacts": {}}
    return mlflow.log_run("jobs", "toxicity", **(given | changes), started_at=START, ended_at=END)


pytestmark = pytest.mark.timeout(180)


def test_importing_tracking_does_not_load_mlflow() -> None:
    code = "import sys, watchkeeper.tracking; assert not [name for name in sys.modules if name.split('.')[0] == 'mlflow']"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_server_that_is_away_is_one_line_and_soon(free_port: Callable[[], int]) -> None:
    away = Tracking(f"http://127.0.0.1:{free_port()}")
    assert not away.healthy()
    for use in (lambda: away.experiment_id("x"), lambda: log(away), lambda: list(away.trace_ids("x"))):
        with pytest.raises(TrackingUnavailable, match=f"^MLflow does not answer at {away.uri}$"):
            use()


@pytest.mark.servers
def test_the_server_keeps_everything_under_data(server: SimpleNamespace, mlflow: Tracking) -> None:
    assert mlflow.healthy()
    log(mlflow, artifacts={"report.html": "<p>"})
    folder = server.data / "mlflow"
    assert [file.read_text() for file in folder.rglob("report.html")] == ["<p>"]
    with sqlite3.connect(folder / "mlflow.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()
    assert "huey" not in server.log.read_text().lower(), "no job runner"


@pytest.mark.servers
def test_many_threads_make_one_experiment(server: SimpleNamespace) -> None:
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda _: Tracking(server.uri).experiment_id("made at once"), range(4)))
    assert len(set(ids)) == 1
    assert Tracking(server.uri).experiment_id("made at once", create=False) == ids[0]


@pytest.mark.servers
def test_an_experiment_that_is_not_there(mlflow: Tracking) -> None:
    with pytest.raises(LookupError, match="no experiment 'nowhere'"):
        mlflow.experiment_id("nowhere", create=False)
    assert list(mlflow.trace_ids("nowhere")) == []


@pytest.mark.servers
def test_a_deleted_experiment_says_so(mlflow: Tracking) -> None:
    from mlflow import MlflowClient

    MlflowClient(mlflow.uri).delete_experiment(mlflow.experiment_id("gone"))
    with pytest.raises(TrackingUnavailable, match="'gone' was deleted"):
        Tracking(mlflow.uri).experiment_id("gone")


@pytest.mark.servers
def test_a_run_is_written_whole(mlflow: Tracking, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from mlflow import MlflowClient

    run_id = log(
        mlflow,
        params={"scorer@version": "x" * 9000, **{f"p{number}": number for number in range(150)}},
        metrics={"toxicity/p95": 0.5, "gone": float("nan"), "none": None, **{f"m{n}": n for n in range(1100)}},
        tags={"verdict": "warn", "long": "é" * 9000},
        artifacts={"report.html": "<p>é", "tables/worst.json": {"n": 1}, "plot.bin": b"\0\xff"},
    )
    assert capfd.readouterr().out == "", "stdout belongs to the command"
    client = MlflowClient(mlflow.uri)
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "toxicity")
    assert (run.info.start_time, run.info.end_time) == (START.timestamp() * 1000, END.timestamp() * 1000)
    assert run.info.experiment_id == mlflow.experiment_id("jobs")
    assert (len(run.data.params), run.data.params["scorer_version"]) == (151, "x" * 6000)
    assert (len(run.data.metrics), run.data.metrics["toxicity/p95"]) == (1101, 0.5)
    assert run.data.tags["verdict"] == "warn"
    assert set(run.data.tags["long"]) == {"é"}
    client.download_artifacts(run_id, "", str(tmp_path))
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "<p>é"
    assert json.loads((tmp_path / "tables" / "worst.json").read_text()) == {"n": 1}
    assert (tmp_path / "plot.bin").read_bytes() == b"\0\xff"


@pytest.mark.servers
def test_a_run_that_breaks_off_is_marked_failed(mlflow: Tracking) -> None:
    from mlflow import MlflowClient

    with pytest.raises(ValueError, match="relative path"):
        log(mlflow, tags={"which": "broken"}, artifacts={"../outside": "x"})
    client = MlflowClient(mlflow.uri)
    (run,) = client.search_runs([mlflow.experiment_id("jobs")], "tags.which = 'broken'")
    assert run.info.status == "FAILED"


@pytest.mark.servers
def test_nothing_is_set_that_other_code_would_see(mlflow: Tracking) -> None:
    import mlflow as client

    before = client.get_tracking_uri()
    log(mlflow)
    assert client.get_tracking_uri() == before != mlflow.uri
    assert client.active_run() is None


@pytest.mark.servers
def test_runs_are_logged_from_many_threads(mlflow: Tracking) -> None:
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda n: log(mlflow, params={"n": n}, artifacts={"n.txt": str(n)}), range(8)))
    assert len(set(runs)) == 8


def names(numbers: range) -> dict[str, int]:
    """Request ids → starts (ms): three traces in every millisecond."""
    return {f"{number + 1:032x}".replace("0", "a", 1): 1_780_000_000_000 + number // 3 for number in numbers}


@pytest.mark.servers
@pytest.mark.parametrize("page", [1, 2, 3, 4, 7, 500])
def test_every_finished_trace_is_named_once(mlflow: Tracking, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    """Pages that end within a millisecond, with it, and that are smaller than one."""
    monkeypatch.setattr(tracking, "PAGE", page)
    if page == 1:
        send(mlflow, "finished", names(range(20)))
        send(mlflow, "finished", names(range(20, 22)), finished=False)
    found = list(mlflow.trace_ids("finished"))
    assert sorted(found) == sorted(names(range(20)))
    assert len(found) == 20


@pytest.mark.servers
def test_traces_that_arrive_meanwhile_hide_none_and_repeat_none(mlflow: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "PAGE", 5)
    there = names(range(30, 60))
    send(mlflow, "busy", there)
    reader = mlflow.trace_ids("busy")
    found = [next(reader) for _ in range(5)]
    earlier, later = names(range(27, 30)), names(range(60, 66))
    writer = threading.Thread(target=send, args=(mlflow, "busy", earlier | later))
    writer.start()
    writer.join()
    found += list(reader)
    assert len(found) == len(set(found))
    assert set(there) | set(later) <= set(found)


def test_addresses_in_its_pages() -> None:
    mlflow = Tracking("https://mlflow.example/")
    trace = "tr-" + "a" * 32
    wanted = f"https://mlflow.example/#/experiments/7/traces?selectedEvaluationId={trace}&traceId={trace}"
    assert mlflow.trace_url("7", "a" * 32) == mlflow.trace_url("7", trace) == wanted
    assert mlflow.run_url("7", "r") == "https://mlflow.example/#/experiments/7/runs/r"


@pytest.mark.servers
def test_trace_ids_are_read_in_the_servers_own_file_and_in_no_other(
    server: SimpleNamespace, mlflow: Tracking, tmp_path: Path
) -> None:
    names = [f"{number:032x}" for number in range(9_000, 9_030)]
    send(mlflow, "stored", {name: 1_000_000 + number for number, name in enumerate(names)})
    send(mlflow, "stored", {"0e" * 16: 1_000_100}, finished=False)
    send(mlflow, "stored besides", {"0f" * 16: 1_000_000})
    assert sorted(stored_trace_ids(mlflow, server.data, "stored") or []) == names == list(mlflow.trace_ids("stored"))
    assert stored_trace_ids(mlflow, server.data, "nowhere") is None
    assert stored_trace_ids(mlflow, tmp_path, "stored") is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mlflow").mkdir()
    with (
        sqlite3.connect(server.data / "mlflow" / "mlflow.db") as source,
        sqlite3.connect(tmp_path / "mlflow" / "mlflow.db") as copy,
    ):
        source.backup(copy)
        assert stored_trace_ids(mlflow, tmp_path, "stored") is not None
        copy.execute("UPDATE trace_info SET request_id = 'tr-' || hex(randomblob(16)), timestamp_ms = timestamp_ms + 500")
        copy.commit()
        assert stored_trace_ids(mlflow, tmp_path, "stored") is None, "what it holds the server does not"
        copy.execute("ALTER TABLE trace_info RENAME TO another")
        copy.commit()
        assert stored_trace_ids(mlflow, tmp_path, "stored") is None
    source.close()
    copy.close()
