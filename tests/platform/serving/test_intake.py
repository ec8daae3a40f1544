"""Exports on their way to records: durable when they are taken, recorded once, redacted before anything is written."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from watchkeeper.record import Record, decode
from watchkeeper.serving import traces
from watchkeeper.serving.intake import Busy, Intake, Taken, TooLarge
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.redact import Redactor
from watchkeeper.serving.request import Refused
from watchkeeper.settings import Settings, Traces
from watchkeeper.telemetry import spans as spans_package
from watchkeeper.telemetry.ledger import watermark
from watchkeeper.telemetry.segment import segments
from watchkeeper.telemetry.spans import Unreadable
from watchkeeper.telemetry.spans.decoding import JSON, PROTOBUF
from watchkeeper.telemetry.spool import Spool, SpoolFull

EXPORTS = Path(__file__).parent / "exports"
ALL = ("openinference", "mlflow", "traceloop", "traceloop-older", "opentelemetry", "opentelemetry-logs")

pytestmark = pytest.mark.anyio


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(data: Path, clock: Clock, worker: str = "w0", **traces: Any) -> AsyncIterator[Intake]:
    settings = Settings(data=data, traces=Traces(**traces))
    spool = Spool.open(settings.spool_folder, worker)
    intake = Intake(settings, spool, Redactor(), Metrics(), clock)
    try:
        yield intake
    finally:
        await spool.close()
        await intake.close()


def records(data: Path) -> list[Record]:
    return [decode(row.body) for segment in segments(data / "spool").segments for row in segment.rows(0)]


def accepted(data: Path) -> list[str]:
    return [name for segment in segments(data / "spool").segments for name in segment.ids()[0]]


def everything(data: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(data.rglob("*")) if path.is_file())


def export(name: str) -> bytes:
    return (EXPORTS / f"{name}.pb").read_bytes()


def spans(*spans: Span, scope: str = "app") -> bytes:
    scoped = ScopeSpans(spans=spans)
    scoped.scope.name = scope
    return bytes(ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[scoped])]).SerializeToString())


def as_json(*changes: dict[str, Any]) -> bytes:
    """An export of calls of a model in OTLP's JSON."""
    asked = [("gen_ai.operation.name", "chat"), ("gen_ai.prompt.0.role", "user"), ("gen_ai.prompt.0.content", "Open?")]
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in asked]
    plain = [{"traceId": "cd" * 16, "spanId": "b" * 16, "attributes": attributes, **change} for change in changes]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": plain}]}]}).encode()


def call(number: int, trace: str = "ab" * 16, text: str = "Are you open?") -> Span:
    given = {"gen_ai.operation.name": "chat", "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": text}
    attributes = [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in given.items()]
    return Span(
        trace_id=bytes.fromhex(trace),
        span_id=number.to_bytes(8, "big"),
        start_time_unix_nano=1_790_000_000 * 10**9,
        end_time_unix_nano=1_790_000_001 * 10**9,
        attributes=attributes,
    )


async def test_what_real_instrumentations_send_is_recorded_once_and_redacted(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock) as intake:
        for name in ALL:
            taken = await intake.take(export(name), PROTOBUF, packed=False)
            assert taken.refused == 0
        assert b"ada.marl" not in everything(tmp_path)
        await intake.carry()
        assert records(tmp_path) == []
        # No window is judged until they are in the lake.
        assert watermark(Settings(data=tmp_path)) == int(clock.now * 1e6)
        clock.now += 5
        assert not await intake.carry()
        assert watermark(Settings(data=tmp_path)) == int(clock.now * 1e6)
        for name in ALL:
            await intake.take(gzip.compress(export(name)), PROTOBUF, packed=True)
        clock.now += 3600
        await intake.carry()
    found = records(tmp_path)
    assert len(found) == 4 * len(ALL)
    assert len({record.request_id for record in found}) == len(found)
    assert sorted(accepted(tmp_path)) == sorted(record.request_id for record in found)
    assert {record.source for record in found} == {"otlp"}
    assert [record.language for record in found if record.prompt_text] == ["en"] * 20


async def test_calls_without_text_are_taken_and_say_what_to_set(tmp_path: Path) -> None:
    async with opened(tmp_path, Clock()) as intake:
        taken = await intake.take(export("opentelemetry-logs"), PROTOBUF, packed=False)
    assert taken.refused == 0
    assert taken.reason.startswith("3 calls of a model come without prompt and answer")
    assert "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT" in taken.reason


@pytest.mark.parametrize("brought", [False, True])
async def test_a_worker_that_dies_between_two_commits_doubles_nothing_and_loses_nothing(
    tmp_path: Path, brought: bool
) -> None:
    clock = Clock()
    async with opened(tmp_path, clock) as intake:
        await intake.take(spans(call(1)), PROTOBUF, packed=False)
        clock.now += 5
        _, made, _ = intake._whole()
        if brought:
            await asyncio.gather(*(intake._spool.bring(record, 1) for record in made))
    async with opened(tmp_path, clock, "w1") as intake:
        await intake.carry()
        await intake.carry()
    assert [record.request_id for record in records(tmp_path)] == ["ab" * 16]
    assert accepted(tmp_path) == ["ab" * 16]


async def test_a_full_spool_keeps_what_waits(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock) as intake:
        await intake.take(spans(call(1)), PROTOBUF, packed=False)
        clock.now += 5
        await intake._spool.close()
        with pytest.raises(SpoolFull):
            await intake.carry()
    async with opened(tmp_path, clock) as intake:
        await intake.carry()
    assert [record.request_id for record in records(tmp_path)] == ["ab" * 16]


async def test_a_trace_never_takes_the_place_of_a_request_that_was_served(
    tmp_path: Path,
) -> None:
    served, clock = "0123456789ab4def8123456789abcdef", Clock()
    async with opened(tmp_path, clock) as intake:
        intake._spool.accept(served, 1)
        await intake._spool.append(Record(request_id=served, received_at=1, prompt_text="ours"))
        await intake.take(spans(call(1, served, "theirs")), PROTOBUF, packed=False)
        clock.now += 5
        await intake.carry()
    assert [record.prompt_text for record in records(tmp_path)] == ["ours"]


@pytest.mark.parametrize("odd", [{"traceId": "0x" + "1" * 30}, {"traceId": "\uff11" * 32}, {"spanId": "0x" + "1" * 14}])
async def test_an_id_that_only_looks_like_one_holds_up_nobody(tmp_path: Path, odd: dict[str, str]) -> None:
    clock = Clock()
    async with opened(tmp_path, clock) as intake:
        taken = await intake.take(as_json(odd), JSON, packed=False)
        assert taken == Taken(1, "1 spans without valid trace and span ids")
        await intake.take(spans(call(1)), PROTOBUF, packed=False)
        for _ in range(3):
            clock.now += 5
            await intake.carry()
        assert intake._staging.waiting() == 0
    assert [record.request_id for record in records(tmp_path)] == ["ab" * 16]


async def test_a_parent_that_is_no_id_is_not_kept_as_it_came(tmp_path: Path) -> None:
    async with opened(tmp_path, Clock()) as intake:
        await intake.take(as_json({"parentSpanId": "ada.marl@example.com"}), JSON, packed=False)
        assert intake._staging.waiting() == 1
    assert b"ada.marl" not in everything(tmp_path)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("gen_ai.usage.input_tokens", {"intValue": "9" * 400}),
        ("gen_ai.response.time_to_first_chunk", {"doubleValue": 1e305}),
        ("gen_ai.response.time_to_first_chunk", {"doubleValue": 1e200}),
        (f"gen_ai.prompt.{'1' * 5000}.content", {"stringValue": "x"}),
        (f"gen_ai.prompt.1.{'1' * 5000}.content", {"stringValue": "x"}),
        (f"gen_ai.prompt.1.{'a.' * 5000}content", {"stringValue": "x"}),
        ("gen_ai.input.messages", {"stringValue": '[{"role": "user", "type": [1], "content": "x"}]'}),
        ("gen_ai.input.messages", {"stringValue": '[{"role": "user", "content": [{"type": {}, "text": "x"}]}]'}),
        ("gen_ai.input.messages", {"stringValue": '[{"role": "user", "content": "x", "tool_calls": 5}]'}),
    ],
)
async def test_a_span_that_nobody_expects_costs_no_other_its_place(
    tmp_path: Path, attribute: str, value: dict[str, Any]
) -> None:
    clock = Clock()
    attributes = [{"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}}, {"key": attribute, "value": value}]
    times = {"startTimeUnixNano": "-" + "9" * 60, "endTimeUnixNano": "9" * 60}
    async with opened(tmp_path, clock) as intake:
        taken = await intake.take(as_json({"attributes": attributes, **times}, {"traceId": "ab" * 16}), JSON, packed=False)
        assert taken.refused == 0
        clock.now += 5
        await intake.carry()
    assert len(records(tmp_path)) == 2


async def test_what_cannot_be_read_or_assembled_is_told_and_costs_no_other_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Breaks(Redactor):
        def __call__(self, text: str) -> tuple[str, dict[str, int]]:
            return super().__call__(text if "BREAK" not in text else 1 // 0 * text)

    clock, assemble = Clock(), spans_package.assemble
    monkeypatch.setattr(
        spans_package,
        "assemble",
        lambda name, *parts, **more: assemble(name, *parts, **more) if name != "cd" * 16 else 1 / 0,
    )
    async with opened(tmp_path, clock) as intake:
        intake._redact = Breaks()
        taken = await intake.take(
            spans(call(1, text="BREAK this"), call(2), call(3, trace="cd" * 16)), PROTOBUF, packed=False
        )
        assert taken == Taken(1, "1 spans that cannot be read or redacted")
        clock.now += 5
        await intake.carry()
        assert intake._staging.waiting() == 0
    assert [record.request_id for record in records(tmp_path)] == ["ab" * 16]
    assert "ZeroDivisionError" in caplog.text
    assert "BREAK" not in caplog.text.replace('"BREAK" not in text', "")


async def test_our_own_spans_are_refused(tmp_path: Path) -> None:
    async with opened(tmp_path, Clock()) as intake:
        taken = await intake.take(spans(call(1), scope="watchkeeper"), PROTOBUF, packed=False)
    assert taken == Taken(1, "1 spans of this gateway's own, whose requests are recorded")


async def test_spans_that_come_too_late_are_told(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, clock) as intake:
        await intake.take(spans(call(1)), PROTOBUF, packed=False)
        clock.now += 5
        await intake.carry()
        assert await intake.take(spans(call(1)), PROTOBUF, packed=False) == Taken(0, "")
        late = await intake.take(spans(call(1), call(2)), PROTOBUF, packed=False)
    assert late.refused == 1
    assert "recorded before they came" in late.reason


async def test_what_is_not_gzip_or_too_large_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path, Clock(), max_body_bytes=10_000) as intake:
        packed = gzip.compress(export("mlflow"))
        for body in (b"no gzip", packed[:-20], packed + packed):
            with pytest.raises(Unreadable):
                await intake.take(body, PROTOBUF, packed=True)
        with pytest.raises(TooLarge):
            await intake.take(gzip.compress(bytes(100_000_000)), PROTOBUF, packed=True)


async def test_too_many_at_once_are_sent_away(tmp_path: Path) -> None:
    async with opened(tmp_path, Clock()) as intake:
        bodies = [spans(call(number, f"{number:032x}")) for number in range(1, 41)]
        taken = await asyncio.gather(
            *(intake.take(body, PROTOBUF, packed=False) for body in bodies), return_exceptions=True
        )
        assert sum(isinstance(one, Busy) for one in taken) == 24
        assert intake._staging.waiting() == 16


async def test_only_one_worker_carries(tmp_path: Path) -> None:
    async with opened(tmp_path, Clock()) as first, opened(tmp_path, Clock(), "w1") as second:
        assert first._leads()
        assert not second._leads()


async def test_a_staging_file_that_cannot_be_written_says_when_to_come_again(tmp_path: Path) -> None:
    (tmp_path / "traces.sqlite").write_bytes(b"torn " * 1000)
    async with opened(tmp_path, Clock()) as intake:
        with pytest.raises(Refused) as refused:
            await traces.take(intake, spans(call(1)), PROTOBUF, packed=False, limit=1000, tenant="default")
    assert (refused.value.status, refused.value.retry_after) == (503, traces.RETRY_S)
    assert traces.refusal(refused.value, PROTOBUF).headers["retry-after"] == "5"
