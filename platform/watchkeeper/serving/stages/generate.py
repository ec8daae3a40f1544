"""generate: calls the upstreams in the order that route gave; the next one only before the first piece has come."""

from collections.abc import AsyncGenerator
from typing import Any

from watchkeeper.record import Message
from watchkeeper.serving.journey import INSTRUCTING, Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.request import Turn
from watchkeeper.serving.wire import Delta, UpstreamFailed
from watchkeeper.settings import Upstream


async def call(journey: Journey, parts: Parts) -> AsyncGenerator[Delta, None]:
    """The answer's deltas. Raises `UpstreamFailed` with the last failure when every candidate failed."""
    failure = UpstreamFailed(503, "upstream_unavailable", "no upstream is set for this model", retryable=False)
    for upstream in journey.candidates:
        journey.upstream = upstream
        journey.attempts += 1
        begun = False
        deltas = parts.upstreams.call(upstream, _body(journey, upstream))
        try:
            async for delta in deltas:
                begun = True
                yield delta
            return
        except UpstreamFailed as error:
            failure = error
            if begun or not error.retryable:
                raise
        finally:
            await deltas.aclose()
    raise failure


def _body(journey: Journey, upstream: Upstream) -> dict[str, Any]:
    request, defaults = journey.request, journey.release.parameters
    body: dict[str, Any] = {
        **request.forwarded,
        "model": upstream.model,
        "messages": _wire(journey),
        "max_tokens": min(request.max_tokens or defaults.max_tokens, defaults.max_tokens),
        "temperature": defaults.temperature if request.temperature is None else request.temperature,
        "top_p": defaults.top_p if request.top_p is None else request.top_p,
    }
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def _wire(journey: Journey) -> list[dict[str, Any]]:
    """Messages as the upstream gets them: the client's own keep their other fields (tool calls, names) and images."""
    talk = [turn for turn in journey.turns if turn.role not in INSTRUCTING]
    before = len(journey.messages) - len(talk)
    return [{"role": message.role, "content": message.content} for message in journey.messages[:before]] + [
        _own(turn, message) for turn, message in zip(talk, journey.messages[before:], strict=True)
    ]


def _own(turn: Turn, message: Message) -> dict[str, Any]:
    body = {**turn.body, "role": message.role, "content": message.content}
    if turn.images:
        pictures = [part for part in turn.body["content"] if part.get("type") == "image_url"]
        body["content"] = [{"type": "text", "text": message.content}, *pictures]
    elif turn.body.get("content") is None:
        body["content"] = None
    return body


def describe(journey: Journey, span: Span) -> None:
    """Notes on the span what is known of the call so far."""
    span.attributes |= {"attempts": journey.attempts}
    if journey.upstream:
        span.attributes |= {"upstream": journey.upstream.name, "model": journey.answer_model or journey.upstream.model}
    if journey.finish_reason:
        span.attributes["finish_reason"] = journey.finish_reason
    if journey.request.stream and journey.first_delta_at is not None:
        span.attributes["first_token_ms"] = (journey.first_delta_at - journey.started) * 1000 - span.offset_ms
