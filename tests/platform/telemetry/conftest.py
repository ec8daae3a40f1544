"""A server that takes OTLP and assessments as MLflow does and can be told to misbehave; records and feedback to send."""

import itertools
import json
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from watchkeeper.feedback import Feedback
from watchkeeper.record import STAGES, Message, Record, Stage, Verdict
from watchkeeper.telemetry.dead_letters import DeadLetters
from watchkeeper.telemetry.deliveries import Deliveries

NOON = 1_790_000_000_000_000


@dataclass
class FakeMlflow:
    """`traces`: what it keeps, by request id, each the texts in it. `answer`: given the traces of a request, the HTTP
    status; anything but 200 keeps nothing. `kind`, `reply`: what it then says. `experiment`: its id. `assessments`: by
    request id, as they came; `judge`: given one, the status."""

    url: str = ""
    traces: dict[str, str] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    answer: Callable[[dict[str, str]], int] = field(default=lambda traces: 200)
    kind: str = "application/json"
    reply: bytes = b"{}"
    experiment: str = "7"
    assessments: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    judge: Callable[[dict[str, Any]], int] = field(default=lambda assessment: 200)

    def infos(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        names = [name.removeprefix("tr-") for name in asked["trace_ids"]]
        there = [name for name in names if name in self.traces]
        return 200, {
            "trace_infos": [{"trace_id": f"tr-{name}", "assessments": self.assessments.get(name, [])} for name in there]
        }

    def assess(self, name: str, assessment: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if name not in self.traces:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST"}
        status = self.judge(assessment)
        if status == 200:
            self.assessments.setdefault(name, []).append(assessment)
        return status, {}

    def take(self, body: bytes) -> int:
        request = ExportTraceServiceRequest.FromString(body)
        traces: dict[str, str] = {}
        for span in request.resource_spans[0].scope_spans[0].spans:
            name = span.trace_id.hex()
            traces[name] = traces.get(name, "") + str(span)
        self.batches.append(len(traces))
        status = self.answer(traces)
        if status == 200:
            self.traces |= traces
        return status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path.endswith("/batchGetInfos"):
            return self._json(*self.server.mlflow.infos(json.loads(body)))
        if self.path.endswith("/assessments"):
            name = self.path.split("/")[-2].removeprefix("tr-")
            return self._json(*self.server.mlflow.assess(name, json.loads(body)["assessment"]))
        mlflow = self.server.mlflow
        assert self.headers["x-mlflow-experiment-id"] == mlflow.experiment
        status = mlflow.take(body)
        return self._answer(status, mlflow.kind, mlflow.reply)

    def _json(self, status: int, body: dict[str, Any]) -> None:
        self._answer(status, "application/json", json.dumps(body).encode())

    def _answer(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    mlflow: FakeMlflow

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that had waited long enough
            super().handle_error(request, client_address)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def fake_mlflow() -> Iterator[FakeMlflow]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.mlflow = FakeMlflow(url=f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server.mlflow
    server.shutdown()
    server.server_close()


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """An answered request, each received a millisecond after the last; fields by name."""
    times = itertools.count(NOON, 1000)

    def make(**fields: Any) -> Record:
        answered: dict[str, Any] = {
            "request_id": uuid.uuid4().hex,
            "received_at": next(times),
            "prompt": (Message("system", "Be brief."), Message("user", "Who are you?")),
            "prompt_text": "Who are you?",
            "output_text": "A model.",
            "finish_reason": "stop",
            "model": "smol",
            "upstream": "local",
            "input_tokens": 11,
            "output_tokens": 5,
            "total_ms": 123.0,
            "stages": tuple(Stage(name, 10.0 * index, 9.0) for index, name in enumerate(STAGES)),
            "verdicts": (Verdict("pii", "prompt", "none", "pass", None, "", "1"),),
        }
        return Record(**(answered | fields))

    return make


@pytest.fixture
def make_feedback() -> Callable[..., Feedback]:
    """A thumb up on a request; fields by name."""

    def make(request_id: str, **fields: Any) -> Feedback:
        said: dict[str, Any] = {"feedback_id": uuid.uuid4().hex, "received_at": NOON + 60_000_000, "score": 1.0}
        return Feedback(request_id=request_id, **(said | fields))

    return make


@pytest.fixture
def deliveries(tmp_path: Path) -> Iterator[Deliveries]:
    """The shipper's books."""
    books = Deliveries(tmp_path)
    yield books
    books.close()


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[DeadLetters]:
    """Where sinks put what they cannot take."""
    store = DeadLetters(tmp_path)
    yield store
    store.close()
