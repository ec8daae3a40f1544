"""Which upstreams may answer a request, and what a conversation is known by."""

import asyncio
import json
import random
import time
from typing import Any, cast

import msgspec
import pytest

from watchkeeper.release import BUILTIN
from watchkeeper.serving.candidates import able, ask_of, ranked
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.request import Refused, parse
from watchkeeper.serving.upstreams import Upstreams
from watchkeeper.settings import Balancing, Upstream

HI = [{"role": "user", "content": "Hi"}]
PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


def journey(messages: list[dict[str, Any]] = HI, **more: Any) -> Journey:
    request = parse(json.dumps({"model": "watchkeeper", "messages": messages, **more}).encode())
    return Journey(
        request_id="a" * 32,
        received_at=1,
        request=request,
        release=BUILTIN,
        clock=time.perf_counter,
        started=0.0,
        turns=list(request.turns),
    )


def upstream(name: str, *capabilities: str, known: bool = True) -> Upstream:
    return Upstream.model_validate(
        {"name": name, "base_url": "http://127.0.0.1:1/v1", "model": "m", "capabilities": capabilities if known else None}
    )


def pool(*upstreams: Upstream, affinity: float = 1.0) -> Upstreams:
    exchange = cast(Any, None)
    return Upstreams(upstreams, exchange, Balancing(affinity=affinity), clock=lambda: 0.0, rng=random.Random(1))


@pytest.mark.parametrize(
    ("more", "able_ones"),
    [
        ({}, "plain tools eyes all unknown"),
        ({"tools": TOOLS}, "tools all unknown"),
        ({"messages": PICTURE}, "eyes all unknown"),
        ({"messages": PICTURE, "tools": TOOLS}, "all unknown"),
        ({"logprobs": True}, "all unknown"),
        ({"response_format": {"type": "json_object"}}, "all unknown"),
        ({"n": 3}, "plain tools eyes all unknown"),
    ],
)
def test_a_request_goes_only_where_it_can_be_answered(more: dict[str, Any], able_ones: str) -> None:
    upstreams = [
        upstream("plain"),
        upstream("tools", "tools"),
        upstream("eyes", "vision"),
        upstream("all", "tools", "json", "vision", "logprobs"),
        upstream("unknown", known=False),
    ]
    assert " ".join(one.name for one in able(journey(**{"messages": HI, **more}), upstreams)) == able_ones


def test_where_nobody_can_the_error_names_what_to_change() -> None:
    with pytest.raises(Refused) as refused:
        able(journey(PICTURE, tools=TOOLS), [upstream("a", "tools"), upstream("b")])
    error = refused.value
    assert (error.status, error.code, error.param) == (400, "unsupported_parameter", "messages")
    assert error.message == "messages: no upstream that may answer this (a, b) can do tools and vision"


TALK = [*HI, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "And " * 10}]


def test_a_conversation_is_known_by_its_session_or_by_how_it_began() -> None:
    upstreams = pool(upstream("a"), upstream("b"))
    first = ask_of(journey(), upstreams)
    assert (first.key, first.known) == (None, 0.0)
    later = ask_of(journey(TALK), upstreams)
    longer = ask_of(journey([*TALK, {"role": "assistant", "content": "Yes."}, *HI]), upstreams)
    assert later.key == longer.key is not None
    assert later.known < longer.known < 1
    other = ask_of(journey([{"role": "user", "content": "Hey"}, *TALK[1:]]), upstreams)
    assert other.key != later.key
    of_session = ask_of(journey(watchkeeper={"session": "s1"}), upstreams)
    assert of_session.key is not None
    assert of_session.key == ask_of(journey(TALK, watchkeeper={"session": "s1"}), upstreams).key
    assert ask_of(journey(TALK, watchkeeper={"session": "s1"}), pool(upstream("a"), affinity=0.0)).key is None


def test_a_longer_answer_weighs_more_but_no_more_than_answers_are_long() -> None:
    upstreams = pool(upstream("a"))
    short, usual, endless = (ask_of(journey(max_tokens=most), upstreams).tokens for most in (5, 100, 100_000))
    assert short < usual
    assert endless <= usual + msgspec.convert(BUILTIN.parameters.max_tokens, float)


def test_the_span_says_why() -> None:
    async def run() -> dict[str, Any]:
        upstreams = pool(upstream("a"), upstream("b"), upstream("c"))
        for _ in range(3):
            breaker = upstreams.balancer.loads["c"].breaker
            breaker.failed(breaker.begin())
        span = Span("route", 0.0)
        order = ranked(journey(TALK), upstreams, [upstreams.all], span)
        return {**span.attributes, "order": [one.name for one in order]}

    told = asyncio.run(run())
    assert told["order"][2] == "c"
    assert told["breakers"] == "c=open"
    assert told["affinity"] == told["order"][0]
    assert 0 < told["affinity_known"] < 1
    assert [part.split("=")[0] for part in told["costs"].split(", ")] == ["a", "b"]
