"""What is deleted from a real MLflow is gone from every byte of its database, also on a SQLite that overwrites nothing;
runs are put right where they are, hidden ones too."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from watchkeeper.settings import Mlflow, Settings
from watchkeeper.tracking import Tracking, TrackingUnavailable, server_command
from watchkeeper.tracking.assessments import Assessment, Assessments
from watchkeeper.tracking.deletion import NotOurs, Traces, clean
from watchkeeper.tracking.revision import artifact, kept_runs, revise
from watchkeeper.tracking.server import own_database
from watchkeeper.tracking.unfinished import delete_run

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

AT = datetime(2026, 5, 29, 12, tzinfo=UTC)
PLANTED = "zyxplanted"


@pytest.fixture(scope="module")
def settings(
    module_processes: Callable[..., Any],
    module_port: Callable[[], int],
    tmp_path_factory: pytest.TempPathFactory,
    careless_sqlite: dict[str, str],
) -> Iterator[Settings]:
    """An MLflow whose SQLite leaves deleted bytes where they are."""
    data = tmp_path_factory.mktemp("data")
    settings = Settings(data=data, mlflow=Mlflow(uri=f"http://127.0.0.1:{module_port()}"))
    argv, env = server_command(settings, data)
    process = module_processes(argv, ready=f"{settings.mlflow.uri}/health", env=env | careless_sqlite)
    yield settings
    process.stop()


@pytest.fixture
def mlflow(settings: Settings) -> Tracking:
    return Tracking(settings.mlflow.uri)


def send(mlflow: Tracking, experiment: str, users: dict[str, str], **more: str) -> None:
    """A trace a request id, each with its user and the planted text."""
    spans = [
        Span(
            trace_id=bytes.fromhex(name),
            span_id=bytes.fromhex(name[-16:]),
            name="request",
            start_time_unix_nano=1_790_000_000_000_000_000,
            end_time_unix_nano=1_790_000_000_100_000_000,
            attributes=[
                KeyValue(key=key, value=AnyValue(string_value=value))
                for key, value in {"user.id": user, "mlflow.spanInputs": f"{PLANTED} by {user} " * 300, **more}.items()
            ],
            status=Status(code=Status.STATUS_CODE_OK),
        )
        for name, user in users.items()
    ]
    body = ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])])
    headers = {"content-type": "application/x-protobuf", "x-mlflow-experiment-id": mlflow.experiment_id(experiment)}
    answer = requests.post(f"{mlflow.uri}/v1/traces", data=body.SerializeToString(), headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text


def in_the_database(settings: Settings) -> bool:
    folder = settings.data / "mlflow"
    return any(PLANTED.encode() in path.read_bytes() for path in folder.glob("mlflow.db*"))


def test_traces_go_from_every_experiment_and_every_byte(settings: Settings, mlflow: Tracking) -> None:
    anas = {f"{number:032x}": "o'ana \\" for number in range(1, 131)}
    send(mlflow, "one", anas)
    send(mlflow, "two", {f"{200:032x}": "ana"})
    send(mlflow, "two", {f"{201:032x}": "ben"})
    held = Assessments(mlflow)
    for name, said in ((f"{1:032x}", PLANTED), (f"{201:032x}", PLANTED), (f"{201:032x}", "kept")):
        held.create(
            Assessment(request_id=name, name="said", value=said, kind="HUMAN", source="ana", at=1, metadata={"key": said})
        )
    traces = Traces(mlflow)
    found = dict(traces.of_user("one", "o'ana \\"))
    assert found.keys() == anas.keys()
    assert set(found.values()) == {1_790_000_000_000_000}
    assert list(traces.of_user("nowhere", "ana")) == []
    assert sorted(traces.there([*anas, f"{999:032x}"])) == sorted(anas)
    assert traces.delete_assessments([f"{201:032x}", f"{999:032x}"], "key", {PLANTED}) == 1
    assert traces.delete([*anas, f"{200:032x}", f"{201:032x}", f"{999:032x}"]) == 132
    assert traces.delete(anas) == 0
    assert traces.there(anas) == []
    assert in_the_database(settings), "else the test proves nothing"
    clean(settings)
    assert not in_the_database(settings)
    assert mlflow.healthy()
    send(mlflow, "two", {f"{202:032x}": "ben"})


def test_a_users_traces_are_found_by_tenant(mlflow: Tracking) -> None:
    for number, tenant in ((301, "acme"), (302, "other")):
        send(mlflow, "tenants", {f"{number:032x}": "eve"}, **{"watchkeeper.tenant": tenant})
    send(mlflow, "tenants", {f"{303:032x}": "eve"})
    traces = Traces(mlflow)
    assert [name for name, _ in traces.of_user("tenants", "eve", "acme")] == [f"{301:032x}"]
    assert len(list(traces.of_user("tenants", "eve"))) == 3
    assert list(traces.of_user("tenants", "eve", "nobody")) == []


def test_the_log_of_our_server_goes_too(settings: Settings) -> None:
    log = settings.data / "logs" / "mlflow.log"
    log.parent.mkdir()
    log.write_text(f"sqlite3.OperationalError … [parameters: ('{PLANTED}')]")
    clean(settings)
    assert log.read_bytes() == b""


def test_somebody_elses_database_is_left_to_them(settings: Settings, tmp_path: Path) -> None:
    theirs = settings.model_copy(update={"mlflow": Mlflow(uri=settings.mlflow.uri, start=False)})
    assert own_database(theirs) is own_database(settings.model_copy(update={"data": tmp_path})) is None
    with pytest.raises(NotOurs, match="VACUUM it there"):
        clean(theirs)


def test_a_database_that_somebody_keeps_is_not_clean(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchkeeper.tracking.deletion.BUSY_S", 0.1)
    database = own_database(settings)
    assert database is not None
    writer = sqlite3.connect(database, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(TrackingUnavailable, match="cannot be rid of"):
        clean(settings)
    writer.close()


def test_runs_are_put_right_hidden_ones_too(mlflow: Tracking) -> None:
    given: dict[str, Any] = {"metrics": {}, "started_at": AT, "ended_at": AT}
    ids = [
        mlflow.log_run(
            "reports", f"run {number}", params={"number": number}, tags={"kind": "drift", "reason": PLANTED},
            artifacts={"report.json": {"words": PLANTED}}, **given,
        )
        for number in range(3)
    ]  # fmt: skip
    delete_run(mlflow, ids[1])
    found = {run.params["number"]: run for run in kept_runs(mlflow, "reports", "tags.kind = 'drift'")}
    assert [found[number].deleted for number in "012"] == [False, True, False]
    assert list(kept_runs(mlflow, "nowhere", "")) == []
    assert artifact(mlflow, ids[0], "report.html") is None
    for number in "01":
        body = artifact(mlflow, found[number].run_id, "report.json")
        assert body is not None
        assert json.loads(body) == {"words": PLANTED}
        revise(mlflow, found[number], tags={"reason": "plain"}, artifacts={"report.json": b"{}"})
    after = {run.params["number"]: run for run in kept_runs(mlflow, "reports", "")}
    assert [after[number].tags["reason"] for number in "012"] == ["plain", "plain", PLANTED]
    assert [after[number].deleted for number in "012"] == [False, True, False]
    assert [artifact(mlflow, after[number].run_id, "report.json") == b"{}" for number in "012"] == [True, True, False]
