"""Assessments as MLflow keeps and shows them: one real server, and what its own client reads from it."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import requests

from watchkeeper.record import Record
from watchkeeper.settings import Mlflow, Settings
from watchkeeper.telemetry.otlp import export_request
from watchkeeper.tracking import Tracking, TrackingUnavailable, server_command
from watchkeeper.tracking.assessments import Assessment, Assessments, TraceUnknown

AT = 1_780_056_000_250_000
NOWHERE = "0d" * 16
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def mlflow(
    module_processes: Callable[..., Any], module_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Tracking:
    settings = Settings(data=tmp_path_factory.mktemp("mlflow"), mlflow=Mlflow(uri=f"http://127.0.0.1:{module_port()}"))
    argv, env = server_command(settings, settings.data)
    module_processes(argv, ready=f"{settings.mlflow.uri}/health", env=env)
    return Tracking(settings.mlflow.uri)


def send(mlflow: Tracking, *numbers: int) -> None:
    """Traces with these numbers as ids, as the shipper sends them."""
    records = [Record(request_id=f"{number:032x}", received_at=AT, total_ms=5.0) for number in numbers]
    headers = {"content-type": "application/x-protobuf", "x-mlflow-experiment-id": mlflow.experiment_id("traces")}
    answer = requests.post(f"{mlflow.uri}/v1/traces", data=export_request(records), headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text


def assessment(number: int, **fields: Any) -> Assessment:
    given: dict[str, Any] = {
        "request_id": f"{number:032x}",
        "name": "helpful",
        "value": 0.5,
        "kind": "HUMAN",
        "source": "ann",
        "at": AT,
    }
    return Assessment(**(given | fields))


@pytest.mark.servers
def test_what_was_said_is_read_by_mlflows_own_client(mlflow: Tracking) -> None:
    send(mlflow, 1)
    assessments = Assessments(mlflow)
    assessments.create(assessment(1, rationale="cites \0 nothing \ud800", metadata={"watchkeeper.feedback_id": "f1"}))
    assessments.create(assessment(1, name="tone", value="rude", kind="CODE", source="tone@2"))
    assessments.create(assessment(1, name="n" * 300, value=True, source="s" * 300))
    with mlflow.speaking() as client:
        found = {one.name: one for one in client.get_trace(f"tr-{1:032x}").info.assessments}
    helpful = found["helpful"]
    assert (helpful.value, helpful.rationale) == (0.5, "cites \ufffd nothing \ufffd")
    assert (helpful.source.source_type, helpful.source.source_id) == ("HUMAN", "ann")
    assert (helpful.create_time_ms, helpful.valid) == (AT // 1000, True)
    assert helpful.metadata == {"watchkeeper.feedback_id": "f1"}
    assert (found["tone"].value, found["tone"].source.source_type) == ("rude", "CODE")
    assert found["n" * 250].value is True


@pytest.mark.servers
def test_a_trace_that_is_sent_again_keeps_what_was_said_of_it(mlflow: Tracking) -> None:
    send(mlflow, 2)
    assessments = Assessments(mlflow)
    assessments.create(assessment(2, metadata={"key": "kept"}))
    send(mlflow, 2)
    (held,) = assessments.held([f"{2:032x}"])[f"{2:032x}"]
    assert (held.name, held.metadata) == ("helpful", {"key": "kept"})


@pytest.mark.servers
def test_traces_that_are_not_there_are_left_out_and_refused(mlflow: Tracking) -> None:
    numbers = range(1000, 1230)
    send(mlflow, *numbers)
    assessments = Assessments(mlflow)
    held = assessments.held([NOWHERE, *(f"{number:032x}" for number in numbers), f"{1000:032x}"])
    assert held == {f"{number:032x}": [] for number in numbers}
    assert assessments.held([]) == assessments.held([NOWHERE]) == {}
    with pytest.raises(TraceUnknown, match=f"no trace tr-{NOWHERE}"):
        assessments.create(assessment(1, request_id=NOWHERE))


def test_who_is_away_or_no_mlflow_is_unavailable_in_one_line(
    upstreams: Callable[[], Any], free_port: Callable[[], int]
) -> None:
    other = upstreams()
    other.status = 404
    for uri in (f"http://127.0.0.1:{free_port()}", other.url):
        assessments = Assessments(Tracking(uri))
        with pytest.raises(TrackingUnavailable, match=r"^[^\n]+$"):
            assessments.held([NOWHERE])
        with pytest.raises(TrackingUnavailable, match=r"^[^\n]+$"):
            assessments.create(assessment(1))


def test_speaking_of_assessments_does_not_load_mlflow() -> None:
    code = "import sys, watchkeeper.tracking.assessments; assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
