"""Upstreams: the models behind the gateway, each anything that speaks the OpenAI API.

Picks by weight, calls plain or streamed, and says whether a failure is worth another upstream. Knows nothing of stages.
"""

import asyncio
import math
import os
import random
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

import aiohttp
import msgspec

from watchkeeper.settings import Upstream, seconds

CONNECT_S: Final = 5.0
COOLDOWN_S: Final = 5.0
"""An upstream that failed goes to the end of the line for this long; it is never left out."""

CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
"""An upstream's own code for what went wrong."""
LONGEST_NAME: Final = 200
MOST_TOKENS: Final = 1 << 40


class UpstreamFailed(Exception):
    """`retryable`: another upstream may do better. `status`, `code`, `message`: for the client, in OpenAI's terms."""

    def __init__(self, status: int, code: str, message: str, *, retryable: bool, retry_after: int | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retryable = retryable
        self.retry_after = retry_after


class Delta(msgspec.Struct, frozen=True):
    """A piece of an answer. A plain answer is one delta that holds it all. `usage`: (input, output) tokens.
    `extra`: fields of the message besides role and content (tool calls), as they came."""

    text: str = ""
    finish_reason: str | None = None
    usage: tuple[int, int] | None = None
    model: str | None = None
    extra: dict[str, Any] = {}


class Upstreams:
    """All upstreams of one gateway worker, and which of them failed lately."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        session: aiohttp.ClientSession,
        *,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.all = tuple(upstreams)
        self._session = session
        self._clock = clock
        self._rng = rng
        self._failed_at: dict[str, float] = {}

    def named(self, name: str) -> Upstream | None:
        return next((upstream for upstream in self.all if upstream.name == name), None)

    def candidates(self, name: str | None) -> list[Upstream]:
        """In the order in which to try them: the named one only, or a weighted shuffle with recent failures last."""
        if name is not None:
            return [upstream for upstream in self.all if upstream.name == name]
        # Efraimidis and Spirakis 2006: sorting by u^(1/w) draws without replacement in proportion to the weights.
        drawn = sorted(self.all, key=lambda upstream: -(self._rng.random() ** (1 / upstream.weight)))
        return sorted(drawn, key=self._cooling)

    def _cooling(self, upstream: Upstream) -> bool:
        failed_at = self._failed_at.get(upstream.name)
        return failed_at is not None and self._clock() - failed_at < COOLDOWN_S

    async def call(self, upstream: Upstream, body: dict[str, Any]) -> AsyncGenerator[Delta, None]:
        """The answer in deltas; one, unless `body["stream"]`. Raises `UpstreamFailed`. Closing it ends the call."""
        try:
            async with self._session.post(
                f"{upstream.base_url}/chat/completions",
                data=msgspec.json.encode(body),
                headers=_headers(upstream),
                timeout=aiohttp.ClientTimeout(total=seconds(upstream.timeout), sock_connect=CONNECT_S),
            ) as response:
                if response.status != 200:
                    raise _refusal(upstream, response.status, await response.read(), response.headers.get("retry-after"))
                if body.get("stream"):
                    async for delta in _events(upstream, response.content):
                        yield delta
                else:
                    yield _completion(upstream, await response.read())
        except UpstreamFailed as failure:
            if failure.retryable:
                self._failed_at[upstream.name] = self._clock()
            raise
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self._failed_at[upstream.name] = self._clock()
            late = isinstance(error, asyncio.TimeoutError)
            code = "upstream_timeout" if late else "upstream_unavailable"
            message = f"upstream {upstream.name} {'did not answer in time' if late else 'cannot be reached'}"
            raise UpstreamFailed(504 if late else 502, code, message, retryable=True) from error
        self._failed_at.pop(upstream.name, None)


def _headers(upstream: Upstream) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    if upstream.api_key_env:
        headers["authorization"] = f"Bearer {os.environ.get(upstream.api_key_env, '')}"
    return headers


def _refusal(upstream: Upstream, status: int, body: bytes, retry_after: str | None) -> UpstreamFailed:
    """An upstream's error answer: 4xx is the request's fault and passed on, but for those that say the upstream is busy
    (408, 429) or that our own set-up is wrong (401, 403, 404), which another upstream may not share."""
    code, message = "upstream_error", f"upstream {upstream.name} answered with HTTP {status}"
    try:
        error = msgspec.json.decode(body)["error"]
        message = str(error.get("message") or message)
        given = error.get("code")
        if isinstance(given, str) and CODE.fullmatch(given):  # it gets into the record, where no text of anyone's may stand
            code = given
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        pass  # not in OpenAI's shape: the status says enough
    if status in (400, 413, 422):
        return UpstreamFailed(status, code, message, retryable=False)
    if status == 429:
        wait = int(retry_after) if retry_after and retry_after.isdigit() else 1
        return UpstreamFailed(429, "rate_limit_exceeded", message, retryable=True, retry_after=wait)
    return UpstreamFailed(502, "upstream_error", f"upstream {upstream.name}: {message}", retryable=True)


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


def _completion(upstream: Upstream, body: bytes) -> Delta:
    try:
        plain = msgspec.json.decode(body)
        choice = plain["choices"][0]
        message = choice["message"]
        extra = {key: value for key, value in message.items() if key not in ("role", "content") and value is not None}
        content, reason = message.get("content") or "", _name(choice.get("finish_reason"))
        return Delta(content, reason, _usage(plain), _name(plain.get("model")), extra)
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, AttributeError):
        raise _broken(upstream, "answered with something that is not a chat completion") from None


async def _events(upstream: Upstream, content: aiohttp.StreamReader) -> AsyncGenerator[Delta, None]:
    """Server-sent events → deltas. Raises `UpstreamFailed` when the stream ends before it says [DONE]."""
    buffer = b""
    async for block in content.iter_any():
        buffer += block
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            data = line.strip()
            if not data.startswith(b"data:"):
                continue
            data = data[5:].strip()
            if data == b"[DONE]":
                return
            yield _chunk(upstream, data)
    raise _broken(upstream, "ended its stream early")


def _chunk(upstream: Upstream, data: bytes) -> Delta:
    try:
        plain = msgspec.json.decode(data)
        if "error" in plain:
            raise _broken(upstream, f"failed in mid-answer: {plain['error'].get('message', '')}")
        choice = plain["choices"][0] if plain.get("choices") else {}
        piece = choice.get("delta") or {}
        extra = {key: value for key, value in piece.items() if key not in ("role", "content") and value is not None}
        content, reason = piece.get("content") or "", _name(choice.get("finish_reason"))
        return Delta(content, reason, _usage(plain), _name(plain.get("model")), extra)
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, AttributeError):
        raise _broken(upstream, "sent a chunk that is not a chat completion") from None
