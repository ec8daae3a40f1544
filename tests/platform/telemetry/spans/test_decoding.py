"""Exports as bytes: both encodings say the same, and whatever comes is spans or one line."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from watchkeeper.telemetry.spans import Unreadable, spans_of
from watchkeeper.telemetry.spans.decoding import JSON, PROTOBUF

EXPORTS = sorted((Path(__file__).parents[2] / "serving" / "exports").glob("*.pb"))


def as_json(body: bytes) -> bytes:
    """The export in OTLP's JSON, made by protobuf's own, which has ids in base64 and enums by name."""
    plain = MessageToDict(ExportTraceServiceRequest.FromString(body), use_integers_for_enums=True)
    spans = [span for group in plain["resourceSpans"] for scoped in group["scopeSpans"] for span in scoped["spans"]]
    request = ExportTraceServiceRequest.FromString(body)
    raw = [span for group in request.resource_spans for scoped in group.scope_spans for span in scoped.spans]
    for span, one in zip(spans, raw, strict=True):
        span |= {"traceId": one.trace_id.hex(), "spanId": one.span_id.hex(), "parentSpanId": one.parent_span_id.hex()}
    return json.dumps(plain).encode()


@pytest.mark.parametrize("file", EXPORTS, ids=lambda file: file.stem)
def test_protobuf_and_json_say_the_same(file: Path) -> None:
    body = file.read_bytes()
    spans, invalid = spans_of(body, PROTOBUF)
    assert spans_of(as_json(body), JSON) == (spans, invalid)
    assert len(spans) >= 4


def one(**fields: Any) -> bytes:
    span = {"traceId": "A" * 32, "spanId": "b" * 16} | fields
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()


def test_json_takes_what_the_specification_allows() -> None:
    values = {
        "gen_ai.a": {"intValue": "7"},
        "gen_ai.b": {"intValue": 7},
        "gen_ai.c": {"doubleValue": "NaN"},
        "gen_ai.d": {"arrayValue": {"values": [{"stringValue": "x"}, {"boolValue": False}]}},
        "gen_ai.e": {"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}]}},
        "gen_ai.f": {},
        "db.statement": {"stringValue": "not read"},
    }
    attributes = [{"key": key, "value": value} for key, value in values.items()]
    (span,), _ = spans_of(
        one(attributes=attributes, startTimeUnixNano="5", endTimeUnixNano=9, unknown=[1], flags=768), JSON
    )
    assert span.trace_id == "a" * 32
    assert (span.start, span.end, span.remote) == (5, 9, True)
    assert span.attributes.pop("gen_ai.c") != 0
    assert span.attributes == {
        "gen_ai.a": 7,
        "gen_ai.b": 7,
        "gen_ai.d": ["x", False],
        "gen_ai.e": {"k": "v"},
        "gen_ai.f": "",
    }


@pytest.mark.parametrize("ids", [{"traceId": "0" * 32}, {"traceId": "ab"}, {"spanId": ""}, {"spanId": "x" * 16}])
def test_a_span_without_ids_is_counted_and_left_out(ids: dict[str, str]) -> None:
    assert spans_of(one(**ids), JSON) == ([], 1)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"resourceSpans": 3}', b'{"resourceSpans": [3]}', b"[" * 100_000, b"\xff"]
)
def test_what_is_no_json_export_is_one_line(body: bytes) -> None:
    with pytest.raises(Unreadable, match=r"^the body is not .* in OTLP's JSON[^\n]*$"):
        spans_of(body, JSON)


def test_an_error_tells_the_place_and_nothing_of_the_body() -> None:
    with pytest.raises(Unreadable) as error:
        spans_of(one(attributes=[{"key": "gen_ai.prompt", "value": {"stringValue": ["my secret"]}}]), JSON)
    assert "$.resourceSpans[0].scopeSpans[0].spans[0].attributes[0].value.stringValue" in str(error.value)
    assert "secret" not in str(error.value)


@given(st.binary(max_size=200), st.sampled_from([JSON, PROTOBUF]))
def test_any_bytes_are_spans_or_unreadable(body: bytes, kind: str) -> None:
    try:
        spans, invalid = spans_of(body, kind)
    except Unreadable:
        return
    assert len(spans) >= 0 <= invalid


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=4))
def test_a_damaged_export_is_spans_or_unreadable(at: int, damage: bytes) -> None:
    body = bytearray(EXPORTS[0].read_bytes())
    body[at : at + len(damage)] = damage
    with contextlib.suppress(Unreadable):
        spans, _ = spans_of(bytes(body), PROTOBUF)
        assert all(len(span.trace_id) == 32 for span in spans)
