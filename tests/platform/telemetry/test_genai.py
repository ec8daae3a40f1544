"""What any collector gets: OpenTelemetry's own names, messages in the shape of its schemas, nothing that is MLflow's."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from watchkeeper.record import Message, Record, Source, Stage, Verdict
from watchkeeper.telemetry import spans as reading
from watchkeeper.telemetry.genai import export_request
from watchkeeper.telemetry.spans.decoding import PROTOBUF

Make = Callable[..., Record]


class Whole:
    """Redacts nothing: what is read back is to be what was sent."""

    def __call__(self, text: str) -> tuple[str, dict[str, int]]:
        return text, {}

    def name(self, text: str) -> str:
        return text


def exported(*records: Record, content: bool = True) -> ExportTraceServiceRequest:
    request: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(export_request(records, content=content))
    return request


def spans(*records: Record, content: bool = True) -> list[Span]:
    request = exported(*records, content=content)
    return [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: plain(pair.value) for pair in pairs}


def plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return [plain(item) for item in value.array_value.values] if kind == "array_value" else getattr(value, str(kind))


def span(record: Record, name: str, content: bool = True) -> tuple[Span, dict[str, Any]]:
    (found,) = [one for one in spans(record, content=content) if one.name == name]
    return found, attributes(found.attributes)


def test_the_request_is_a_server_span_in_https_names(make_record: Make) -> None:
    record = make_record(user="u-1", session="s-1", tags={"app": "help"}, release="watchkeeper@2")
    root, said = span(record, "POST /v1/chat/completions")
    assert (root.kind, root.status.code, root.parent_span_id) == (Span.SPAN_KIND_SERVER, Status.STATUS_CODE_OK, b"")
    assert root.trace_id.hex() == record.request_id
    assert {"http.request.method": "POST", "http.response.status_code": 200}.items() <= said.items()
    assert (said["user.id"], said["session.id"], said["watchkeeper.release"]) == ("u-1", "s-1", "watchkeeper@2")
    assert json.loads(said["watchkeeper.tags"]) == {"app": "help"}
    assert "error.type" not in said


def test_the_call_is_a_client_span_with_messages_in_their_schema(make_record: Make) -> None:
    prompt = (
        *(Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello"), Message("tool", "21 °C")),
        Message("user", "Who are you?"),
    )
    call, said = span(make_record(prompt=prompt, session="s-1", stream=True), "chat smol")
    assert call.kind == Span.SPAN_KIND_CLIENT
    assert json.loads(said["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be brief."}]
    assert json.loads(said["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "Hi"}]},
        {"role": "assistant", "parts": [{"type": "text", "content": "Hello"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "response": "21 °C"}]},
        {"role": "user", "parts": [{"type": "text", "content": "Who are you?"}]},
    ]
    assert json.loads(said["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "A model."}], "finish_reason": "stop"}
    ]
    wanted = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "local", "gen_ai.request.model": "smol",
        "gen_ai.response.model": "smol", "gen_ai.response.finish_reasons": ["stop"], "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 5, "gen_ai.conversation.id": "s-1", "gen_ai.request.stream": True,
    }  # fmt: skip
    assert wanted.items() <= said.items()
    assert said["gen_ai.response.id"] == f"chatcmpl-{call.trace_id.hex()}", "the id that the client got"


def test_retrieval_has_its_query_and_documents(make_record: Make) -> None:
    stages = (Stage("ground", 1, 2, "ok", {"query": "leave?", "turns": 0, "entities": "Ana"}),)
    _, said = span(make_record(stages=stages, sources=(Source("a.md#1", "Leave", 0.5, "25 days"),)), "retrieval")
    assert (said["gen_ai.operation.name"], said["gen_ai.retrieval.query.text"]) == ("retrieval", "leave?")
    documents = json.loads(said["gen_ai.retrieval.documents"])
    assert documents == [{"id": "a.md#1", "score": 0.5, "title": "Leave", "content": "25 days"}]


def test_failures_and_verdicts_are_where_people_look_for_them(make_record: Make) -> None:
    verdict = Verdict("injection", "prompt", "override", "block", 0.99, "ignore", "1")
    record = make_record(error="upstream_timeout", status=504, verdicts=(verdict,))
    root, said = span(record, "POST /v1/chat/completions")
    assert (root.status.code, said["error.type"]) == (Status.STATUS_CODE_ERROR, "upstream_timeout")
    assert span(record, "chat smol")[1]["error.type"] == "upstream_timeout"
    guard, _ = span(record, "guard_in")
    (event,) = guard.events
    assert (event.name, attributes(event.attributes)["watchkeeper.guard.action"]) == ("watchkeeper.guard", "block")


def test_each_worker_is_a_resource(make_record: Make) -> None:
    records = [make_record(replica=f"gateway-{number % 2}") for number in range(4)]
    request = exported(*records)
    assert len(request.resource_spans) == 2
    for resource in request.resource_spans:
        about = attributes(resource.resource.attributes)
        assert about["service.name"] == "watchkeeper"
        worker = about["service.instance.id"]
        ids = {one.trace_id.hex() for one in resource.scope_spans[0].spans}
        assert ids == {record.request_id for record in records if record.replica == worker}


def test_without_content_only_numbers_and_names_leave(make_record: Make) -> None:
    stages = (Stage("ground", 1, 2, "ok", {"query": "SAID", "entities": "SAID"}), Stage("generate", 3, 4))
    record = make_record(
        prompt=(Message("system", "SAID"), Message("user", "SAID")), prompt_text="SAID", output_text="SAID", stages=stages,
        sources=(Source("a#1", "SAID", 1.0, "SAID"),), entities=("SAID",),
    )  # fmt: skip
    assert b"SAID" in export_request([record])
    assert b"SAID" not in export_request([record], content=False)
    assert span(record, "chat smol", content=False)[1]["gen_ai.usage.output_tokens"] == 5


def test_what_we_send_is_read_by_our_own_intake_as_the_same_request(make_record: Make) -> None:
    record = make_record(user="u-1", session="s-1", sources=(Source("a#1", "A", 0.5, "text"),), retrieved=1)
    found, invalid = reading.spans_of(export_request([record]), PROTOBUF)
    parts = [reading.cleaned(reading.read(one), Whole()) for one in found]
    back = reading.assemble(record.request_id, parts, source="otlp", arrived_at=record.received_at)
    assert (invalid, back is not None) == (0, True)
    assert back is not None
    same = ("prompt_text", "output_text", "model", "input_tokens", "output_tokens", "session", "user", "finish_reason")
    assert {name: getattr(back, name) for name in same} == {name: getattr(record, name) for name in same}


ANY = st.text(st.characters(codec=None), max_size=8)


@given(text=ANY, number=st.integers() | st.floats() | st.booleans(), roles=st.lists(ANY, max_size=2))
@example(text="\ud800", number=0, roles=[])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_in_a_record_it_can_be_written_and_read(
    make_record: Make, text: str, number: Any, roles: list[str]
) -> None:
    record = make_record(
        prompt=tuple(Message(role, text) for role in roles), output_text=text, model=text, upstream=text, session=text,
        user=text, error=text, tags={text: text}, replica=text, finish_reason=text, input_tokens=2**80, cost_usd=1e999,
        sources=(Source(text, text, 1e999, text),), stages=(Stage("generate", 1, 1, "ok", {text: number, "query": text}),),
    )  # fmt: skip
    assert len(spans(record)) == 2
    for one in spans(record):
        assert not any("mlflow" in pair.key for pair in one.attributes)


def test_an_id_that_is_none_is_refused(make_record: Make) -> None:
    with pytest.raises(ValueError, match="not a trace id"):
        export_request([make_record(request_id="ab")])
