"""generate: calls the upstreams in the order that route gave; another one only before the first piece has come.

As many answers come of it as were asked for, and none goes on past a stop sequence, whatever the upstream can do.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from watchkeeper.embedded.stops import Stops
from watchkeeper.record import Message
from watchkeeper.serving.attempts import Attempts
from watchkeeper.serving.choice import CALLS
from watchkeeper.serving.journey import INSTRUCTING, Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.request import Turn
from watchkeeper.serving.stages import ground
from watchkeeper.serving.structured import INVALID_JSON
from watchkeeper.serving.structured import settle as shape_up
from watchkeeper.serving.wire import Delta, UpstreamFailed
from watchkeeper.settings import Upstream


def answers(journey: Journey, parts: Parts) -> AsyncGenerator[Delta, None]:
    """The deltas of all answers that were asked for: of further calls where an upstream gives fewer at once. Raises
    `UpstreamFailed`."""
    if journey.request.n > 1:
        return _several(journey, parts)
    return _stopped(call(journey, parts), journey, 0) if journey.request.stops else call(journey, parts)


async def _several(journey: Journey, parts: Parts) -> AsyncGenerator[Delta, None]:
    first = 0
    while True:
        try:
            async with aclosing(_stopped(call(journey, parts, first), journey, first)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            _estimate_usage(journey, parts, first)
        begun = next((choice.index for choice in journey.choices if not choice.begun), len(journey.choices))
        if begun in (first, len(journey.choices)):
            return
        journey.next_call()
        first = begun


async def _stopped(deltas: AsyncGenerator[Delta, None], journey: Journey, first: int) -> AsyncGenerator[Delta, None]:
    """The deltas with the first answer's number put right, each answer up to its first stop sequence. Once all have come
    to one, the call ends."""
    endings = [Stops(journey.request.stops) for _ in journey.choices[first:]]
    async with aclosing(deltas):
        async for delta in deltas:
            if not 0 <= delta.index < len(endings):
                continue  # more than was asked for
            stops = endings[delta.index]
            if stops.stopped:
                delta = Delta(usage=delta.usage, model=delta.model, index=delta.index)
            elif journey.request.stops:
                text = stops.add(delta.text) + (stops.finish() if delta.finish_reason else "")
                reason = "stop" if stops.stopped else delta.finish_reason
                delta = msgspec.structs.replace(delta, text=text, finish_reason=reason)
            yield msgspec.structs.replace(delta, index=first + delta.index) if first else delta
            if all(stops.stopped for stops in endings):
                return
    for place, stops in enumerate(endings):
        if rest := stops.finish():
            yield Delta(rest, index=first + place)


async def settle(journey: Journey, parts: Parts, span: Span) -> None:
    """Makes the answers the JSON that was asked for, with one repair each. Raises `UpstreamFailed` (502) for one that is
    not, where the settings say so."""
    shape, settings = journey.request.shape, parts.settings.structured
    if shape is None:
        return
    _estimate_usage(journey, parts, 0)  # another call may follow

    async def ask(text: str, problem: str) -> str | None:
        return await _again(journey, parts, text, problem)

    for choice in journey.choices:
        if choice.extra.get(CALLS) or not choice.begun:
            continue
        settled = await shape_up(
            shape, choice.answer, ask if settings.repair else None, torn=choice.finish_reason == "length"
        )
        choice.answer = settled.text
        choice.json = {"valid": settled.problem is None, "how": settled.how, "error": settled.problem}
        seen = span.attributes.get("json")
        span.attributes["json"] = settled.how if seen in (None, "valid") or settled.how == "invalid" else seen
        if settled.problem is not None and settings.on_invalid == "refuse":
            # What is wrong may name keys that the model made up, which no guard has read: that is for the record only.
            span.attributes["json_error"] = settled.problem
            raise UpstreamFailed(502, INVALID_JSON, "the answer is not the JSON that was asked for", retryable=False)


async def _again(journey: Journey, parts: Parts, text: str, problem: str) -> str | None:
    """What the model says when it is told what is wrong with its answer; None where it cannot be asked."""
    journey.next_call()
    added = [
        {"role": "assistant", "content": text},
        {"role": "user", "content": f"That is not what was asked for: {problem}. Answer with the corrected JSON only."},
    ]
    said = ""
    try:
        async with aclosing(call(journey, parts, journey.request.n - 1, added)) as deltas:
            async for delta in deltas:
                said += delta.text if delta.index == 0 else ""
                journey.usage = delta.usage or journey.usage
    except UpstreamFailed:
        return None
    return said


def _estimate_usage(journey: Journey, parts: Parts, first: int) -> None:
    """Notes what a call will have used, where the upstream did not say or was cut off before it could."""
    if journey.usage is None and (said := [choice.said for choice in journey.choices[first:] if choice.begun]):
        journey.usage = journey.prompt_tokens, sum(map(parts.tokens.text, said))
        journey.spans["generate"].attributes["usage"] = "estimated"


def call(
    journey: Journey, parts: Parts, first: int = 0, added: Sequence[dict[str, Any]] = ()
) -> AsyncGenerator[Delta, None]:
    """The deltas of one call for the answers from `first` on, to the messages and what is added to them. Raises
    `UpstreamFailed` with the last failure when nobody that may answer does."""

    said = ground.unfound(journey)
    if said is not None:
        return _told(said)

    def body(upstream: Upstream) -> dict[str, Any]:
        return body_of(journey, upstream, first, added)

    attempts = Attempts(parts.upstreams, journey.candidates, body, journey.ask)
    journey.tried.append(attempts)
    return attempts.deltas()


async def _told(said: str) -> AsyncGenerator[Delta, None]:
    """An answer that no upstream was asked for."""
    yield Delta(text=said, finish_reason="stop", usage=(0, 0))


def body_of(journey: Journey, upstream: Upstream, first: int = 0, added: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """What an upstream is sent for the answers from `first` on, with messages that are added to the conversation."""
    request, defaults = journey.request, journey.release.parameters
    body: dict[str, Any] = {
        **request.forwarded,
        "model": upstream.model,
        "messages": [*_wire(journey), *added],
        "max_tokens": journey.answer_tokens or journey.most_tokens,
        "temperature": defaults.temperature if request.temperature is None else request.temperature,
        "top_p": defaults.top_p if request.top_p is None else request.top_p,
    }
    if request.stops:
        body["stop"] = list(request.stops)
    if request.n - first > 1:
        body["n"] = request.n - first
    if first and isinstance(request.forwarded.get("seed"), int):
        body["seed"] = request.forwarded["seed"] + first  # the same one would give the same answer again
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
    body = {**turn.body, **turn.calls, "role": message.role, "content": message.content}
    if turn.images:
        pictures = [part for part in turn.body["content"] if part.get("type") == "image_url"]
        body["content"] = [{"type": "text", "text": message.content}, *pictures]
    elif turn.body.get("content") is None:
        body["content"] = None
    return body


def conclude(journey: Journey, parts: Parts) -> None:
    """Notes what the answer used, where the upstream did not say or was cut off before it could, and on the span what is
    known of its calls."""
    _estimate_usage(journey, parts, 0)
    span = journey.spans["generate"]
    span.attributes |= {"attempts": journey.attempts}
    if journey.attempts > 1:
        span.attributes |= {"tried": "; ".join(attempts.told() for attempts in journey.tried)}
        span.attributes |= {"hedged": any(attempts.hedged for attempts in journey.tried)}
    if journey.upstream:
        span.attributes |= {"upstream": journey.upstream.name, "model": journey.answer_model or journey.upstream.model}
    if journey.cache:
        span.attributes["cache"] = journey.cache
        if journey.cache_source:
            span.attributes["cache_source"] = journey.cache_source
    if journey.finish_reason:
        span.attributes["finish_reason"] = journey.finish_reason
    if journey.request.stream and journey.first_delta_at is not None:
        span.attributes["first_token_ms"] = (journey.first_delta_at - journey.started) * 1000 - span.offset_ms
