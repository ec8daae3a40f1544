"""One call of one upstream over HTTP: a body goes out, deltas come back, or `UpstreamFailed` that says in which phase.

Closing the deltas before their end closes the connection: the upstream sees that nobody wants the rest. Knows nothing of
other upstreams, nor of what the failure is worth.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec

from watchkeeper.serving.line import Broken, ConnectTimeout, Line
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
class Way:
    """How one upstream is called: made once, as it is the same for every request. `first_s`, `next_s`: of streams."""

    line: Line
    total_s: float
    first_s: float | None
    next_s: float | None


class HttpExchange:
    """Calls over connections that are kept until it is closed."""

    def __init__(self) -> None:
        self._ways: dict[str, Way] = {}

    async def __call__(self, upstream: Upstream, body: dict[str, Any]) -> AsyncGenerator[Delta, None]:
        way = self._ways.get(upstream.name) or self._ways.setdefault(upstream.name, _way(upstream))
        stream = bool(body.get("stream"))
        began = asyncio.get_running_loop().time()
        first_by = began + way.first_s if stream and way.first_s else None
        try:
            posting = way.line.post(msgspec.json.encode(body), began + way.total_s)
            answer = await _by(first_by, posting, upstream, "first_token")
            try:
                if answer.status != 200:
                    raise refusal(upstream, answer.status, await answer.body(), answer.header(b"retry-after"))
                if not stream:
                    for delta in completion(upstream, await answer.body()):
                        yield delta
                    return
                async for delta in _spoken(events(upstream, answer.block), first_by, way.next_s, upstream):
                    yield delta
            finally:
                answer.close()
        except ConnectTimeout as error:
            raise late(upstream, "connect") from error
        except TimeoutError as error:
            raise late(upstream, "total") from error
        except (Broken, OSError) as error:
            message = f"upstream {upstream.name} cannot be reached"
            raise UpstreamFailed(502, "upstream_unavailable", message, retryable=True) from error

    async def close(self) -> None:
        """Closes the connections; whoever is answered over one gets no more of it."""
        for way in self._ways.values():
            await way.line.close()


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


def _way(upstream: Upstream) -> Way:
    headers = {"content-type": "application/json"}
    if upstream.api_key_env:
        key = "".join(os.environ.get(upstream.api_key_env, "").split())  # a line end in it would begin another header
        headers["authorization"] = f"Bearer {key}"
    first_s, next_s = (
        float(seconds(limit)) if limit else None for limit in (upstream.first_token_timeout, upstream.token_timeout)
    )
    line = Line(f"{upstream.base_url}/chat/completions", headers, seconds(upstream.connect_timeout))
    return Way(line, seconds(upstream.timeout), first_s, next_s)
