"""Upstreams: answers and failures of real servers, in the terms that the loop decides by."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from watchkeeper.serving.upstreams import Upstreams
from watchkeeper.serving.wire import Delta, UpstreamFailed
from watchkeeper.settings import Upstream

BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def ask(url: str, body: dict[str, Any], timeout: str = "5s") -> list[Delta]:
    async def run() -> list[Delta]:
        async with aiohttp.ClientSession() as session:
            upstream = Upstream(name="u", base_url=url, model="m", timeout=timeout)
            calls = Upstreams([upstream], session, clock=lambda: 0.0, rng=random.Random(1))
            return [delta async for delta in calls.call(upstream, body)]

    return asyncio.run(run())


def test_a_plain_answer_is_one_delta(upstreams: Callable[[], Any]) -> None:
    (delta,) = ask(upstreams().url, BODY)
    assert (delta.text, delta.finish_reason, delta.usage, delta.model) == ("Hello there.", "stop", (10, 2), "scripted")


def test_a_stream_comes_in_pieces_with_its_usage(upstreams: Callable[[], Any]) -> None:
    deltas = ask(upstreams().url, BODY | {"stream": True})
    assert [delta.text for delta in deltas if delta.text] == ["Hello", " there."]
    assert deltas[-1].usage == (10, 2)


@pytest.mark.parametrize(
    ("status", "seen", "retryable"),
    [(400, 400, False), (422, 422, False), (401, 502, True), (404, 502, True), (429, 429, True), (500, 502, True)],
)
def test_whose_fault_a_refusal_is(upstreams: Callable[[], Any], status: int, seen: int, retryable: bool) -> None:
    upstream = upstreams()
    upstream.status = status
    with pytest.raises(UpstreamFailed) as failed:
        ask(upstream.url, BODY)
    assert (failed.value.status, failed.value.retryable) == (seen, retryable)


def test_a_stream_that_breaks_off_is_a_failure(upstreams: Callable[[], Any]) -> None:
    upstream = upstreams()
    upstream.cut_after = 1
    with pytest.raises(UpstreamFailed, match=r"ended its stream early|cannot be reached"):
        ask(upstream.url, BODY | {"stream": True})


def test_an_upstream_that_is_away(free_port: Callable[[], int]) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        ask(f"http://127.0.0.1:{free_port()}/v1", BODY)
    assert (failed.value.status, failed.value.code) == (502, "upstream_unavailable")


def test_an_upstream_that_takes_too_long(upstreams: Callable[[], Any]) -> None:
    upstream = upstreams()
    upstream.pause_s = 2.0
    with pytest.raises(UpstreamFailed) as failed:
        ask(upstream.url, BODY, timeout="1s")
    assert (failed.value.status, failed.value.code) == (504, "upstream_timeout")


def test_weights_decide_who_comes_first_and_a_failure_sends_to_the_back(free_port: Callable[[], int]) -> None:
    gone = f"http://127.0.0.1:{free_port()}/v1"
    heavy = Upstream(name="heavy", base_url=gone, model="m", weight=3)
    light = Upstream(name="light", base_url=gone, model="m")
    now = [0.0]

    async def run() -> None:
        async with aiohttp.ClientSession() as session:
            calls = Upstreams([heavy, light], session, clock=lambda: now[0], rng=random.Random(1))
            first = [calls.candidates(None)[0].name for _ in range(2000)]
            assert 0.72 < first.count("heavy") / 2000 < 0.78
            with pytest.raises(UpstreamFailed):
                await anext(calls.call(heavy, dict(BODY)))
            assert {calls.candidates(None)[0].name for _ in range(50)} == {"light"}
            assert len(calls.candidates(None)) == 2
            now[0] = 6.0
            assert {calls.candidates(None)[0].name for _ in range(50)} == {"heavy", "light"}

    asyncio.run(run())
