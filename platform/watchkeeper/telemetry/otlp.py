"""Records → OTLP, with the attributes from which MLflow's UI shows chats, retrieved passages, verdicts, tokens and cost.

One record is one trace: a root span, and under it a span for each stage. Ids follow from the request id, so that a batch
sent twice is stored once. Whatever text a record holds, the result is valid protobuf (UTF-8, no NUL, numbers in range) and
says nothing that MLflow takes for something else: one odd record must not cost its batch. Knows nothing of delivery.

Names are those of MLflow 3.17 (`mlflow/tracing/constant.py`) and of OpenTelemetry's GenAI conventions (0.66b2, still in
development). The messages are sent once, under MLflow's names. Every trace tag costs its server two statements: there is
one, `watchkeeper.action`; the rest are attributes of the root span. There is no resource: it would become tags.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from watchkeeper.record import Record, Stage, StageName, Target, Verdict, strongest

Value = str | int | float | bool | Sequence[str] | None

SPAN_TYPES: Final[dict[StageName, str]] = {
    "admit": "TASK",
    "preprocess": "PARSER",
    "embed": "EMBEDDING",
    "ground": "RETRIEVER",
    "guard_in": "GUARDRAIL",
    "route": "TASK",
    "generate": "CHAT_MODEL",
    "check": "EVALUATOR",
    "guard_out": "GUARDRAIL",
    "postprocess": "PARSER",
}
JUDGED_IN: Final[dict[Target, StageName]] = {"prompt": "guard_in", "context": "guard_in", "output": "guard_out"}

LIFTED: Final = 250
"""Characters of an attribute that MLflow copies into a column of the trace: a longer one is a batch refused."""

_INT64: Final = (1 << 63) - 1
_STATUS: Final = {"ok": Status.STATUS_CODE_OK, "error": Status.STATUS_CODE_ERROR}


def export_request(records: Sequence[Record]) -> bytes:
    """A serialised `ExportTraceServiceRequest`. Raises `ValueError` when a request id is not 32 hex digits."""
    scope = ScopeSpans(spans=[span for record in records for span in _spans(record)])
    scope.scope.name = "watchkeeper"
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.append(scope)
    return bytes(request.SerializeToString())


def _spans(record: Record) -> list[Span]:
    verdicts: dict[StageName | None, list[Verdict]] = {}
    present = {stage.name for stage in record.stages}
    for verdict in record.verdicts:
        place = JUDGED_IN[verdict.target]
        verdicts.setdefault(place if place in present else None, []).append(verdict)
    root = _span(record, 0, "watchkeeper", 0.0, record.total_ms, _root(record), verdicts.get(None, []))
    failed = record.error is not None or record.status >= 500
    root.status.code = Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_OK
    root.status.message = _text(record.error or "")
    spans = [root]
    for index, stage in enumerate(record.stages, start=1):
        attributes = _stage(record, stage)
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
        attributes=_attributes(attributes),
    )
    if len(span.trace_id) != 16:
        raise ValueError(f"not a trace id: {record.request_id!r}")
    _judge(span, verdicts)
    return span


def _root(record: Record) -> dict[str, Value]:
    return {
        "mlflow.spanType": "CHAIN",
        "mlflow.traceTag.mlflow.traceName": _lifted(record.route),
        "mlflow.traceTag.watchkeeper.action": record.action,
        "session.id": _lifted(record.session),
        "user.id": _lifted(record.user),
        "mlflow.message.format": "openai",
        "mlflow.spanInputs": _messages([("user", record.prompt_text)]) if record.prompt_text else None,
        "mlflow.spanOutputs": _choices(record),
        "watchkeeper.tenant": record.tenant,
        "watchkeeper.route": record.route,
        "watchkeeper.release": record.release,
        "watchkeeper.digest": record.digest,
        "watchkeeper.model": record.model,
        "watchkeeper.upstream": record.upstream,
        "watchkeeper.replica": record.replica,
        "watchkeeper.attempts": record.attempts,
        "watchkeeper.stream": record.stream,
        "watchkeeper.status": record.status,
        "watchkeeper.error": record.error,
        "watchkeeper.language": record.language,
        "watchkeeper.finish_reason": record.finish_reason,
        "watchkeeper.support": record.support,
        "watchkeeper.ttft_ms": record.ttft_ms,
        "watchkeeper.tpot_ms": record.tpot_ms,
        "watchkeeper.overhead_ms": record.overhead_ms,
        "watchkeeper.tags": _json(record.tags) if record.tags else None,
        "watchkeeper.entities": record.entities or None,
        "watchkeeper.redactions": _json(record.redactions) if record.redactions else None,
        "watchkeeper.schema_version": record.schema_version,
    }


def _stage(record: Record, stage: Stage) -> dict[str, Value]:
    attributes: dict[str, Value] = {"mlflow.spanType": SPAN_TYPES[stage.name], "watchkeeper.stage.status": stage.status}
    attributes |= {f"watchkeeper.{_text(key)}": value for key, value in stage.attributes.items()}
    if stage.name == "generate":
        attributes |= _generate(record, stage)
    elif stage.name == "ground":
        query = stage.attributes.get("query", record.prompt_text)
        attributes["mlflow.spanInputs"] = _json({"query": query})
        attributes["mlflow.spanOutputs"] = _json([_document(source) for source in msgspec.to_builtins(record.sources)])
    return attributes


def _generate(record: Record, stage: Stage) -> dict[str, Value]:
    usage = {
        "input_tokens": _integer(record.input_tokens),
        "output_tokens": _integer(record.output_tokens),
        "total_tokens": _integer(record.input_tokens + record.output_tokens),
    }
    # The record knows what the call cost, not how that divides into input and output. Without a cost MLflow would look the
    # model's name up in a price list.
    cost = {"total_cost": record.cost_usd if math.isfinite(record.cost_usd) else 0.0}
    first = stage.attributes.get("first_token_ms")
    return {
        "mlflow.message.format": "openai",
        "mlflow.spanInputs": _messages([(message.role, message.content) for message in record.prompt]),
        "mlflow.spanOutputs": _choices(record),
        "mlflow.chat.tokenUsage": _json(usage),
        "mlflow.llm.cost": _json(cost),
        "mlflow.llm.model": _lifted(record.model),
        "mlflow.llm.provider": _lifted(record.upstream),
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _lifted(record.upstream),
        "gen_ai.request.model": _lifted(record.model),
        "gen_ai.response.model": _lifted(record.model),
        "gen_ai.usage.input_tokens": record.input_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "gen_ai.response.time_to_first_chunk": first / 1000 if isinstance(first, int | float) else None,
        "gen_ai.response.finish_reasons": [record.finish_reason] if record.finish_reason else None,
        "gen_ai.conversation.id": _lifted(record.session),
    }


def _judge(span: Span, verdicts: Sequence[Verdict]) -> None:
    """All verdicts as one attribute, and an event for each that is not `pass`."""
    if not verdicts:
        return
    span.attributes.extend(
        _attributes(
            {
                "watchkeeper.guard.action": strongest(verdict.action for verdict in verdicts),
                "watchkeeper.guard.verdicts": _json([_named(verdict) for verdict in verdicts]),
            }
        )
    )
    for verdict in verdicts:
        if verdict.action != "pass":
            attributes = _attributes({f"watchkeeper.guard.{key}": value for key, value in _named(verdict).items()})
            span.events.add(name="watchkeeper.guard", time_unix_nano=span.end_time_unix_nano, attributes=attributes)


def _named(verdict: Verdict) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(verdict)
    return {"name": plain.pop("guard"), **plain}


def _messages(turns: Sequence[tuple[str, str]]) -> str:
    return _json({"messages": [{"role": role, "content": content} for role, content in turns]})


def _choices(record: Record) -> str | None:
    if not record.output_text:
        return None
    message = {"role": "assistant", "content": record.output_text}
    return _json({"choices": [{"index": 0, "message": message, "finish_reason": record.finish_reason}]})


def _document(source: Mapping[str, Any]) -> dict[str, Any]:
    """A retrieved passage in the shape of MLflow's `Document`."""
    metadata = {"doc_uri": source["id"], "title": source["title"], "score": source["score"]}
    return {"page_content": source["text"], "id": source["id"], "metadata": metadata}


def _attributes(attributes: Mapping[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_any(value)) for key, value in attributes.items() if value is not None]


def _any(value: str | int | float | bool | Sequence[str]) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=_text(value))
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=_integer(value))
    if isinstance(value, float):
        # No JSON, and so no database column, has a NaN.
        return AnyValue(double_value=value) if math.isfinite(value) else AnyValue(string_value=str(value))
    return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=_text(item)) for item in value]))


def _json(value: Any) -> str:
    """JSON in which no string holds what `_text` takes out, escaped or not. Only what needs it is taken apart."""
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(_clean(value)).decode()
    return text if "\\u0000" not in text else msgspec.json.encode(_clean(value)).decode()


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_text(key): _clean(item) for key, item in value.items()}
    if type(value) is int:
        return _integer(value)
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value


def _text(value: str) -> str:
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


def _lifted(value: str | None) -> str | None:
    """Text for an attribute that MLflow copies into a column: it takes a string that is itself JSON (`{"a": 1}`) for that
    object and then fails on it with the whole batch. Written as JSON once more it comes out as it was."""
    if not value:
        return None
    value = _text(value)[:LIFTED]
    try:
        inner = json.loads(value) if value.lstrip()[:1] in ("{", "[", '"') else None
    except (ValueError, RecursionError):
        return value
    return value if inner is None else json.dumps(value, ensure_ascii=False)


def _integer(value: int) -> int:
    return max(-_INT64, min(value, _INT64))


def _nanoseconds(start: int, ms: float) -> int:
    """`start` (ns) and `ms` after it, in what MLflow's database holds: a signed 64-bit integer."""
    span = ms * 1e6
    return max(0, min(start + (int(span) if math.isfinite(span) and span > 0 else 0), _INT64))
