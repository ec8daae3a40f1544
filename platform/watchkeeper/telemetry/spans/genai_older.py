"""The names before the current ones: numbered attributes (OpenLLMetry), events on the span, other names of tokens.

gen_ai.prompt.N.role .content, gen_ai.completion.N.content .finish_reason      OpenLLMetry, Traceloop
events gen_ai.user.message, gen_ai.choice, … with `content` or a JSON body     conventions up to 1.36 as span events
events gen_ai.content.prompt, gen_ai.content.completion                        conventions up to 1.27
traceloop.span.kind, traceloop.entity.input, .output                           Traceloop's workflows and tasks
"""

from typing import Any, Final

from watchkeeper.record import Message
from watchkeeper.telemetry.spans import content
from watchkeeper.telemetry.spans.number import count
from watchkeeper.telemetry.spans.numbered import numbered
from watchkeeper.telemetry.spans.part import Kind, Part
from watchkeeper.telemetry.spans.span import Event, Span

KINDS: Final[dict[str, Kind]] = {"chat": "llm", "completion": "llm", "embedding": "embedding"}
SPOKEN: Final = {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")}


def read(span: Span, part: Part) -> None:
    """Fills in what the span says in these names, where the current ones left it open."""
    said = span.attributes
    request, step = said.get("llm.request.type"), said.get("traceloop.span.kind")
    if request and part.kind in ("foreign", "step"):
        part.kind = KINDS.get(str(request), "step")
    elif step and part.kind == "foreign":
        part.kind = "step"
    if not part.messages:
        part.messages = _turns(span)
        part.asked = part.asked or content.last(part.messages, "user")
    if not part.answered:
        part.answered, end = _answer(span)
        part.finish_reason = part.finish_reason or end
    part.asked = part.asked or content.asked(said.get("traceloop.entity.input"))
    part.answered = part.answered or content.answered(said.get("traceloop.entity.output"))[0]
    part.input_tokens = part.input_tokens or count(said.get("gen_ai.usage.prompt_tokens"))
    part.output_tokens = part.output_tokens or count(said.get("gen_ai.usage.completion_tokens"))


def _turns(span: Span) -> list[Message]:
    """The conversation, from numbered attributes, else from events."""
    found = [content.message(each) for each in numbered(span.attributes, "gen_ai.prompt.", content.parts_in)]
    turns = [turn for turn in found if turn is not None]
    if turns:
        return turns
    for event in span.events:
        if event.name == "gen_ai.content.prompt":
            return content.messages(event.attributes.get("gen_ai.prompt"))
        if event.name in SPOKEN:
            said = _body(event)
            turn = content.message({"role": SPOKEN[event.name], **said})
            turns += [turn] if turn else []
    return turns


def _answer(span: Span) -> tuple[str, str | None]:
    choices = numbered(span.attributes, "gen_ai.completion.", content.parts_in)
    if choices:
        return content.answered({"choices": choices})
    for event in span.events:
        if event.name == "gen_ai.content.completion":
            return content.answered(event.attributes.get("gen_ai.completion"))
        if event.name == "gen_ai.choice":
            body = _body(event)
            body["message"] = content.plain(body.get("message", body.get("content")))
            if isinstance(body["message"], str):
                body["message"] = {"role": "assistant", "content": body["message"]}
            return content.answered({"choices": [body]})
    return "", None


def _body(event: Event) -> dict[str, Any]:
    """What an event holds: its attributes, or the JSON that stands in one of them."""
    body = content.plain(event.attributes.get("gen_ai.event.content"))
    said = body if isinstance(body, dict) else {**event.attributes}
    return {key.removeprefix("gen_ai."): value for key, value in said.items()}
