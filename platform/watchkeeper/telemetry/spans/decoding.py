"""Exports as they come over OTLP/HTTP, protobuf or JSON → spans. Knows nothing of what attributes mean.

In OTLP's JSON ids are hex (protobuf's own JSON has base64), enums are numbers and integers may be strings.
"""

import math
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from watchkeeper.telemetry.spans.span import WANTED, Attributes, Event, Span

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.trace.v1 import trace_pb2

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

REMOTE: Final = 0x300
"""Of a span's flags: it is known where its parent is, and that is in another process."""
FAILED: Final = 2

DEEPEST: Final = 20
"""Attributes nested deeper are cut off there."""

MOST_EVENTS: Final = 1000
"""Of a span, from its start on: some write an event for every piece of a stream."""

_HEX: Final = re.compile(r"[0-9a-f]+")
_MOST: Final = (1 << 63) - 1


class Unreadable(Exception):
    """The body is not what its type says; the message is one line, without anything of the body."""


def spans_of(body: bytes, kind: str) -> tuple[list[Span], int]:
    """The spans of an export (`kind`: PROTOBUF or JSON), and how many were left out for want of valid ids.

    Raises `Unreadable`.
    """
    spans = list(_from_json(body) if kind == JSON else _from_protobuf(body))
    good = [span for span in spans if _is_id(span.trace_id, 32) and _is_id(span.span_id, 16)]
    return good, len(spans) - len(good)


def from_protobuf(span: "trace_pb2.Span", resource: Attributes, scope: str) -> Span:
    """One span of an export that is decoded already."""
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        remote=span.flags & REMOTE == REMOTE,
        name=span.name,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        failed=span.status.code == FAILED,
        attributes=_attributes(span.attributes),
        events=tuple(
            Event(event.name, event.time_unix_nano, _attributes(event.attributes)) for event in span.events[:MOST_EVENTS]
        ),
        resource=resource,
        scope=scope,
    )


def _from_protobuf(body: bytes) -> Iterator[Span]:
    # Not at the top: most gateways never get an export, and it takes 28 ms and 6 MB.
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        raise Unreadable("the body is not an ExportTraceServiceRequest in protobuf") from None
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes, everything=True)
        for scoped in group.scope_spans:
            for span in scoped.spans:
                yield from_protobuf(span, resource, scoped.scope.name)


def _attributes(pairs: "Iterable[KeyValue]", *, everything: bool = False) -> Attributes:
    return {pair.key: _value(pair.value, 0) for pair in pairs if everything or pair.key.startswith(WANTED)}


def _value(value: "AnyValue", depth: int) -> Any:
    which = value.WhichOneof("value")
    if which == "string_value":
        return value.string_value
    if which is None or depth > DEEPEST:
        return ""
    if which == "array_value":
        return [_value(item, depth + 1) for item in value.array_value.values]
    if which == "kvlist_value":
        return {pair.key: _value(pair.value, depth + 1) for pair in value.kvlist_value.values}
    return "" if which == "bytes_value" else getattr(value, which)


class _Any(msgspec.Struct, rename="camel"):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | str | None = None
    double_value: float | str | None = None
    array_value: "_List | None" = None
    kvlist_value: "_Pairs | None" = None


class _Pair(msgspec.Struct):
    key: str = ""
    value: _Any | None = None


class _List(msgspec.Struct):
    values: list[_Any] | None = None


class _Pairs(msgspec.Struct):
    values: list[_Pair] | None = None


class _Event(msgspec.Struct, rename="camel"):
    name: str = ""
    time_unix_nano: int | str = 0
    attributes: list[_Pair] | None = None


class _Status(msgspec.Struct):
    code: int | str | None = 0


class _Span(msgspec.Struct, rename="camel"):
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str | None = ""
    flags: int | None = 0
    name: str = ""
    start_time_unix_nano: int | str = 0
    end_time_unix_nano: int | str = 0
    attributes: list[_Pair] | None = None
    events: list[_Event] | None = None
    status: _Status | None = None


class _Scope(msgspec.Struct):
    name: str = ""


class _ScopeSpans(msgspec.Struct, rename="camel"):
    scope: _Scope | None = None
    spans: list[_Span] | None = None


class _Resource(msgspec.Struct):
    attributes: list[_Pair] | None = None


class _ResourceSpans(msgspec.Struct, rename="camel"):
    resource: _Resource | None = None
    scope_spans: list[_ScopeSpans] | None = None


class _Request(msgspec.Struct, rename="camel"):
    resource_spans: list[_ResourceSpans] | None = None


_request = msgspec.json.Decoder(_Request)


def _from_json(body: bytes) -> Iterator[Span]:
    try:
        request = _request.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        place = str(error).partition(" - at ")[2] if isinstance(error, msgspec.ValidationError) else ""
        where = f", at {place}" if place else ""
        raise Unreadable(f"the body is not an ExportTraceServiceRequest in OTLP's JSON{where}") from None
    for group in request.resource_spans or ():
        resource = _plain(group.resource.attributes if group.resource else None, everything=True)
        for scoped in group.scope_spans or ():
            for span in scoped.spans or ():
                yield _of_json(span, resource, scoped.scope.name if scoped.scope else "")


def _of_json(span: _Span, resource: Attributes, scope: str) -> Span:
    return Span(
        trace_id=span.trace_id.lower(),
        span_id=span.span_id.lower(),
        parent_id=_parent((span.parent_span_id or "").lower()),
        remote=(span.flags or 0) & REMOTE == REMOTE,
        name=span.name,
        start=_integer(span.start_time_unix_nano),
        end=_integer(span.end_time_unix_nano),
        failed=span.status is not None and span.status.code in (FAILED, "STATUS_CODE_ERROR"),
        attributes=_plain(span.attributes),
        events=tuple(
            Event(event.name, _integer(event.time_unix_nano), _plain(event.attributes))
            for event in (span.events or ())[:MOST_EVENTS]
        ),
        resource=resource,
        scope=scope,
    )


def _plain(pairs: list[_Pair] | None, *, everything: bool = False) -> Attributes:
    return {pair.key: _plain_value(pair.value, 0) for pair in pairs or () if everything or pair.key.startswith(WANTED)}


def _plain_value(value: _Any | None, depth: int) -> Any:
    if value is None or depth > DEEPEST:
        return ""
    if value.string_value is not None:
        return value.string_value
    if value.bool_value is not None:
        return value.bool_value
    if value.int_value is not None:
        return _integer(value.int_value)
    if value.double_value is not None:
        return _number(value.double_value)
    if value.array_value is not None:
        return [_plain_value(item, depth + 1) for item in value.array_value.values or ()]
    if value.kvlist_value is not None:
        return {pair.key: _plain_value(pair.value, depth + 1) for pair in value.kvlist_value.values or ()}
    return ""


def _integer(value: int | str) -> int:
    """As protobuf's, of 64 bits: what does not fit could not be kept either."""
    try:
        return max(-_MOST - 1, min(int(value), _MOST))
    except ValueError:
        return 0


def _number(value: float | str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def _parent(text: str) -> str:
    """A parent's id; none where it is none: it is kept as it came, and nobody's text may be."""
    return text if _is_id(text, 16) else ""


def _is_id(text: str, digits: int) -> bool:
    """Hex digits, of which not all are 0. Python's `int` also takes `0x1` and the digits of other scripts."""
    return len(text) == digits and _HEX.fullmatch(text) is not None and text.strip("0") != ""
