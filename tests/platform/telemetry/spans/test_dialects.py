"""What real instrumentations export, and what older ones did → records. The recorded exports are described beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.record import Message, Record, Source
from watchkeeper.serving.redact import Redactor
from watchkeeper.telemetry import spans
from watchkeeper.telemetry.spans import Event, Part, Span
from watchkeeper.telemetry.spans.decoding import PROTOBUF

EXPORTS = Path(__file__).parents[2] / "serving" / "exports"
SYSTEM = "You answer questions about the library of Marl."
ASKED = "When does the library open? Write to ada.marl@example.org."
KEPT = "When does the library open? Write to [EMAIL]."
PASSAGE = "The library of Marl opens at nine."
ANSWER = "The library opens at nine."
NOW = 2_000_000_000_000_000


def recorded(name: str) -> list[Record]:
    """The records of an export, in the order in which their traces began."""
    found, invalid = spans.spans_of((EXPORTS / f"{name}.pb").read_bytes(), PROTOBUF)
    assert invalid == 0
    traces: dict[str, list[Part]] = {}
    for span in found:
        traces.setdefault(span.trace_id, []).append(spans.cleaned(spans.read(span), Redactor()))
    records = [spans.assemble(name, parts, source="otlp", arrived_at=NOW) for name, parts in traces.items()]
    return sorted((record for record in records if record), key=lambda record: record.received_at)


@pytest.mark.parametrize("name", ["openinference", "mlflow", "traceloop", "traceloop-older", "opentelemetry"])
def test_an_instrumentations_calls_become_whole_records(name: str) -> None:
    plain, streamed, failed, _ = recorded(name)
    for record in (plain, streamed):
        assert record.prompt == (Message("system", SYSTEM), Message("user", KEPT))
        assert (record.prompt_text, record.output_text) == (KEPT, ANSWER)
        assert (record.model, record.error, record.status) == ("marl-1-0926", None, 200)
        assert record.redactions == {"EMAIL": 1}
    for record in (plain, streamed, failed):
        assert (record.source, record.route, record.release) == ("otlp", "library-desk", "library-desk@1.4")
        assert record.tags == {"environment": "test"}
        assert [stage.name for stage in record.stages] == ["generate"]
        assert 0 < record.total_ms == record.stages[0].ms < 1000
        assert record.overhead_ms == 0
    assert (plain.input_tokens, plain.output_tokens, plain.finish_reason) == (31, 6, "stop")
    assert not plain.stream
    assert plain.ttft_ms is None
    assert (failed.prompt_text, failed.output_text, failed.model, failed.status) == (KEPT, "", "away", 500)
    assert failed.stages[0].status == "error"
    assert failed.error == ("error" if name == "traceloop-older" else "NotFoundError")


@pytest.mark.parametrize("name", ["openinference", "mlflow", "traceloop", "traceloop-older"])
def test_the_first_token_of_a_stream_is_known_where_its_instrumentation_tells(name: str) -> None:
    streamed = recorded(name)[1]
    assert streamed.stream
    assert streamed.ttft_ms is not None
    assert 0 < streamed.ttft_ms < streamed.total_ms


@pytest.mark.parametrize("name", ["openinference", "mlflow"])
def test_a_chain_with_a_retriever_is_one_request_that_rests_on_what_was_found(name: str) -> None:
    chain = recorded(name)[3]
    assert (chain.prompt_text, chain.output_text) == (KEPT, ANSWER)
    assert chain.prompt[1].content == f"{PASSAGE}\n\nQuestion: {KEPT}"
    assert [stage.name for stage in chain.stages] == ["ground", "generate"]
    title = "hours.md" if name == "mlflow" else ""
    assert chain.sources == (Source("hours.md#0", title, 0.9, PASSAGE),)
    assert chain.retrieved == 1
    assert chain.overhead_ms == pytest.approx(chain.total_ms - chain.stages[1].ms)
    if name == "openinference":
        assert (chain.session, chain.user) == ("s-1", "u-1")
        assert chain.tags == {"environment": "test", "floor": "2", "desk": "true"}


@pytest.mark.parametrize("name", ["traceloop", "opentelemetry"])
def test_a_web_request_around_a_call_lends_it_its_time_and_no_text(name: str) -> None:
    desk = recorded(name)[3]
    assert desk.prompt_text == f"{PASSAGE}\n\nQuestion: {KEPT}"
    assert desk.output_text == ANSWER
    assert desk.total_ms > desk.stages[0].ms
    assert desk.retrieved is None


def test_content_that_was_sent_as_log_records_is_not_there() -> None:
    plain, *_ = recorded("opentelemetry-logs")
    assert (plain.prompt, plain.prompt_text, plain.output_text) == ((), "", "")
    assert (plain.model, plain.input_tokens, plain.output_tokens) == ("marl-1-0926", 31, 6)


def said(attributes: Mapping[str, Any], *events: Event, **fields: Any) -> Part:
    given: dict[str, Any] = {"trace_id": "a" * 32, "span_id": "b" * 16, "start": 1_000_000_000, "end": 3_000_000_000}
    return spans.read(Span(**given | {"attributes": dict(attributes), "events": events} | fields))


TALK = [Message("system", SYSTEM), Message("user", "Are you open?")]


def test_system_instructions_stand_before_the_conversation() -> None:
    part = said(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "Anthropic",
            "gen_ai.system_instructions": json.dumps([{"type": "text", "content": SYSTEM}]),
            "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "Are you open?"}]}],
            "gen_ai.output.messages": json.dumps(
                [
                    {
                        "role": "assistant",
                        "parts": [
                            {"type": "reasoning", "content": "Hm."},
                            {"type": "text", "content": "Yes."},
                            {"type": "tool_call", "name": "clock", "arguments": {"zone": "UTC"}},
                        ],
                        "finish_reason": "tool_call",
                    }
                ]
            ),
            "gen_ai.conversation.id": "c-1",
            "gen_ai.response.time_to_first_chunk": 0.5,
        }
    )
    assert part.kind == "llm"
    assert part.messages == TALK
    assert (part.asked, part.answered, part.finish_reason) == ("Are you open?", "Yes.", "tool_call")
    assert (part.provider, part.session) == ("anthropic", "c-1")
    assert part.first_token_at == 1_500_000_000


def test_a_conversation_on_the_event_of_its_details() -> None:
    talk = [{"role": "user", "parts": [{"type": "text", "content": "Are you open?"}]}]
    details = Event("gen_ai.client.inference.operation.details", 1, {"gen_ai.input.messages": talk})
    assert said({"gen_ai.operation.name": "chat"}, details).asked == "Are you open?"


@pytest.mark.parametrize("as_json", [False, True])
def test_messages_as_events_of_the_span(as_json: bool) -> None:
    def event(name: str, **body: Any) -> Event:
        return Event(name, 1, {"gen_ai.event.content": json.dumps(body)} if as_json else body)

    part = said(
        {"gen_ai.system": "az.ai.inference", "gen_ai.request.model": "m", "gen_ai.usage.prompt_tokens": 7},
        event("gen_ai.system.message", content=SYSTEM),
        event("gen_ai.user.message", content="Are you open?"),
        event("gen_ai.choice", message={"role": "assistant", "content": "Yes."}, finish_reason="stop", index=0),
    )
    assert part.messages == TALK
    assert (part.kind, part.answered, part.finish_reason, part.input_tokens) == ("llm", "Yes.", "stop", 7)


def test_prompt_and_completion_as_events_of_content() -> None:
    part = said(
        {"gen_ai.operation.name": "chat"},
        Event("gen_ai.content.prompt", 1, {"gen_ai.prompt": json.dumps([{"role": "user", "content": "Are you open?"}])}),
        Event(
            "gen_ai.content.completion", 2, {"gen_ai.completion": json.dumps([{"role": "assistant", "content": "Yes."}])}
        ),
    )
    assert (part.asked, part.answered) == ("Are you open?", "Yes.")


def test_a_traceloop_workflow_says_what_it_was_given() -> None:
    part = said(
        {
            "traceloop.span.kind": "workflow",
            "traceloop.entity.input": json.dumps({"args": [], "kwargs": {"question": "Are you open?"}}),
            "traceloop.entity.output": json.dumps("Yes."),
            "traceloop.association.properties.session_id": "s-2",
            "traceloop.association.properties.plan": "gold",
        }
    )
    assert (part.kind, part.asked, part.answered, part.session) == ("step", "Are you open?", "Yes.", "s-2")
    assert part.tags == {"plan": "gold"}


def test_openinferences_parts_and_calls_of_tools() -> None:
    prefix = "llm.input_messages.0.message."
    part = said(
        {
            "openinference.span.kind": "LLM",
            f"{prefix}role": "user",
            f"{prefix}contents.0.message_content.type": "text",
            f"{prefix}contents.0.message_content.text": "What is this?",
            f"{prefix}contents.1.message_content.type": "image",
            f"{prefix}contents.1.message_content.image.image.url": "data:image/png;base64,AAAA",
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "look",
            "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": "{}",
        }
    )
    assert part.asked.startswith("What is this?\n[image sha256:")
    assert "AAAA" not in part.asked
    assert part.answered == ""


@pytest.mark.parametrize(
    ("output", "answer", "end"),
    [
        ({"choices": [{"message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}]}, "Yes.", "stop"),
        (
            {"content": [{"type": "text", "text": "Yes."}], "role": "assistant", "stop_reason": "end_turn"},
            "Yes.",
            "end_turn",
        ),
        (
            {"output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Yes."}]}]},
            "Yes.",
            None,
        ),
        ({"messages": [{"type": "human", "content": "?"}, {"type": "ai", "content": "Yes."}]}, "Yes.", None),
        ({"answer": "Yes.", "took": 3}, "Yes.", None),
        ("Yes.", "Yes.", None),
        ({"user_id": "42"}, "", None),
        ([1, 2, 3], "", None),
    ],
)
def test_what_mlflow_keeps_of_many_libraries_answers(output: Any, answer: str, end: str | None) -> None:
    part = said({"mlflow.spanType": '"CHAIN"', "mlflow.spanOutputs": json.dumps(output)})
    assert (part.answered, part.finish_reason) == (answer, end)


def test_an_argument_that_is_no_question_is_not_taken_for_one() -> None:
    assert said({"mlflow.spanType": '"CHAIN"', "mlflow.spanInputs": json.dumps({"user_id": "42"})}).asked == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [("openai.RateLimitError", "RateLimitError"), ("429", "429"), ("it broke for ada@example.org", "error"), ("", "error")],
)
def test_an_error_is_a_short_code_and_never_a_text(error: str, code: str) -> None:
    assert said({"gen_ai.operation.name": "chat", "error.type": error}, failed=True).error == code


def test_a_span_that_speaks_of_no_model_is_foreign() -> None:
    part = said({"http.request.method": "GET", "content": "x"})
    assert part.kind == "foreign"
    assert not part.told
