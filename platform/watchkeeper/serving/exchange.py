"""One call of one upstream over HTTP: a body goes out, deltas come back, or `UpstreamFailed` that says in which phase.

Closing the deltas before their end closes the connection: the upstream sees that nobody wants the rest. Knows nothing of
other upstreams, nor of what the failure is worth.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import aiohttp
import msgspec

from watchkeeper.serving.wire import Delta, UpstreamFailed, completion, events, refusal
from watchkeeper.settings import Upstream, seconds

Exchange = Callable[[Upstream, dict[str, Any]], AsyncGenerator[Delta, None]]
"""The answer in deltas; one, unless `body["stream"]`. The first says something. Raises `UpstreamFailed`. Closing it ends
the call."""
Phase = Literal["connect", "first_token", "token", "total"]
CODES: dict[Phase, str] = {
    "connect": "upstream_connect_timeout",
    "first_token": "upstream_first_token_timeout",
    "token": "upstream_token_timeout",
    "total": "upstream_timeout",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Line:
    """How one upstream is called: made once, as it is the same for every request. `first_s`, `next_s`: of streams."""

    url: str
    headers: dict[str, str]
    timeout: aiohttp.ClientTimeout
    first_s: float | None
    next_s: float | None


class HttpExchange:
    """Calls over one HTTP session, which the gateway owns."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._lines: dict[str, Line] = {}

    async def __call__(self, upstream: Upstream, body: dict[str, Any]) -> AsyncGenerator[Delta, None]:
        line = self._lines.get(upstream.name) or self._lines.setdefault(upstream.name, _line(upstream))
        stream = bool(body.get("stream"))
        first_by = asyncio.get_running_loop().time() + line.first_s if stream and line.first_s else None
        sending = self._session.post(line.url, data=msgspec.json.encode(body), headers=line.headers, timeout=line.timeout)
        try:
            async with await _by(first_by, sending, upstream, "first_token") as response:
                if response.status != 200:
                    raise refusal(upstream, response.status, await response.read(), response.headers.get("retry-after"))
                if not stream:
                    for delta in completion(upstream, await response.read()):
                        yield delta
                    return
                async for delta in _spoken(events(upstream, response.content), first_by, line.next_s, upstream):
                    yield delta
        except aiohttp.ConnectionTimeoutError as error:
            raise late(upstream, "connect") from error
        except TimeoutError as error:
            raise late(upstream, "total") from error
        except (aiohttp.ClientError, OSError) as error:
            message = f"upstream {upstream.name} cannot be reached"
            raise UpstreamFailed(502, "upstream_unavailable", message, retryable=True) from error


def late(upstream: Upstream, phase: Phase) -> UpstreamFailed:
    """The failure of a call that ran out of time."""
    said = {
        "connect": f"did not take the connection within {upstream.connect_timeout}",
        "first_token": f"did not begin to answer within {upstream.first_token_timeout}",
        "token": f"stopped for {upstream.token_timeout} in mid-answer",
        "total": f"did not answer in time: not whole within {upstream.timeout}",
    }
    return UpstreamFailed(504, CODES[phase], f"upstream {upstream.name} {said[phase]}", retryable=True)


async def _spoken(
    deltas: AsyncGenerator[Delta, None], first_by: float | None, next_s: float | None, upstream: Upstream
) -> AsyncGenerator[Delta, None]:
    """The deltas, each in its time. Those before the first that says something (many upstreams name the role at once)
    come together with it: until then another upstream may still answer instead."""
    held: list[Delta] = []
    spoken = False
    by = first_by
    phase: Phase = "first_token"
    while (delta := await _by(by, anext(deltas, None), upstream, phase)) is not None:
        spoken = spoken or bool(delta.text or delta.extra or delta.finish_reason)
        held.append(delta)
        if not spoken:
            continue
        for ready in held:
            yield ready
        held.clear()
        if next_s is not None:
            by, phase = asyncio.get_running_loop().time() + next_s, "token"
        else:
            by = None
    for ready in held:
        yield ready


async def _by(when: float | None, waiting: Awaitable[T], upstream: Upstream, phase: Phase) -> T:
    """What is waited for, by a time of the event loop's. Raises `UpstreamFailed` when that passes."""
    if when is None:
        return await waiting
    try:
        async with asyncio.timeout_at(when) as limit:
            return await waiting
    except TimeoutError:
        if limit.expired():
            raise late(upstream, phase) from None
        raise


def _line(upstream: Upstream) -> Line:
    headers = {"content-type": "application/json"}
    if upstream.api_key_env:
        headers["authorization"] = f"Bearer {os.environ.get(upstream.api_key_env, '')}"
    timeout = aiohttp.ClientTimeout(total=seconds(upstream.timeout), sock_connect=seconds(upstream.connect_timeout))
    first_s, next_s = (
        float(seconds(limit)) if limit else None for limit in (upstream.first_token_timeout, upstream.token_timeout)
    )
    return Line(f"{upstream.base_url}/chat/completions", headers, timeout, first_s, next_s)
