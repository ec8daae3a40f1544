"""Answers in OpenAI's shapes: completions, chunks of a stream, errors, lists. Makes bytes of what the journey holds."""

import base64
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from watchkeeper.embedded.openai_api import ErrorBody, ErrorDetail, Model, ModelList
from watchkeeper.record import strongest
from watchkeeper.serving.choice import CALLS, Choice, Piece
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.request import Refused
from watchkeeper.serving.shapes import (
    About,
    AnswerChoice,
    AnswerMessage,
    Chunk,
    ChunkChoice,
    Completion,
    Embeddings,
    TokenLogprobs,
    Usage,
)

_TYPES = {400: "invalid_request_error", 404: "invalid_request_error", 429: "rate_limit_error"}


class Whole(NamedTuple):
    """An answer that leaves at once: JSON. `headers`: those besides its type and length."""

    status: int
    body: bytes
    headers: dict[str, str]


def messages(whole: Whole) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ASGI messages that send it."""
    headers = [(b"content-length", b"%d" % len(whole.body)), (b"content-type", b"application/json")]
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in whole.headers.items()]
    start = {"type": "http.response.start", "status": whole.status, "headers": headers}
    return start, stream_part(whole.body, last=True)


def plain_json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(_json(body), status, headers, media_type="application/json")


def error(refused: Refused, headers: dict[str, str]) -> Response:
    """An error answer, by way of Starlette."""
    whole = refusal(refused, headers)
    return Response(whole.body, whole.status, whole.headers, media_type="application/json")


def refusal(refused: Refused, headers: dict[str, str]) -> Whole:
    """An error answer; `retry-after` where it is known when to come back."""
    kind = _TYPES.get(refused.status, "invalid_request_error" if refused.status < 500 else "server_error")
    body = msgspec.to_builtins(ErrorBody(ErrorDetail(refused.message, kind, refused.param, refused.code)))
    extra = {"retry-after": str(refused.retry_after)} if refused.retry_after is not None else {}
    return Whole(refused.status, _json(body), headers | extra)


def answer(journey: Journey, headers: dict[str, str]) -> Whole:
    """A plain completion. A withheld answer is an empty one with `finish_reason` `content_filter`."""
    body: Completion = {
        "id": _id(journey),
        "object": "chat.completion",
        "created": journey.received_at // 1_000_000,
        "model": _model(journey),
        "choices": [_choice(choice) for choice in journey.choices],
        "usage": _usage(journey),
        "watchkeeper": _about(journey),
    }
    return Whole(200, _json(body), headers)


def _choice(choice: Choice) -> AnswerChoice:
    content = None if choice.leaving.get(CALLS) and not choice.delivered else choice.delivered or ""
    tokens = choice.logprobs.beside(choice.delivered or "")
    return {
        "index": choice.index,
        "message": cast(AnswerMessage, {"role": "assistant", "content": content, **choice.leaving}),
        "logprobs": {"content": tokens} if tokens else None,
        "finish_reason": _reason(choice),
    }


def _reason(choice: Choice) -> str:
    return choice.finish_reason or ("tool_calls" if choice.leaving.get(CALLS) else "stop")


def stream_start(headers: dict[str, str]) -> dict[str, Any]:
    """The ASGI message that opens an event stream."""
    all_headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", **headers}
    return {
        "type": "http.response.start",
        "status": 200,
        "headers": [(name.encode(), value.encode()) for name, value in all_headers.items()],
    }


def stream_part(body: bytes, *, last: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": not last}


def opening(journey: Journey) -> bytes:
    begun: dict[str, Any] = {"role": "assistant", "content": ""}
    return b"".join(_event(_chunk(journey, [_part(choice.index, begun)])) for choice in journey.choices)


def piece(journey: Journey, piece: Piece) -> bytes:
    """Calls come whole, numbered as pieces of a stream are."""
    delta: dict[str, Any] = {"content": piece.text} if piece.text else dict(piece.extra)
    if CALLS in delta:
        delta[CALLS] = [{"index": index, **call} for index, call in enumerate(piece.extra[CALLS])]
    return _event(_chunk(journey, [_part(piece.index, delta, piece.logprobs)]))


def ending(journey: Journey) -> bytes:
    """The final chunk of each choice (with what the client should know of the verdicts), usage where it was asked for, and
    the end. An upstream that broke off ends in an error event instead, as OpenAI's clients expect."""
    if journey.error:
        return broken(Refused(502, journey.error, "the upstream broke off in mid-answer"))
    events = b""
    for choice in journey.choices:
        final = _chunk(journey, [_part(choice.index, {}, reason=_reason(choice))])
        final["watchkeeper"] = _about(journey, choice)
        events += _event(final)
    if journey.request.include_usage:
        final = _chunk(journey, [])
        final["usage"] = _usage(journey)
        events += _event(final)
    return events + b"data: [DONE]\n\n"


def broken(refused: Refused) -> bytes:
    body = msgspec.to_builtins(ErrorBody(ErrorDetail(refused.message, "server_error", None, refused.code)))
    return _event(body) + b"data: [DONE]\n\n"


def models(names: list[str]) -> Response:
    return plain_json(msgspec.to_builtins(ModelList(data=tuple(Model(id=name, created=0) for name in names))))


def model(name: str, names: list[str]) -> Response:
    """One of the `names`."""
    if name not in names:
        message = f"model: nothing here serves {name[:100]!r}; there is {', '.join(names)}"
        return error(Refused(404, "model_not_found", message, param="model"), {})
    return plain_json(msgspec.to_builtins(Model(id=name, created=0)))


def embeddings(vectors: NDArray[np.float32], model: str, tokens: int, packed: bool) -> Response:
    """`packed`: base64 of little-endian float32, as the official client asks for."""

    def form(vector: NDArray[np.float32]) -> Any:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode() if packed else vector.tolist()

    body: Embeddings = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": form(vector)} for index, vector in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return plain_json(body)


def _id(journey: Journey) -> str:
    return f"chatcmpl-{journey.request_id}"


def _model(journey: Journey) -> str:
    return journey.answer_model or (journey.upstream.model if journey.upstream else journey.request.model)


def _chunk(journey: Journey, choices: list[ChunkChoice]) -> Chunk:
    return {
        "id": _id(journey),
        "object": "chat.completion.chunk",
        "created": journey.received_at // 1_000_000,
        "model": _model(journey),
        "choices": choices,
    }


def _part(
    index: int, delta: dict[str, Any], logprobs: list[dict[str, Any]] | None = None, reason: str | None = None
) -> ChunkChoice:
    tokens: TokenLogprobs | None = {"content": logprobs} if logprobs else None
    return {"index": index, "delta": delta, "logprobs": tokens, "finish_reason": reason}


def _usage(journey: Journey) -> Usage:
    inputs, outputs = journey.tokens
    return {"prompt_tokens": inputs, "completion_tokens": outputs, "total_tokens": inputs + outputs}


def _about(journey: Journey, choice: Choice | None = None) -> About:
    """The extra field of an answer: what it rests on and what the guards said; for a cut, what had left before it."""
    choice = choice or next((one for one in journey.choices if one.withheld), journey.choices[0])
    about: dict[str, Any] = {
        "request_id": journey.request_id,
        "release": journey.release.id,
        "action": strongest(verdict.action for verdict in journey.verdicts),
        "support": choice.support,
        "sources": [{"id": source.id, "title": source.title} for source in journey.sources],
        "entities": list(journey.entities),
        "left_out": dict(journey.left_out),
    }
    if choice.citing is not None and journey.sources:
        about["citations"] = msgspec.to_builtins(choice.citing.found)
    if choice.below_min_support:
        about["below_min_support"] = choice.below_min_support
    ground = journey.spans.get("ground")
    if ground is not None and "no_hit" in ground.attributes:
        about["no_hit"] = ground.attributes["no_hit"]
    if choice.json is not None:
        about["json"] = choice.json
    if choice.logprobs.lost:
        about["logprobs"] = "left out from where the text was changed"
    return cast(About, about | choice.withheld)


def _event(body: Any) -> bytes:
    return b"data: " + _json(body) + b"\n\n"


def _json(body: Any) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        return msgspec.json.encode(_clean(body))


def _clean(value: Any) -> Any:
    """Lone surrogates cannot be written as UTF-8: they become the replacement character."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if not value.isascii() else value
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
