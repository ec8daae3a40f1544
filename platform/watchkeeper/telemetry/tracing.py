"""What every export of a record as OTLP shares: one record is one trace, a root span and under it a span for each stage,
with the guards' verdicts on the stages that they judged in.

Ids follow from the request id, so that a batch sent twice is stored once. Whatever text a record holds, the result is valid
protobuf (UTF-8, no NUL, numbers in range): one odd record must not cost its batch. Knows no attribute's name but our own.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from watchkeeper.record import Record, Stage, StageName, Target, Verdict, strongest


class Json(str):
    """A text that is JSON, beside those that are merely text."""

    __slots__ = ()


Value = str | int | float | bool | Sequence[str] | None

JUDGED_IN: Final[dict[Target, StageName]] = {"prompt": "guard_in", "context": "guard_in", "output": "guard_out"}

_INT64: Final = (1 << 63) - 1
_STATUS: Final = {"ok": Status.STATUS_CODE_OK, "error": Status.STATUS_CODE_ERROR}


def trace_of(
    record: Record, of_root: Mapping[str, Value], of_stage: Callable[[Record, Stage], Mapping[str, Value]]
) -> list[Span]:
    """A root span with these attributes, and under it a span for each stage. Raises `ValueError` when the request id is not
    32 hex digits."""
    verdicts: dict[str | None, list[Verdict]] = {}
    present = {stage.name for stage in record.stages}
    for verdict in record.verdicts:
        place = JUDGED_IN[verdict.target]
        verdicts.setdefault(place if place in present else None, []).append(verdict)
    root = _span(record, 0, "watchkeeper", 0.0, record.total_ms, of_root, verdicts.get(None, []))
    failed = record.error is not None or record.status >= 500
    root.status.code = Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_OK
    root.status.message = text_of(record.error or "")
    spans = [root]
    for index, stage in enumerate(record.stages, start=1):
        attributes = of_stage(record, stage)
        span = _span(record, index, stage.name, stage.offset_ms, stage.ms, attributes, verdicts.get(stage.name, []))
        span.parent_span_id = root.span_id
        span.status.code = _STATUS.get(stage.status, Status.STATUS_CODE_OK)
        spans.append(span)
    return spans


def _span(
    record: Record,
    index: int,
    name: str,
    offset_ms: float,
    ms: float,
    attributes: Mapping[str, Value],
    verdicts: Sequence[Verdict],
) -> Span:
    start = _nanoseconds(record.received_at * 1000, offset_ms)
    span = Span(
        trace_id=bytes.fromhex(record.request_id),
        span_id=hashlib.blake2b(f"{record.request_id}/{index}".encode(), digest_size=8).digest(),
        name=name,
        kind=Span.SPAN_KIND_SERVER if index == 0 else Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=start,
        end_time_unix_nano=_nanoseconds(start, ms),
        attributes=attributes_of(attributes),
    )
    if len(span.trace_id) != 16:
        raise ValueError(f"not a trace id: {record.request_id!r}")
    _judge(span, verdicts)
    return span


def _judge(span: Span, verdicts: Sequence[Verdict]) -> None:
    """All verdicts as one attribute, and an event for each that is not `pass`."""
    if not verdicts:
        return
    span.attributes.extend(
        attributes_of(
            {
                "watchkeeper.guard.action": strongest(verdict.action for verdict in verdicts),
                "watchkeeper.guard.verdicts": as_json([_named(verdict) for verdict in verdicts]),
            }
        )
    )
    for verdict in verdicts:
        if verdict.action != "pass":
            attributes = attributes_of({f"watchkeeper.guard.{key}": value for key, value in _named(verdict).items()})
            span.events.add(name="watchkeeper.guard", time_unix_nano=span.end_time_unix_nano, attributes=attributes)


def _named(verdict: Verdict) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(verdict)
    return {"name": plain.pop("guard"), **plain}


def attributes_of(attributes: Mapping[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=text_of(key), value=_any(value)) for key, value in attributes.items() if value is not None]


def _any(value: str | int | float | bool | Sequence[str]) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=text_of(value))
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=integer_of(value))
    if isinstance(value, float):
        # No JSON, and so no database column, has a NaN.
        return AnyValue(double_value=value) if math.isfinite(value) else AnyValue(string_value=str(value))
    return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=text_of(item)) for item in value]))


def as_json(value: Any) -> Json:
    """JSON in which no string holds what `_text` takes out, escaped or not. Only what needs it is taken apart."""
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return Json(msgspec.json.encode(_clean(value)).decode())
    return Json(text) if "\\u0000" not in text else Json(msgspec.json.encode(_clean(value)).decode())


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, dict):
        return {text_of(key): _clean(item) for key, item in value.items()}
    if type(value) is int:
        return integer_of(value)
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value


def text_of(value: str) -> str:
    """`value` with U+FFFD for NUL, which PostgreSQL refuses, and for lone surrogates, which UTF-8 and protobuf do."""
    if "\0" in value:
        value = value.replace("\0", "\ufffd")
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def integer_of(value: int) -> int:
    return max(-_INT64, min(value, _INT64))


def _nanoseconds(start: int, ms: float) -> int:
    """`start` (ns) and `ms` after it, in what MLflow's database holds: a signed 64-bit integer."""
    span = ms * 1e6
    return max(0, min(start + (int(span) if math.isfinite(span) and span > 0 else 0), _INT64))
