"""What a call leaves behind for the next choice: load, latency, breaker, counts."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from watchkeeper.serving.balancing import Ask
from watchkeeper.serving.upstreams import Upstreams
from watchkeeper.serving.wire import Delta, UpstreamFailed
from watchkeeper.settings import Upstream

Run = Callable[[Any], Any]
U = Upstream(name="u", base_url="http://127.0.0.1:1/v1", model="m")


def made(*, after: float = 0.5, fails: UpstreamFailed | None = None) -> Upstreams:
    async def exchange(upstream: Upstream, body: dict[str, Any]) -> AsyncGenerator[Delta, None]:
        await asyncio.sleep(after)
        if fails:
            raise fails
        yield Delta("one")
        await asyncio.sleep(1.0)
        yield Delta("two", "stop", (10, 200))

    clock = asyncio.get_running_loop().time
    return Upstreams([U], exchange, clock=clock, rng=random.Random(1))


def test_what_is_outstanding_counts_until_the_answer_is_whole(in_virtual_time: Run) -> None:
    async def run() -> None:
        upstreams = made()
        load, before = upstreams.balancer.loads["u"], upstreams.usual_output
        async for _ in upstreams.call(U, {"stream": True}, Ask(70.0, stream=True)):
            assert load.outstanding == 70.0
        assert (load.outstanding, load.waiting[True]) == (0.0, {})
        assert load.latency[True].latest == pytest.approx(0.5), "to the first piece, not to the last"
        assert load.latency[False].latest is None
        assert before < upstreams.usual_output < 200
        assert upstreams.seen()["u"].calls == {"answered": 1}

    in_virtual_time(run())


def test_a_call_that_is_closed_leaves_what_it_took_at_least(in_virtual_time: Run) -> None:
    async def run() -> None:
        upstreams = made(after=60.0)
        load = upstreams.balancer.loads["u"]
        async with aclosing(upstreams.call(U, {}, Ask(70.0))) as deltas:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.0):
                    await anext(deltas)
        assert load.outstanding == 0.0
        assert load.latency[False].latest == pytest.approx(2.0)
        assert upstreams.seen()["u"].calls == {"given_up": 1}

    in_virtual_time(run())


def failure(code: str, *, retryable: bool = True) -> UpstreamFailed:
    return UpstreamFailed(502, code, "told to", retryable=retryable)


@pytest.mark.parametrize(
    ("failed", "state"),
    [
        (failure("upstream_unavailable"), "open"),
        (failure("upstream_error"), "open"),
        (failure("upstream_connect_timeout"), "open"),
        (failure("upstream_first_token_timeout"), "closed"),
        (failure("upstream_timeout"), "closed"),
        (failure("odd_code_of_theirs", retryable=False), "closed"),
    ],
)
def test_slowness_and_refusals_open_no_breaker(in_virtual_time: Run, failed: UpstreamFailed, state: str) -> None:
    async def run() -> None:
        upstreams = made(fails=failed)
        for _ in range(5):
            with pytest.raises(UpstreamFailed):
                await anext(upstreams.call(U, {}))
        seen = upstreams.seen()["u"]
        assert seen.state == state
        assert seen.calls == {failed.code if failed.retryable else "refused": 5}
        assert (seen.latency_s["plain"] is not None) == ("timeout" in failed.code and "connect" not in failed.code)

    in_virtual_time(run())


def test_names_choose(in_virtual_time: Run) -> None:
    async def run() -> None:
        upstreams = made()
        assert upstreams.among(None) == upstreams.among(("u", "else")) == (U,)
        assert upstreams.among(()) == ()
        assert (upstreams.named("u"), upstreams.named("else")) == (U, None)

    in_virtual_time(run())
