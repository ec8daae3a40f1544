"""Records → OTLP, with the attributes from which MLflow's UI shows chats, retrieved passages, verdicts, tokens and cost.

Whatever text a record holds, nothing in the result is something that MLflow takes for something else: one odd record must
not cost its batch. Knows nothing of delivery.

Names are those of MLflow 3.17 (`mlflow/tracing/constant.py`), and ours where it has none; OpenTelemetry's are what
collectors get (genai.py). Its server is what bounds how soon a trace can be seen, so nothing is sent twice. Every trace tag
costs it two statements: there is one, `watchkeeper.action`; the rest are attributes of the root span. There is no resource:
it would become tags.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from watchkeeper.record import Record, Stage
from watchkeeper.telemetry.tracing import Json, Value, as_json, integer_of, text_of, trace_of

SPAN_TYPES: Final[dict[str, str]] = {
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
LIFTED: Final = 250
"""Characters of an attribute that MLflow copies into a column of the trace: a longer one is a batch refused."""


def export_request(records: Sequence[Record]) -> bytes:
    """A serialised `ExportTraceServiceRequest`. Raises `ValueError` when a request id is not 32 hex digits."""
    scope = ScopeSpans(spans=[span for record in records for span in trace_of(record, _root(record), _stage)])
    scope.scope.name = "watchkeeper"
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.append(scope)
    return bytes(request.SerializeToString())


def _root(record: Record) -> dict[str, Value]:
    attributes: dict[str, Value] = {
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
        "watchkeeper.tags": as_json(record.tags) if record.tags else None,
        "watchkeeper.entities": record.entities or None,
        "watchkeeper.redactions": as_json(record.redactions) if record.redactions else None,
        "watchkeeper.schema_version": record.schema_version,
    }
    return _quoted(attributes)


def _stage(record: Record, stage: Stage) -> dict[str, Value]:
    attributes: dict[str, Value] = {
        "mlflow.spanType": SPAN_TYPES.get(stage.name, "TASK"),
        "watchkeeper.stage.status": stage.status if stage.status != "ok" else None,
    }
    attributes |= {f"watchkeeper.{key}": value for key, value in stage.attributes.items()}
    if stage.name == "generate":
        attributes |= _generate(record)
    elif stage.name == "ground":
        query = stage.attributes.get("query", record.prompt_text)
        attributes["mlflow.spanInputs"] = as_json({"query": query})
        attributes["mlflow.spanOutputs"] = as_json([_document(source) for source in msgspec.to_builtins(record.sources)])
    return _quoted(attributes)


def _quoted(attributes: dict[str, Value]) -> dict[str, Value]:
    """Text written as JSON, as MLflow's own clients do; what is empty left out. The server takes one layer of it off. Plain
    text it would try to read as JSON, and fail, at more cost than all else of the attribute; or not fail: a session named
    `{"a": 1}` became that object, and the whole batch was refused."""
    return {
        key: as_json(value) if type(value) is str else value for key, value in attributes.items() if value not in ("", None)
    }


def _generate(record: Record) -> dict[str, Value]:
    usage = {
        "input_tokens": integer_of(record.input_tokens),
        "output_tokens": integer_of(record.output_tokens),
        "total_tokens": integer_of(record.input_tokens + record.output_tokens),
    }
    # The record knows what the call cost, not how that divides into input and output. Without a cost MLflow would look the
    # model's name up in a price list.
    cost = {"total_cost": record.cost_usd if math.isfinite(record.cost_usd) else 0.0}
    return {
        "mlflow.message.format": "openai",
        "mlflow.spanInputs": _messages([(message.role, message.content) for message in record.prompt]),
        "mlflow.spanOutputs": _choices(record),
        "mlflow.chat.tokenUsage": as_json(usage),
        "mlflow.llm.cost": as_json(cost),
        "mlflow.llm.model": _lifted(record.model),
        "mlflow.llm.provider": _lifted(record.upstream),
    }


def _messages(turns: Sequence[tuple[str, str]]) -> Json:
    return as_json({"messages": [{"role": role, "content": content} for role, content in turns]})


def _choices(record: Record) -> Json | None:
    if not record.output_text:
        return None
    message = {"role": "assistant", "content": record.output_text}
    return as_json({"choices": [{"index": 0, "message": message, "finish_reason": record.finish_reason}]})


def _document(source: Mapping[str, Any]) -> dict[str, Any]:
    """A retrieved passage in the shape of MLflow's `Document`."""
    metadata = {"doc_uri": source["id"], "title": source["title"], "score": source["score"]}
    return {"page_content": source["text"], "id": source["id"], "metadata": metadata}


def _lifted(value: str | None) -> str | None:
    """Text for an attribute that MLflow copies into a column."""
    return text_of(value)[:LIFTED] if value else None
