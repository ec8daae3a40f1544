"""Records → OTLP for any collector, in the names of OpenTelemetry's conventions alone: HTTP's for the request, GenAI's for
the call of the model and for retrieval; ours (`watchkeeper.`) where there is none. Nothing in it is MLflow's.

GenAI names as of 2026 (semantic-conventions-genai; `gen_ai.system`, `gen_ai.prompt` and message events are their older
names). Messages are JSON in the shape of its schemas: a role and parts. Knows nothing of delivery.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from watchkeeper import __version__
from watchkeeper.record import Message, Record, Stage
from watchkeeper.telemetry.tracing import Value, as_json, attributes_of, text_of, trace_of

SERVICE: Final = "watchkeeper"
ROUTE: Final = "/v1/chat/completions"
INSTRUCTING: Final = ("system", "developer")
_SAID_OTHERWISE: Final = frozenset({"query", "entities"})
"""Attributes of stages that hold what people wrote: they have names of their own here, or go with the content."""


def export_request(records: Sequence[Record], *, content: bool = True) -> bytes:
    """A serialised `ExportTraceServiceRequest`, with a resource for each gateway worker. `content`: whether what people and
    the model wrote is in it. Raises `ValueError` when a request id is not 32 hex digits."""
    request = ExportTraceServiceRequest()
    for replica, group in groupby(sorted(records, key=attrgetter("replica")), key=attrgetter("replica")):
        part = request.resource_spans.add()
        service: dict[str, Value] = {"service.name": SERVICE, "service.version": __version__}
        part.resource.attributes.extend(attributes_of({**service, "service.instance.id": replica or None}))
        scope = part.scope_spans.add()
        scope.scope.name, scope.scope.version = SERVICE, __version__
        scope.spans.extend(span for record in group for span in _spans(record, content))
    return bytes(request.SerializeToString())


def _spans(record: Record, content: bool) -> list[Span]:
    def of_stage(record: Record, stage: Stage) -> Mapping[str, Value]:
        attributes: dict[str, Value] = {"watchkeeper.stage.status": stage.status}
        attributes |= {f"watchkeeper.{key}": value for key, value in stage.attributes.items() if key not in _SAID_OTHERWISE}
        if stage.name == "generate":
            attributes |= _call(record, stage) | (_messages(record) if content else {})
        elif stage.name == "ground":
            attributes |= _retrieval(record, stage, content)
        return attributes

    root, *stages = trace_of(record, _request(record, content), of_stage)
    root.name = f"POST {ROUTE}"
    for span, stage in zip(stages, record.stages, strict=True):
        if stage.name == "generate":
            span.name, span.kind = text_of(f"chat {record.model}".strip()), Span.SPAN_KIND_CLIENT
        elif stage.name == "ground":
            span.name = "retrieval"
    return [root, *stages]


def _request(record: Record, content: bool) -> dict[str, Value]:
    return {
        "http.request.method": "POST",
        "http.route": ROUTE,
        "http.response.status_code": record.status,
        "url.path": ROUTE,
        "error.type": record.error,
        "user.id": record.user,
        "session.id": record.session,
        "watchkeeper.request_id": record.request_id,
        "watchkeeper.action": record.action,
        "watchkeeper.tenant": record.tenant,
        "watchkeeper.route": record.route,
        "watchkeeper.release": record.release,
        "watchkeeper.digest": record.digest or None,
        "watchkeeper.language": record.language,
        "watchkeeper.support": record.support,
        "watchkeeper.ttft_ms": record.ttft_ms,
        "watchkeeper.overhead_ms": record.overhead_ms,
        "watchkeeper.cost_usd": record.cost_usd,
        "watchkeeper.tags": as_json(record.tags) if record.tags else None,
        "watchkeeper.entities": (content and record.entities) or None,
        "watchkeeper.redactions": as_json(record.redactions) if record.redactions else None,
    }


def _call(record: Record, stage: Stage) -> dict[str, Value]:
    first = stage.attributes.get("first_token_ms")
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": record.upstream,
        "gen_ai.conversation.id": record.session,
        "gen_ai.request.model": record.model or None,
        "gen_ai.request.stream": record.stream,
        "gen_ai.response.model": record.model or None,
        "gen_ai.response.id": f"chatcmpl-{record.request_id}",
        "gen_ai.response.finish_reasons": [record.finish_reason] if record.finish_reason else None,
        "gen_ai.response.time_to_first_chunk": first / 1000 if isinstance(first, int | float) else None,
        "gen_ai.usage.input_tokens": record.input_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "error.type": record.error,
    }


def _messages(record: Record) -> dict[str, Value]:
    """What the model was told, asked and said. A message of the system's is no message here, but an instruction."""
    told = [_text(message.content) for message in record.prompt if message.role in INSTRUCTING]
    asked = [_message(message) for message in record.prompt if message.role not in INSTRUCTING]
    said = {
        "role": "assistant",
        "parts": [_text(record.output_text)] if record.output_text else [],
        "finish_reason": record.finish_reason or ("error" if record.error else "stop"),
    }
    return {
        "gen_ai.system_instructions": as_json(told) if told else None,
        "gen_ai.input.messages": as_json(asked) if asked else None,
        "gen_ai.output.messages": as_json([said]),
    }


def _message(message: Message) -> dict[str, Any]:
    part = {"type": "tool_call_response", "response": message.content} if message.role == "tool" else _text(message.content)
    return {"role": message.role, "parts": [part]}


def _text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


def _retrieval(record: Record, stage: Stage, content: bool) -> dict[str, Value]:
    query = stage.attributes.get("query")
    documents = [
        {"id": source.id, "score": source.score} | ({"title": source.title, "content": source.text} if content else {})
        for source in record.sources
    ]
    return {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.retrieval.query.text": str(query) if content and query else None,
        "gen_ai.retrieval.documents": as_json(documents) if documents else None,
    }
