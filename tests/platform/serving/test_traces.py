"""`POST /v1/traces` over HTTP, as exporters speak to it: a real gateway of two workers, killed in mid-traffic."""

import gzip
import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from watchkeeper.record import Record, decode
from watchkeeper.telemetry.segment import segments

EXPORT = (Path(__file__).parent / "exports" / "openinference.pb").read_bytes()
PROTOBUF, JSON = "application/x-protobuf", "application/json"

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

Start = Callable[[], Any]


@pytest.fixture
def gateway(
    tmp_path: Path, free_port: Callable[[], int], run_process: Callable[..., Any], watchkeeper: list[str]
) -> SimpleNamespace:
    """A gateway of two workers; `start` starts it (again)."""
    url = f"http://127.0.0.1:{free_port()}"
    config = tmp_path / "watchkeeper.toml"
    config.write_text(
        f'data = "{tmp_path}/data"\n[gateway]\nport = {url.rsplit(":")[-1]}\nworkers = 2\n'
        '[traces]\nsettle = "1s"\nidle = "2s"\nmax_body_bytes = 50_000\n'
        '[[upstreams]]\nname = "none"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "none"\n'
    )

    def start() -> Any:
        return run_process([*watchkeeper, "serve", "--config", str(config)], ready=f"{url}/health/live")

    return SimpleNamespace(url=f"{url}/v1/traces", start=start, data=tmp_path / "data")


def post(gateway: SimpleNamespace, body: bytes, kind: str = PROTOBUF, **headers: str) -> requests.Response:
    return requests.post(gateway.url, body, headers={"content-type": kind, **headers}, timeout=30)


def records(data: Path) -> list[Record]:
    return [decode(row.body) for segment in segments(data / "spool").segments for row in segment.rows(0)]


def made(trace: str, span: str, parent: str = "", text: str = "Are you open?") -> dict[str, Any]:
    said = {"gen_ai.operation.name": "chat", "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": text}
    return {
        "traceId": trace,
        "spanId": span,
        "parentSpanId": parent,
        "startTimeUnixNano": "1790000000000000000",
        "endTimeUnixNano": "1790000001000000000",
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in said.items()],
    }


def body_of(*spans: dict[str, Any]) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def test_it_answers_as_the_specification_says(gateway: SimpleNamespace, wait_for: Callable[..., None]) -> None:
    process = gateway.start()
    good = post(gateway, EXPORT)
    assert (good.status_code, good.headers["content-type"]) == (200, PROTOBUF)
    assert not ExportTraceServiceResponse.FromString(good.content).HasField("partial_success")
    packed = post(gateway, gzip.compress(EXPORT), **{"content-encoding": "gzip"})
    assert packed.status_code == 200
    plain = post(gateway, body_of(made("ab" * 16, "cd" * 8)), f"{JSON}; charset=utf-8")
    assert (plain.status_code, plain.headers["content-type"], plain.json()) == (200, JSON, {})
    partial = post(gateway, body_of(made("", "")), JSON)
    assert partial.json() == {
        "partialSuccess": {"rejectedSpans": "1", "errorMessage": "1 spans without valid trace and span ids"}
    }
    for answer, status, words in (
        (post(gateway, b"{", JSON), 400, "OTLP's JSON"),
        (post(gateway, EXPORT, "text/plain"), 415, "content-type must be one of"),
        (post(gateway, EXPORT, JSON, **{"content-encoding": "br"}), 415, "content-encoding"),
        (post(gateway, b" " * 60_000, JSON), 413, "larger than 50000 bytes"),
        (post(gateway, gzip.compress(b" " * 60_000), JSON, **{"content-encoding": "gzip"}), 413, "unpacked"),
    ):
        assert answer.status_code == status
        assert words in answer.json()["message"]
    broken = post(gateway, b"\xff" * 10)
    assert (broken.status_code, broken.headers["content-type"]) == (400, PROTOBUF)
    message = b"the body is not an ExportTraceServiceRequest in protobuf"
    assert broken.content == bytes([0x08, 3, 0x12, len(message)]) + message
    assert requests.get(gateway.url, timeout=30).status_code == 405
    wait_for(lambda: len(records(gateway.data)) == 5, what="the records")
    process.stop()
    assert {record.source for record in records(gateway.data)} == {"otlp"}


@dataclass
class Client:
    """An exporter: it sends the same until it is told that it is taken. `own`: the traces that it sends, each as two
    exports, the call first and its root after; every third root twice."""

    gateway: SimpleNamespace
    own: list[str]

    def __call__(self) -> None:
        for number, trace in enumerate(self.own):
            root = body_of(made(trace, "ab" * 8, "", "around it"))
            self.send(body_of(made(trace, "cd" * 8, "ab" * 8, f"asked of {trace}")))
            self.send(root)
            if number % 3 == 0:
                self.send(root)

    def send(self, body: bytes) -> None:
        while True:
            try:
                if post(self.gateway, body, JSON).status_code == 200:
                    return
            except requests.RequestException:
                time.sleep(0.05)


def test_kill_9_in_mid_traffic_loses_nothing_that_was_answered_and_doubles_nothing(
    gateway: SimpleNamespace, wait_for: Callable[..., None]
) -> None:
    """Who sends counts: what was answered with 200 is recorded once and whole."""
    traces = [uuid.uuid4().hex for _ in range(60)]
    clients = [threading.Thread(target=Client(gateway, traces[start::3])) for start in range(3)]
    process = gateway.start()
    for one in clients:
        one.start()
    for _ in range(2):
        time.sleep(0.5)
        process.kill_all()
        process = gateway.start()
    for one in clients:
        one.join()
    wait_for(lambda: len(records(gateway.data)) >= len(traces), what="all traces")
    time.sleep(2)  # in which nothing more may come
    process.stop()
    found = records(gateway.data)
    assert sorted(record.request_id for record in found) == sorted(traces)
    assert {record.prompt_text for record in found} == {f"asked of {trace}" for trace in traces}


def test_a_trace_under_the_id_of_a_request_that_was_served_is_no_second_one(
    gateway: SimpleNamespace, wait_for: Callable[..., None]
) -> None:
    """Several, as one id in 64 would be taken for a gateway's by chance."""
    gateway.start()
    chat = gateway.url.replace("/traces", "/chat/completions")
    asked = {"model": "watchkeeper", "messages": [{"role": "user", "content": "ours"}]}
    served = {requests.post(chat, json=asked, timeout=30).headers["x-request-id"] for _ in range(3)}
    other = uuid.uuid4().hex
    body = body_of(*(made(name, f"{number:016x}") for number, name in enumerate([*served, other], 1)))
    assert post(gateway, body, JSON).json() == {}
    wait_for(lambda: other in {record.request_id for record in records(gateway.data)}, what="the other trace", within_s=30)
    found = sorted((record.request_id, record.source) for record in records(gateway.data))
    assert found == sorted([*((name, "gateway") for name in served), (other, "otlp")])
