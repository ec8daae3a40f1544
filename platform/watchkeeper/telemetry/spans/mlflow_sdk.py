"""MLflow's own attributes, as its SDK exports them by OTLP and keeps them: each value is JSON in a string.

Knows nothing of MLflow's client; `watchkeeper.tracking` is the one door to that.
"""

from typing import Any, Final

from watchkeeper.telemetry.spans import content
from watchkeeper.telemetry.spans.number import count, real
from watchkeeper.telemetry.spans.part import Kind, Part
from watchkeeper.telemetry.spans.passage import passages
from watchkeeper.telemetry.spans.span import Attributes, Span

KINDS: Final[dict[str, Kind]] = {
    "CHAT_MODEL": "llm",
    "LLM": "llm",
    "RETRIEVER": "retriever",
    "EMBEDDING": "embedding",
    "GUARDRAIL": "guardrail",
}
CHUNK: Final = "mlflow.chunk.item.0"
OURS: Final = ("mlflow.spanType", "mlflow.spanInputs", "mlflow.traceRequestId")


def read(span: Span, part: Part) -> None:
    """Fills in what the span says in these names."""
    said = span.attributes
    if not any(name in said for name in OURS):
        return
    kind = KINDS.get(_word(said, "mlflow.spanType"), "step")
    part.kind = kind if part.kind in ("foreign", "step") else part.kind
    inputs, outputs = content.plain(said.get("mlflow.spanInputs")), content.plain(said.get("mlflow.spanOutputs"))
    part.messages = part.messages or content.messages(inputs)
    part.asked = part.asked or content.last(part.messages, "user") or content.asked(inputs)
    if part.kind == "retriever":
        part.sources = part.sources or passages(outputs)
    elif not part.answered:
        part.answered, end = content.answered(outputs)
        part.finish_reason = part.finish_reason or end
    part.model = part.model or _word(said, "mlflow.llm.model") or _asked_for(inputs)
    part.provider = part.provider or _word(said, "mlflow.llm.provider").lower()
    used, cost = _object(said, "mlflow.chat.tokenUsage"), _object(said, "mlflow.llm.cost")
    part.input_tokens = part.input_tokens or count(used.get("input_tokens"))
    part.output_tokens = part.output_tokens or count(used.get("output_tokens"))
    part.cost_usd = part.cost_usd or real(cost.get("total_cost"))
    part.stream = part.stream or (isinstance(inputs, dict) and inputs.get("stream") is True)
    for event in span.events:
        if event.name == CHUNK and not part.first_token_at:
            part.first_token_at = event.at


def _asked_for(inputs: Any) -> str:
    """The model that was asked, where none answered."""
    model = inputs.get("model") if isinstance(inputs, dict) else None
    return model if isinstance(model, str) else ""


def _word(said: Attributes, name: str) -> str:
    value = content.plain(said.get(name))
    return value if isinstance(value, str) else ""


def _object(said: Attributes, name: str) -> dict[str, Any]:
    value = content.plain(said.get(name))
    return value if isinstance(value, dict) else {}
