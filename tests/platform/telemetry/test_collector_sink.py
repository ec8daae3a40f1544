"""A collector as a sink: all of ours arrives, a poisoned record is put aside alone, an outage holds up nobody else."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from watchkeeper.feedback import Feedback
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record, decode
from watchkeeper.settings import Collector, Mlflow, Settings, SettingsError, load
from watchkeeper.telemetry.collector_sink import CollectorSink
from watchkeeper.telemetry.dead_letters import DeadLetters
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.ledger import pending, verify
from watchkeeper.telemetry.mlflow_sink import MlflowSink
from watchkeeper.telemetry.resending import resend
from watchkeeper.telemetry.segment import Segment, segments
from watchkeeper.telemetry.shipper import Shipper
from watchkeeper.telemetry.sinks import Dropped, LakeSink, SinkUnavailable
from watchkeeper.telemetry.spool import Spool

Make = Callable[..., Record]


@dataclass
class Backend:
    """`traces`: what it keeps, by trace id, each its spans as text. `answer`: given a batch as text, status and body."""

    url: str = ""
    traces: dict[str, str] = field(default_factory=dict)
    headers: list[dict[str, str]] = field(default_factory=list)
    answer: Callable[[str], tuple[int, bytes]] = field(default=lambda text: (200, b""))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_POST(self) -> None:
        backend = self.server.backend
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        backend.headers.append({key.lower(): value for key, value in self.headers.items()})
        status, body = backend.answer(str(request))
        if status == 200:
            for resource in request.resource_spans:
                for span in resource.scope_spans[0].spans:
                    name = span.trace_id.hex()
                    backend.traces[name] = backend.traces.get(name, "") + str(span)
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    backend: Backend


@pytest.fixture
def backend() -> Iterator[Backend]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.backend = Backend(url=f"http://127.0.0.1:{server.server_address[1]}/v1/traces")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server.backend
    server.shutdown()
    server.server_close()


def spooled(data: Path, said: Sequence[Record | Feedback]) -> Segment:
    async def fill() -> None:
        spool = Spool.open(data / "spool", "w0")
        for one in said:
            if isinstance(one, Record):
                spool.accept(one.request_id, one.received_at)
        await asyncio.gather(*(spool.append(one) for one in said))
        await spool.close()

    asyncio.run(fill())
    (segment,) = segments(data / "spool").segments
    return segment


def sink_of(backend: Backend, deliveries: Deliveries, dead: DeadLetters, **options: Any) -> CollectorSink:
    return CollectorSink(Collector(name="tempo", url=backend.url, **options), deliveries, Dropped(dead, "tempo"), limit=10)


def drain(sink: CollectorSink, segment: Segment) -> int:
    count = 0
    while step := sink.step(segment):
        count += step
    return count


def test_it_gets_what_our_gateways_served_and_goes_on_where_it_was(
    tmp_path: Path, backend: Backend, deliveries: Deliveries, dead: DeadLetters, make_record: Make, make_feedback: Any
) -> None:
    ours = [make_record() for _ in range(25)]
    others = [make_record(source="otlp") for _ in range(3)]
    segment = spooled(tmp_path, [*ours, *others, make_feedback(ours[0].request_id)])
    assert sink_of(backend, deliveries, dead).step(segment) == 10
    assert drain(sink_of(backend, deliveries, dead), segment) == 19
    assert backend.traces.keys() == {record.request_id for record in ours}
    assert "gen_ai.input.messages" in backend.traces[ours[0].request_id]
    assert drain(sink_of(backend, deliveries, dead), segment) == 0


def test_headers_come_from_the_environment(
    tmp_path: Path,
    backend: Backend,
    deliveries: Deliveries,
    dead: DeadLetters,
    make_record: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    segment = spooled(tmp_path, [make_record(output_text="SAID")])
    sink = sink_of(backend, deliveries, dead, headers_env="TEMPO_HEADERS", content=False)
    with pytest.raises(SinkUnavailable, match=r"TEMPO_HEADERS \(collectors.headers_env of tempo\) is not set"):
        sink.step(segment)
    monkeypatch.setenv("TEMPO_HEADERS", "authorization=Bearer a=b, x-scope=7")
    assert drain(sink, segment) == 1
    assert (backend.headers[0]["authorization"], backend.headers[0]["x-scope"]) == ("Bearer a=b", "7")
    assert "SAID" not in str(backend.traces), "content was switched off"


@pytest.mark.parametrize("partly", [False, True])
def test_a_poisoned_record_is_put_aside_alone(
    tmp_path: Path, backend: Backend, deliveries: Deliveries, dead: DeadLetters, make_record: Make, partly: bool
) -> None:
    records = [make_record(output_text="POISON" if number == 7 else "fine") for number in range(20)]
    segment = spooled(tmp_path, records)
    some = ExportTraceServiceResponse()
    some.partial_success.rejected_spans = 3
    refusal = (200, some.SerializeToString()) if partly else (400, b"no")
    backend.answer = lambda text: refusal if "POISON" in text else (200, b"")
    assert drain(sink_of(backend, deliveries, dead), segment) == 20
    (letter,) = list(dead)
    assert (letter.sink, decode(letter.body)) == ("tempo", records[7])
    assert {record.request_id for record in records} == backend.traces.keys(), "of the refused one that there was a request"


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_a_server_that_refuses_everything_poisons_nothing(
    tmp_path: Path, backend: Backend, deliveries: Deliveries, dead: DeadLetters, make_record: Make, status: int
) -> None:
    segment = spooled(tmp_path, [make_record() for _ in range(4)])
    sink = sink_of(backend, deliveries, dead)
    backend.answer = lambda text: (status, b"")
    with pytest.raises(SinkUnavailable, match=str(status)):
        sink.step(segment)
    assert (list(dead), sink.position(segment)) == ([], segment.first - 1)
    backend.answer = lambda text: (200, b"")
    assert drain(sink, segment) == 4


def test_one_that_is_away_holds_up_no_other_sink_and_gets_all_when_it_is_back(
    tmp_path: Path,
    backend: Backend,
    fake_mlflow: Any,
    deliveries: Deliveries,
    dead: DeadLetters,
    make_record: Make,
    wait_for: Callable[..., None],
) -> None:
    settings = Settings(
        data=tmp_path, mlflow=Mlflow(uri=fake_mlflow.url), collectors=(Collector(name="tempo", url=backend.url),)
    )
    spooled(tmp_path, records := [make_record(request_id=f"{number:032x}") for number in range(30)])
    backend.answer = lambda text: (503, b"")
    stop = threading.Event()
    shipper = Shipper(
        settings,
        [
            MlflowSink(settings.mlflow.uri, lambda: "7", deliveries, Dropped(dead, "mlflow")),
            LakeSink(Lake(settings.lake_uri), Dropped(dead, "lake")),
            CollectorSink(settings.collectors[0], deliveries, Dropped(dead, "tempo")),
        ],
        deliveries,
        dead,
        stop,
    )
    thread = threading.Thread(target=shipper.run, args=(False,))
    thread.start()
    try:
        wait_for(lambda: len(fake_mlflow.traces) == 30, what="MLflow")
        wait_for(lambda: pending(settings)[0] == {"mlflow": 0, "lake": 0, "tempo": 30}, what="all but the collector")
        assert len(segments(settings.spool_folder).segments) == 1, "the spool keeps what the collector lacks"
        assert verify(settings).pending["tempo"] == 30
        backend.answer = lambda text: (200, b"")
        wait_for(lambda: segments(settings.spool_folder).segments == (), what="the collector")
    finally:
        stop.set()
        thread.join()
    assert backend.traces.keys() == {record.request_id for record in records}
    assert verify(settings).pending["tempo"] == 0


def test_its_dead_letters_are_sent_again_with_all_others(
    tmp_path: Path, backend: Backend, fake_mlflow: Any, deliveries: Deliveries, dead: DeadLetters, make_record: Make
) -> None:
    collector = Collector(name="tempo", url=backend.url)
    settings = Settings(data=tmp_path, mlflow=Mlflow(uri=fake_mlflow.url), collectors=(collector,))
    segment = spooled(tmp_path, [make_record(output_text="POISON")])
    backend.answer = lambda text: (400, b"") if "POISON" in text else (200, b"")
    drain(sink_of(backend, deliveries, dead), segment)
    assert dead.count() == 1
    backend.answer = lambda text: (200, b"")
    resent = resend(settings)
    assert (resent.taken["tempo"], resent.ok, dead.count()) == (1, True, 0)
    assert "POISON" in str(backend.traces)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[collectors]]\nname = "lake"\nurl = "http://a/v1/traces"\n', "lake is the name of another sink"),
        ('[[collectors]]\nname = "a"\nurl = "http://a"\n[[collectors]]\nname = "a"\nurl = "http://b"\n', "a is the name"),
        ('[[collectors]]\nname = "Tempo!"\nurl = "http://a"\n', "collectors.0.name"),
        ('[[collectors]]\nname = "tempo"\nurl = "localhost:4318"\n', "collectors.0.url"),
    ],
)
def test_names_that_would_be_mixed_up_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "watchkeeper.toml").write_text(text)
    with pytest.raises(SettingsError, match=said):
        load(tmp_path / "watchkeeper.toml")
