"""An answer is given again for the same request, and for nothing that only looks the same; all guards see it again."""

import asyncio
import contextlib
import dataclasses
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest

from watchkeeper.record import Record, Verdict
from watchkeeper.release import BUILTIN, Parameters
from watchkeeper.serving import recall
from watchkeeper.serving.building import build
from watchkeeper.serving.cache import forget
from watchkeeper.serving.guards.secrets import Secrets
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.loop import Loop
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.recall import normal
from watchkeeper.serving.request import Refused, parse
from watchkeeper.settings import Cache, Price, Settings, Stages, Upstream

ASKED = "How many days of leave do I have?"
KEY = "AKIAIOSFODNN7EXAMPLE"


class Gateway:
    """A loop on a scripted upstream. `ask` returns the journey and its record."""

    def __init__(self, parts: Parts, upstream: Any) -> None:
        self.parts = parts
        self.upstream = upstream

    async def ask(self, content: str = ASKED, **options: Any) -> tuple[Journey, Record]:
        tenant, release = options.pop("tenant", "default"), options.pop("release", BUILTIN)
        embedding = options.pop("embedding", None)
        messages = options.pop("messages", [{"role": "user", "content": content}])
        body = {"model": "watchkeeper", "messages": messages, "temperature": 0, **options}
        request = parse(json.dumps(body).encode())
        clock = time.perf_counter
        journey = Journey(uuid.uuid4().hex, 1, request, release, clock, clock(), tenant=tenant, turns=list(request.turns))
        if embedding is not None:
            journey.embeddings[content] = np.asarray(embedding, np.float32)
        loop = Loop(self.parts)
        if request.stream:
            pieces = [piece async for piece in await loop.open(journey)]
            assert "".join(piece.text for piece in pieces) == journey.delivered
        else:
            await loop.answer(journey)
        return journey, journey.record(self.parts.redact)

    async def called(self, times: int) -> None:
        """Waits until the upstream was called so often."""
        for _ in range(1_000):
            if len(self.upstream.bodies) >= times:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the upstream is not called")

    async def kept(self, content: str = ASKED, **options: Any) -> str:
        """What the cache had for a request."""
        calls = len(self.upstream.bodies)
        journey, record = await self.ask(content, **options)
        span = next(stage for stage in record.stages if stage.name == "generate")
        assert span.attributes["cache"] == journey.cache
        given = journey.cache in ("exact", "near")
        assert len(self.upstream.bodies) - calls == (not given)
        assert record.attempts == (not given)
        assert (record.cost_usd == 0) == given
        assert (record.input_tokens, record.output_tokens) == (10, 2)
        return journey.cache


Started = Callable[..., contextlib.AbstractAsyncContextManager[Gateway]]


@pytest.fixture
def started(tmp_path: Path, upstreams: Callable[[], Any]) -> Started:
    @contextlib.asynccontextmanager
    async def start(**cache: Any) -> AsyncIterator[Gateway]:
        upstream = upstreams()
        price = Price(input=1.0, output=1.0)
        settings = Settings(
            data=tmp_path,
            cache=Cache(enabled=True, **cache),
            stages=Stages(embed=False),
            upstreams=(Upstream(name="scripted", base_url=upstream.url, model="scripted", price=price),),
        )
        async with aiohttp.ClientSession() as session:
            parts = build(settings, session, clock=time.monotonic, rng=random.Random(1))
            parts.guards = (Secrets(),)
            yield Gateway(parts, upstream)
            await parts.close()

    return start


def test_the_same_request_is_answered_once_plain_and_streamed(started: Started) -> None:
    async def run() -> None:
        async with started() as gateway:
            journey, _ = await gateway.ask()
            for stream in (False, True):
                again, record = await gateway.ask(stream=stream)
                assert (again.cache, again.cache_source) == ("exact", journey.request_id)
                assert again.delivered == journey.delivered == "Hello there."
                assert again.finish_reason == "stop"
                assert [(verdict.guard, verdict.target) for verdict in record.verdicts].count(("secrets", "output")) == 1
            assert len(gateway.upstream.bodies) == 1
            assert await gateway.kept("Another question, streamed?", stream=True) == "miss"
            assert await gateway.kept("Another question, streamed?") == "exact"

    asyncio.run(run())


def test_what_decides_the_answer_decides_what_is_the_same(started: Started) -> None:
    policies = BUILTIN.policies | {"secrets": msgspec.structs.replace(BUILTIN.policies["secrets"], action="block")}
    other = msgspec.structs.replace(BUILTIN, policies=policies)
    turns = [{"role": "user", "content": ASKED}]
    differing: list[dict[str, Any]] = [
        {"tenant": "other"},
        {"release": other},
        {"watchkeeper": {"route": "other"}},
        {"seed": 1},
        {"max_tokens": 7},
        {"top_p": 0.5},
        {"model": "scripted", "messages": [{"role": "system", "content": "Be brief."}, *turns]},
        {"messages": [*turns, {"role": "assistant", "content": "28"}, *turns]},
        {"content": ASKED.upper()},
        {"content": ASKED.replace("?", " ?")},
        {"tools": [{"type": "function", "function": {"name": "look"}}]},
    ]

    async def run() -> None:
        async with started() as gateway:
            assert await gateway.kept() == "miss"
            for options in differing:
                assert await gateway.kept(**options) == "miss", options
                assert await gateway.kept(**options) == "exact", options
            for content in (f"\n{ASKED}\n", f"{ASKED} \n\n"):
                assert await gateway.kept(content) == "exact"
            assert await gateway.kept(watchkeeper={"user": "ann", "tags": {"app": "x"}}) == "exact"

    asyncio.run(run())


def test_only_at_temperature_0_unless_the_settings_say_otherwise_and_never_for_who_does_not_want_it(
    started: Started,
) -> None:
    async def run() -> None:
        async with started() as gateway:
            warm = msgspec.structs.replace(BUILTIN, parameters=Parameters(temperature=0.7))
            assert await gateway.kept(temperature=0.5) == await gateway.kept(temperature=0.5) == "bypass"
            assert await gateway.kept(temperature=None, release=warm) == "bypass"
            assert await gateway.kept(watchkeeper={"cache": False}) == "bypass"
            assert await gateway.kept() == "miss", "the answer of who does not want it is not kept either"
            assert await gateway.kept(watchkeeper={"cache": False}) == "bypass"
        async with started(any_temperature=True) as gateway:
            assert await gateway.kept(temperature=0.5) == "miss"
            assert await gateway.kept(temperature=0.5) == "exact"
            assert await gateway.kept(temperature=0.6) == "miss"

    asyncio.run(run())


def test_an_answer_that_was_blocked_or_broke_off_is_not_kept(started: Started) -> None:
    blocking = BUILTIN.policies | {"secrets": msgspec.structs.replace(BUILTIN.policies["secrets"], action="block")}
    strict = msgspec.structs.replace(BUILTIN, policies=blocking)

    async def run() -> None:
        async with started() as gateway:
            gateway.upstream.say = lambda messages: ["The key is ", KEY]
            for stream in (False, True):
                for _ in range(2):
                    journey, _ = await gateway.ask(release=strict, stream=stream)
                    assert (journey.finish_reason, journey.cache) == ("content_filter", "miss")
            gateway.upstream.cut_after = 1
            for _ in range(2):
                journey, _ = await gateway.ask("Cut?", stream=True)
                assert (journey.error, journey.cache) == ("upstream_error", "miss")
            gateway.upstream.status = 500
            for _ in range(2):
                with pytest.raises(Refused):
                    await gateway.ask("Refused?")
            assert len(gateway.parts.cache or ()) == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    "change",
    [
        {"finish_reason": "length"},
        {"finish_reason": "tool_calls"},
        {"extra": {"tool_calls": [{"id": "a"}]}},
        {"answer": ""},
        {"error": "disconnected"},
        {"verdicts": [Verdict("toxicity", "output", "error", "unknown", None, "no_embedding", "1")]},
    ],
)
def test_an_answer_that_is_not_whole_or_not_judged_is_not_kept(started: Started, change: dict[str, Any]) -> None:
    async def run() -> None:
        async with started() as gateway:
            journey, _ = await gateway.ask()
            forget(gateway.parts.settings.data)
            journey, _ = await gateway.ask()
            assert len(gateway.parts.cache or ()) == 1
            forget(gateway.parts.settings.data)
            fresh, _ = await gateway.ask("Another?")
            assert gateway.parts.cache is not None
            assert journey.cache_keys is not None
            forget(gateway.parts.settings.data)
            fresh.cache_keys = msgspec.structs.replace(journey.cache_keys, since=gateway.parts.cache.now())
            for name, value in change.items():
                setattr(fresh.choice if hasattr(fresh.choice, name) else fresh, name, value)
            recall.keep(fresh, gateway.parts)
            assert len(gateway.parts.cache) == 0

    asyncio.run(run())


def test_what_was_erased_is_not_given_again_nor_kept_by_who_was_under_way(started: Started) -> None:
    async def run() -> None:
        async with started() as gateway:
            assert await gateway.kept() == "miss"
            forget(gateway.parts.settings.data)
            assert await gateway.kept() == "miss"
            assert await gateway.kept() == "exact"
            gateway.upstream.pause_s = 0.2
            under_way = asyncio.create_task(gateway.kept("Slowly?"))
            await gateway.called(3)
            forget(gateway.parts.settings.data)
            assert await under_way == "miss"
            assert await gateway.kept("Slowly?") == "miss"

    asyncio.run(run())


def test_of_the_same_requests_at_once_one_asks_the_model(started: Started) -> None:
    async def run() -> None:
        async with started() as gateway:
            gateway.upstream.pause_s = 0.2
            journeys = await asyncio.gather(*(gateway.ask() for _ in range(8)))
            assert sorted(journey.cache for journey, _ in journeys) == ["exact"] * 7 + ["miss"]
            assert len(gateway.upstream.bodies) == 1
            first, *others = [asyncio.create_task(gateway.ask("Gone?")) for _ in range(3)]
            await gateway.called(2)
            first.cancel()
            answered = await asyncio.gather(*others)
            assert {journey.delivered for journey, _ in answered} == {"Hello there."}

    asyncio.run(run())


def test_near_questions_share_an_answer_where_that_is_wanted_and_reversals_never(started: Started) -> None:
    def leaning(angle: float) -> list[float]:
        return [np.cos(angle), np.sin(angle), *[0.0] * 382]

    async def run() -> None:
        async with started(near=True) as gateway:
            assert await gateway.kept("Is A better than B?", embedding=leaning(0)) == "miss"
            assert await gateway.kept("is a better than b", embedding=leaning(0.1)) == "miss", "capitals may mean something"
            assert await gateway.kept("Hi, is A better than B?", embedding=leaning(0.1)) == "near"
            hers = [{"role": "user", "content": "Hello, is A better than B?", "name": "ann"}]
            key = hers[0]["content"]
            assert await gateway.kept(key, embedding=leaning(0.1), messages=hers) == "miss", "the model is told who asks"
            assert await gateway.kept("Hi! Is A better than B?", embedding=leaning(0.5)) == "miss"
            assert await gateway.kept("Is B better than A?", embedding=leaning(0)) == "miss"
            assert await gateway.kept("Is A not better than B?", embedding=leaning(0)) == "miss"
            assert await gateway.kept("Please, is A better than B?") == "miss", "without an embedding nobody knows"
            said = [{"role": "user", "content": "Hey, is A better than B?"}]
            context = [{"role": "user", "content": "About cars."}, {"role": "assistant", "content": "Yes?"}, *said]
            assert await gateway.kept(messages=context) == "miss"
        async with started() as gateway:
            assert await gateway.kept("Is A better than B?", embedding=leaning(0)) == "miss"
            assert await gateway.kept("Hi, is A better than B?", embedding=leaning(0)) == "miss"

    asyncio.run(run())


def test_the_normal_form_keeps_what_may_mean_something() -> None:
    assert normal("  def f():\n    return 1  \n\n") == "  def f():\n    return 1"
    assert normal("e\u0301") == "é"
    assert normal("a\n\nb") != normal("a\nb")


def test_without_a_cache_nothing_of_it_is_told(tmp_path: Path) -> None:
    names = {field.name for field in dataclasses.fields(Journey)}
    assert {"cache", "cache_keys", "cache_source"} <= names
    assert not Cache().enabled
