"""One call of a real server: answers, failures in terms of whose they are, and a time-out for each phase."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from watchkeeper.serving.exchange import HttpExchange
from watchkeeper.serving.wire import Delta, UpstreamFailed
from watchkeeper.settings import Upstream

BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = BODY | {"stream": True}


def ask(url: str, body: dict[str, Any], **limits: str) -> list[Delta]:
    async def run() -> list[Delta]:
        upstream = Upstream.model_validate({"name": "u", "base_url": url, "model": "m", "timeout": "5s", **limits})
        exchange = HttpExchange()
        try:
            return [delta async for delta in exchange(upstream, body)]
        finally:
            await exchange.close()

    return asyncio.run(run())


def test_a_plain_answer_is_one_delta(upstreams: Callable[[], Any]) -> None:
    (delta,) = ask(upstreams().url, BODY)
    assert (delta.text, delta.finish_reason, delta.usage, delta.model) == ("Hello there.", "stop", (10, 2), "scripted")


def test_a_stream_comes_in_pieces_with_its_usage(upstreams: Callable[[], Any]) -> None:
    deltas = ask(upstreams().url, STREAM)
    assert [delta.text for delta in deltas if delta.text] == ["Hello", " there."]
    assert deltas[-1].usage == (10, 2)


@pytest.mark.parametrize(
    ("status", "seen", "retryable"),
    [
        (307, 502, True),
        (400, 400, False),
        (422, 422, False),
        (401, 502, True),
        (404, 502, True),
        (429, 429, True),
        (500, 502, True),
    ],
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
        ask(upstream.url, STREAM)


def test_an_upstream_that_is_away(free_port: Callable[[], int]) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        ask(f"http://127.0.0.1:{free_port()}/v1", BODY)
    assert (failed.value.status, failed.value.code) == (502, "upstream_unavailable")


@pytest.mark.parametrize(
    ("body", "say", "limits", "code", "names"),
    [
        (BODY, ["late"], {"timeout": "1s"}, "upstream_timeout", "1s"),
        (STREAM, ["late"], {"timeout": "1s"}, "upstream_timeout", "1s"),
        (STREAM, ["", "late"], {"first_token_timeout": "1s"}, "upstream_first_token_timeout", "1s"),
        (STREAM, ["one", "late"], {"token_timeout": "1s", "first_token_timeout": "4s"}, "upstream_token_timeout", "1s"),
    ],
)
def test_each_phase_has_its_own_time_and_code(
    upstreams: Callable[[], Any], body: dict[str, Any], say: list[str], limits: dict[str, str], code: str, names: str
) -> None:
    upstream = upstreams()
    upstream.say = lambda messages: say
    upstream.pause_s = 2.5
    with pytest.raises(UpstreamFailed, match=f"upstream u .*{names}") as failed:
        ask(upstream.url, body, **limits)
    assert (failed.value.status, failed.value.code) == (504, code)


@pytest.fixture
def takes_no_connection() -> Iterator[str]:
    """Where a connection is never taken: the queue of those that wait is full."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        place = listening.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(place)
        yield f"http://127.0.0.1:{place[1]}/v1"
        for one in waiting:
            one.close()


def test_an_upstream_that_does_not_take_the_connection(takes_no_connection: str) -> None:
    with pytest.raises(UpstreamFailed, match="did not take the connection within 1s") as failed:
        ask(takes_no_connection, BODY, connect_timeout="1s")
    assert (failed.value.status, failed.value.code) == (504, "upstream_connect_timeout")


def test_what_says_nothing_comes_with_what_says_something(upstreams: Callable[[], Any]) -> None:
    """Many upstreams name the role at once and think then: until a word has come another may answer."""
    upstream = upstreams()
    upstream.say = lambda messages: ["", "", "word"]
    upstream.cut_after = 2
    with pytest.raises(UpstreamFailed):
        asyncio.run(first_of(upstream.url))
    upstream.cut_after = None
    assert [delta.text for delta in ask(upstream.url, STREAM)][:3] == ["", "", "word"]


async def first_of(url: str) -> Delta:
    """The first delta of a stream; the rest is not read."""
    upstream = Upstream(name="u", base_url=url, model="m")
    exchange = HttpExchange()
    try:
        async with aclosing(exchange(upstream, STREAM)) as deltas:
            return await anext(deltas)
    finally:
        await exchange.close()


def test_closing_it_closes_the_connection(upstreams: Callable[[], Any], wait_for: Callable[..., None]) -> None:
    upstream = upstreams()
    upstream.say = lambda messages: ["word "] * 200
    upstream.pause_s = 0.02
    assert asyncio.run(first_of(upstream.url)).text == "word "
    wait_for(lambda: upstream.broken_pipes == 1, what="the upstream to see that nobody listens", within_s=10)
