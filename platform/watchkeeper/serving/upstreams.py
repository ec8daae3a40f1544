"""Upstreams: the models behind the gateway, each anything that speaks the OpenAI API.

Picks by weight, calls plain or streamed, and says whether a failure is worth another upstream. Knows nothing of stages.
"""

import asyncio
import os
import random
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from typing import Any, Final

import aiohttp
import msgspec

from watchkeeper.serving.wire import Delta, UpstreamFailed, completion, events, refusal
from watchkeeper.settings import Upstream, seconds

CONNECT_S: Final = 5.0
COOLDOWN_S: Final = 5.0
"""An upstream that failed goes to the end of the line for this long; it is never left out."""


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

    def candidates(self, names: str | Collection[str] | None) -> list[Upstream]:
        """Those of that name or of those names (None: all) in the order in which to try them: a weighted shuffle with
        recent failures last."""
        given = (names,) if isinstance(names, str) else names
        asked = [upstream for upstream in self.all if given is None or upstream.name in given]
        # Efraimidis and Spirakis 2006: sorting by u^(1/w) draws without replacement in proportion to the weights.
        drawn = sorted(asked, key=lambda upstream: -(self._rng.random() ** (1 / upstream.weight)))
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
                    raise refusal(upstream, response.status, await response.read(), response.headers.get("retry-after"))
                if body.get("stream"):
                    async for delta in events(upstream, response.content):
                        yield delta
                else:
                    for delta in completion(upstream, await response.read()):
                        yield delta
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
