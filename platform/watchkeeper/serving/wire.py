"""What an upstream says: its HTTP answer, plain, streamed or a refusal, as deltas or as `UpstreamFailed`.

OpenAI's chat completions as others speak them: whatever is missing or odd costs as little of the answer as it can. Knows
nothing of which upstream is asked, or why.
"""

import math
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

import msgspec

from watchkeeper.settings import Upstream

CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
"""An upstream's own code for what went wrong."""
WAIT: Final = re.compile(r"[0-9]{1,9}")
"""Of the header `retry-after`, as far as it is a number of seconds."""
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError)
"""What reading an upstream's answer raises where that is no UTF-8, no JSON, too deep, or of another shape."""
LONGEST_NAME: Final = 200
MOST_TOKENS: Final = 1 << 40


class UpstreamFailed(Exception):
    """`retryable`: another upstream may do better. `status`, `code`, `message`, `param`: for the client, as OpenAI has
    them."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retryable: bool,
        retry_after: int | None = None,
        param: str | None = None,
    ):
        super().__init__(message)
        self.param = param
        self.status = status
        self.code = code
        self.message = message
        self.retryable = retryable
        self.retry_after = retry_after


class Delta(msgspec.Struct, frozen=True):
    """A piece of an answer. A plain answer is one delta for each choice that holds it all. `usage`: (input, output) tokens
    of the whole call. `extra`: fields of the message besides role and content (tool calls), as they came. `index`: of the
    choice. `logprobs`: of the text's tokens."""

    text: str = ""
    finish_reason: str | None = None
    usage: tuple[int, int] | None = None
    model: str | None = None
    extra: dict[str, Any] = {}
    index: int = 0
    logprobs: list[dict[str, Any]] = []


def refusal(upstream: Upstream, status: int, body: bytes, retry_after: str | None) -> UpstreamFailed:
    """An upstream's error answer: 4xx is the request's fault and passed on, but for those that say the upstream is busy
    (408, 429) or that our own set-up is wrong (401, 403, 404), which another upstream may not share."""
    code, message, param = "upstream_error", f"upstream {upstream.name} answered with HTTP {status}", None
    try:
        error = msgspec.json.decode(body)["error"]
        message = str(error.get("message") or message)
        given = error.get("code")
        if isinstance(given, str) and CODE.fullmatch(given):  # it gets into the record, where no text of anyone's may stand
            code = given
        param = _name(error.get("param"))
    except UNREADABLE:
        pass  # not in OpenAI's shape: the status says enough
    if 300 <= status < 400:
        return _broken(upstream, f"answered with a redirect (HTTP {status}), which is not followed; see its base_url")
    if status in (401, 403):  # about our key, which some put into what they say
        return _broken(upstream, f"does not let this gateway in (HTTP {status}); see its api_key_env")
    if status in (400, 413, 422):
        return UpstreamFailed(status, code, message, retryable=False, param=param)
    wait = int(retry_after) if retry_after and WAIT.fullmatch(retry_after) else None
    if status == 429:
        wait = 1 if wait is None else wait
        return UpstreamFailed(429, "rate_limit_exceeded", message, retryable=True, retry_after=wait)
    return UpstreamFailed(502, "upstream_error", f"upstream {upstream.name}: {message}", retryable=True, retry_after=wait)


def _broken(upstream: Upstream, what: str) -> UpstreamFailed:
    return UpstreamFailed(502, "upstream_error", f"upstream {upstream.name} {what}", retryable=True)


def _name(given: object) -> str | None:
    """A name as far as it is one: what an upstream says here gets into the record."""
    return given[:LONGEST_NAME] if isinstance(given, str) else None


def _usage(plain: dict[str, Any]) -> tuple[int, int] | None:
    usage = plain.get("usage")
    if not isinstance(usage, dict):
        return None
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))


def _count(given: object) -> int:
    """A number of tokens as far as it is one, else 0: an answer is worth more than what is wrong with its bill."""
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return 0
    try:
        number = float(given)
    except (ValueError, OverflowError):
        return 0
    return int(min(number, MOST_TOKENS)) if math.isfinite(number) and number > 0 else 0


def completion(upstream: Upstream, body: bytes) -> list[Delta]:
    """A plain answer → a delta for each choice, at least one. Raises `UpstreamFailed`."""
    try:
        plain = msgspec.json.decode(body)
        deltas = _deltas(plain, [(choice, choice["message"]) for choice in plain["choices"]])
    except UNREADABLE:
        deltas = []
    if not deltas:
        raise _broken(upstream, "answered with something that is not a chat completion")
    return deltas


def _deltas(plain: dict[str, Any], choices: list[tuple[Any, Any]]) -> list[Delta]:
    """What the choices of an answer or a chunk say, each given with its message."""
    usage, model = _usage(plain), _name(plain.get("model"))
    deltas = []
    for place, (choice, said) in enumerate(choices):
        extra = {key: value for key, value in said.items() if key not in ("role", "content") and value is not None}
        content, index = said.get("content") or "", choice.get("index", place)
        if not isinstance(content, str) or not isinstance(index, int):
            raise TypeError
        deltas.append(Delta(content, _name(choice.get("finish_reason")), usage, model, extra, index, _logprobs(choice)))
    return deltas


def _logprobs(choice: dict[str, Any]) -> list[dict[str, Any]]:
    given = choice.get("logprobs")
    tokens = given.get("content") if isinstance(given, dict) else None
    return [token for token in tokens if isinstance(token, dict)] if isinstance(tokens, list) else []


async def events(upstream: Upstream, read: Callable[[], Awaitable[bytes | None]]) -> AsyncGenerator[Delta, None]:
    """Server-sent events → deltas. `read`: the next bytes, None at the end. Raises `UpstreamFailed` when the stream ends
    before it says [DONE]."""
    buffer = b""
    while (block := await read()) is not None:
        buffer += block
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            data = line.strip()
            if not data.startswith(b"data:"):
                continue
            data = data[5:].strip()
            if data == b"[DONE]":
                return
            for delta in _chunk(upstream, data):
                yield delta
    raise _broken(upstream, "ended its stream early")


def _chunk(upstream: Upstream, data: bytes) -> list[Delta]:
    """A chunk → its deltas, at least one."""
    try:
        plain = msgspec.json.decode(data)
        if "error" in plain:
            raise _broken(upstream, f"failed in mid-answer: {plain['error'].get('message', '')}")
        return _deltas(plain, [(choice, choice.get("delta") or {}) for choice in plain.get("choices") or [{}]])
    except UNREADABLE:
        raise _broken(upstream, "sent a chunk that is not a chat completion") from None
