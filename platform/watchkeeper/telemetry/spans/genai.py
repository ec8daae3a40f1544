"""OpenTelemetry's conventions for generative AI, as they are now (0.66b2, in development): messages are attributes.

`gen_ai.input.messages`, `gen_ai.output.messages`, `gen_ai.system_instructions` on the span, or on its event
`gen_ai.client.inference.operation.details`. Where an instrumentation sends them as log records instead, the span has no
text, and so has its record.
"""

from typing import Any, Final

from watchkeeper.record import Message
from watchkeeper.telemetry.spans import content
from watchkeeper.telemetry.spans.number import count, real
from watchkeeper.telemetry.spans.part import Kind, Part
from watchkeeper.telemetry.spans.passage import passages
from watchkeeper.telemetry.spans.span import Attributes, Span

OPERATIONS: Final[dict[str, Kind]] = {
    "chat": "llm",
    "text_completion": "llm",
    "generate_content": "llm",
    "embeddings": "embedding",
    "retrieval": "retriever",
}
DETAILS: Final = "gen_ai.client.inference.operation.details"
CHUNKS: Final = ("gen_ai.content.completion.chunk", "llm.content.completion.chunk")
NANO: Final = 1_000_000_000


def read(span: Span, part: Part) -> None:
    """Fills in what the span says in these names."""
    said = {**span.attributes}
    for event in span.events:
        if event.name == DETAILS:
            said |= event.attributes
    operation = said.get("gen_ai.operation.name")
    if part.kind == "foreign" and operation:
        part.kind = OPERATIONS.get(str(operation), "step")
    elif part.kind == "foreign" and "llm.request.type" not in said and any(key.startswith("gen_ai.") for key in said):
        part.kind = "llm" if "gen_ai.request.model" in said else "step"
    _texts(said, part)
    part.model = part.model or str(said.get("gen_ai.response.model") or said.get("gen_ai.request.model") or "")
    part.provider = part.provider or str(said.get("gen_ai.provider.name") or said.get("gen_ai.system") or "").lower()
    part.input_tokens = part.input_tokens or count(said.get("gen_ai.usage.input_tokens"))
    part.output_tokens = part.output_tokens or count(said.get("gen_ai.usage.output_tokens"))
    reasons = said.get("gen_ai.response.finish_reasons")
    if part.finish_reason is None and isinstance(reasons, list) and reasons:
        part.finish_reason = str(reasons[0]) or None
    _times(span, said, part)


def _texts(said: Attributes, part: Part) -> None:
    if not part.messages:
        turns = content.messages(said.get("gen_ai.input.messages"))
        system = content.text_of(content.plain(said.get("gen_ai.system_instructions")))
        part.messages = [*([Message("system", system)] if system else []), *turns]
        part.asked = part.asked or content.last(turns, "user")
    if not part.answered and "gen_ai.output.messages" in said:
        part.answered, end = _answer(said["gen_ai.output.messages"])
        part.finish_reason = part.finish_reason or end
    if part.kind == "retriever":
        part.asked = part.asked or str(said.get("gen_ai.retrieval.query.text") or "")
        part.sources = part.sources or passages(said.get("gen_ai.retrieval.documents"))


def _answer(value: Any) -> tuple[str, str | None]:
    """The text of the newest output message, without the calls of tools in it, and why it ended."""
    value = content.plain(value)
    spoken = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
    if not spoken:
        return content.answered(value)
    parts = spoken[-1].get("parts", spoken[-1].get("content"))
    if isinstance(parts, list):
        parts = [one for one in parts if not isinstance(one, dict) or one.get("type") == "text"]
    end = spoken[-1].get("finish_reason")
    return content.text_of(parts), str(end) if end else None


def _times(span: Span, said: Attributes, part: Part) -> None:
    chunks = [event.at for event in span.events if event.name in CHUNKS]
    first = real(said.get("gen_ai.response.time_to_first_chunk"))
    if first and not part.first_token_at:
        part.first_token_at = span.start + int(first * NANO)
    elif chunks and not part.first_token_at:
        part.first_token_at = chunks[0]
    asked = (said.get("gen_ai.request.stream"), said.get("gen_ai.is_streaming"), said.get("llm.is_streaming"))
    part.stream = part.stream or any(value is True for value in asked) or part.first_token_at > 0
