"""OpenInference (Arize Phoenix and its instrumentations): `openinference.span.kind`, messages as numbered attributes."""

from typing import Any, Final

from watchkeeper.record import Message
from watchkeeper.telemetry.spans import content
from watchkeeper.telemetry.spans.number import count, real
from watchkeeper.telemetry.spans.numbered import numbered
from watchkeeper.telemetry.spans.part import Kind, Part
from watchkeeper.telemetry.spans.passage import passages
from watchkeeper.telemetry.spans.span import Attributes, Span

KINDS: Final[dict[str, Kind]] = {
    "LLM": "llm",
    "RETRIEVER": "retriever",
    "EMBEDDING": "embedding",
    "GUARDRAIL": "guardrail",
}
FIRST_TOKEN: Final = "First Token Stream Event"


def read(span: Span, part: Part) -> None:
    """Fills in what the span says in these names."""
    said = span.attributes
    kind = str(said.get("openinference.span.kind") or "").upper()
    if not kind:
        return
    part.kind = KINDS.get(kind, "step")
    _texts(said, part)
    parameters = content.plain(said.get("llm.invocation_parameters"))
    parameters = parameters if isinstance(parameters, dict) else {}
    part.model = str(said.get("llm.model_name") or parameters.get("model") or "")
    part.provider = str(said.get("llm.provider") or said.get("llm.system") or "").lower()
    part.input_tokens = count(said.get("llm.token_count.prompt"))
    part.output_tokens = count(said.get("llm.token_count.completion"))
    part.cost_usd = real(said.get("llm.cost.total"))
    part.finish_reason = str(said.get("llm.finish_reason") or "") or part.finish_reason
    part.sources = passages(numbered(said, "retrieval.documents.", lambda value: value))
    part.tags = _tags(said)
    for event in span.events:
        if event.name == FIRST_TOKEN:
            part.first_token_at = event.at
    part.stream = part.first_token_at > 0 or parameters.get("stream") is True


def _texts(said: Attributes, part: Part) -> None:
    """From the messages; where there are none, from `input.value` and `output.value`."""
    part.messages = _messages(said, "llm.input_messages.") or content.messages(said.get("input.value"))
    part.asked = content.last(part.messages, "user") or content.asked(said.get("input.value"))
    if part.kind == "retriever":
        return
    spoken = _messages(said, "llm.output_messages.", calls=False)
    part.answered, end = content.answered(said.get("output.value"))
    part.finish_reason = end
    if spoken:
        part.answered = content.last(spoken, "assistant")


def _messages(said: Attributes, prefix: str, *, calls: bool = True) -> list[Message]:
    found = [_message(one.get("message"), calls) for one in numbered(said, prefix, lambda value: value)]
    return [one for one in found if one is not None]


def _message(value: Any, calls: bool) -> Message | None:
    """A message as numbered attributes have it: contents and calls of tools one level deeper than in any API."""
    if not isinstance(value, dict):
        return None
    parts = _inner(value.get("contents"), "message_content")
    called = _inner(value.get("tool_calls"), "tool_call") if calls else []
    given = value.get("content", parts or "")
    return content.message({"role": value.get("role"), "content": given, "tool_calls": called})


def _inner(listed: Any, name: str) -> list[Any]:
    return [one[name] for one in listed if isinstance(one, dict) and name in one] if isinstance(listed, list) else []


def _tags(said: Attributes) -> dict[str, str]:
    listed = said.get("tag.tags")
    metadata = content.plain(said.get("metadata"))
    told = metadata if isinstance(metadata, dict) else {}
    tags = {key: str(value) for key, value in told.items() if isinstance(value, str | int | float)}
    return tags | {str(tag): "true" for tag in (listed if isinstance(listed, list) else [])}
