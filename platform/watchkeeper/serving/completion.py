"""Answers in OpenAI's shapes: completions, chunks of a stream, errors, lists. Makes bytes of what the journey holds."""

import base64
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from watchkeeper.embedded.openai_api import ErrorBody, ErrorDetail, Model, ModelList
from watchkeeper.record import strongest
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.request import Refused

_TYPES = {400: "invalid_request_error", 404: "invalid_request_error", 429: "rate_limit_error"}


def plain_json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(_json(body), status, headers, media_type="application/json")


def error(refused: Refused, headers: dict[str, str]) -> Response:
    """An error answer; `retry-after` where it is known when to come back."""
    kind = _TYPES.get(refused.status, "invalid_request_error" if refused.status < 500 else "server_error")
    body = msgspec.to_builtins(ErrorBody(ErrorDetail(refused.message, kind, refused.param, refused.code)))
    extra = {"retry-after": str(refused.retry_after)} if refused.retry_after is not None else {}
    return plain_json(body, refused.status, headers | extra)


def answer(journey: Journey, headers: dict[str, str]) -> Response:
    """A plain completion. A withheld answer is an empty one with `finish_reason` `content_filter`."""
    blocked = journey.finish_reason == "content_filter"
    message: dict[str, Any] = {
        "role": "assistant",
        "content": journey.delivered or "",
        **({} if blocked else journey.extra),
    }
    if message.get("tool_calls") and not journey.delivered:
        message["content"] = None
    body = _envelope(journey, "chat.completion") | {
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": journey.finish_reason or "stop"}],
        "usage": _usage(journey),
        "watchkeeper": _about(journey),
    }
    return plain_json(body, 200, headers)


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
    return _event(_chunk(journey, {"role": "assistant", "content": ""}))


def piece(journey: Journey, text: str) -> bytes:
    return _event(_chunk(journey, {"content": text}))


def ending(journey: Journey) -> bytes:
    """The final chunk (with what the client should know of the verdicts), usage where it was asked for, and the end.
    An upstream that broke off ends in an error event instead, as OpenAI's clients expect."""
    if journey.error:
        return broken(Refused(502, journey.error, "the upstream broke off in mid-answer"))
    final = _chunk(journey, {}, journey.finish_reason or "stop") | {"watchkeeper": _about(journey)}
    events = _event(final)
    if journey.request.include_usage:
        events += _event(_envelope(journey, "chat.completion.chunk") | {"choices": [], "usage": _usage(journey)})
    return events + b"data: [DONE]\n\n"


def broken(refused: Refused) -> bytes:
    body = msgspec.to_builtins(ErrorBody(ErrorDetail(refused.message, "server_error", None, refused.code)))
    return _event(body) + b"data: [DONE]\n\n"


def models(names: list[str]) -> Response:
    return plain_json(msgspec.to_builtins(ModelList(data=tuple(Model(id=name, created=0) for name in names))))


def embeddings(vectors: NDArray[np.float32], model: str, packed: bool) -> Response:
    """`packed`: base64 of little-endian float32, as the official client asks for."""

    def form(vector: NDArray[np.float32]) -> Any:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode() if packed else vector.tolist()

    data = [{"object": "embedding", "index": index, "embedding": form(vector)} for index, vector in enumerate(vectors)]
    return plain_json({"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": 0, "total_tokens": 0}})


def _envelope(journey: Journey, kind: str) -> dict[str, Any]:
    model = journey.answer_model or (journey.upstream.model if journey.upstream else journey.request.model)
    return {
        "id": f"chatcmpl-{journey.request_id}",
        "object": kind,
        "created": journey.received_at // 1_000_000,
        "model": model,
    }


def _chunk(journey: Journey, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return _envelope(journey, "chat.completion.chunk") | {"choices": [choice]}


def _usage(journey: Journey) -> dict[str, int]:
    inputs, outputs = journey.usage or (journey.prompt_tokens, 0)
    return {"prompt_tokens": inputs, "completion_tokens": outputs, "total_tokens": inputs + outputs}


def _about(journey: Journey) -> dict[str, Any]:
    """The extra field of an answer: what it rests on and what the guards said; for a cut, what had left before it."""
    about: dict[str, Any] = {
        "request_id": journey.request_id,
        "release": journey.release.id,
        "action": strongest(verdict.action for verdict in journey.verdicts),
        "support": journey.support,
        "sources": [{"id": source.id, "title": source.title} for source in journey.sources],
        "entities": list(journey.entities),
    }
    guard_out = journey.spans.get("guard_out")
    if journey.finish_reason == "content_filter" and guard_out:
        keys = ("category", "rule", "exposed_chars")
        about |= {key: guard_out.attributes[key] for key in keys if key in guard_out.attributes}
    return about


def _event(body: dict[str, Any]) -> bytes:
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
