"""When an answer that a model gave before is given again: what makes two requests the same, and which answers are kept.

The same are requests of one tenant and route that would send the same messages with the same parameters to the same
upstreams under the same release, with the knowledge base as it was. Kept is what the model said, if it said all of it and
no guard stopped or could not judge it; whatever is said again passes every stage after the model anew. Knows nothing of how
answers are stored (cache.py).
"""

import asyncio
import contextlib
import hashlib
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import msgspec

from watchkeeper.serving.cache import AnswerCache, Entry, Keys
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.nearness import canonical
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.stages.embed import whole
from watchkeeper.serving.stages.generate import body_of
from watchkeeper.serving.wire import Delta

ASKED_OTHERWISE: Final = ("model", "stream", "stream_options")
"""What differs between requests that get the same answer."""
CALLING: Final = frozenset({"tool_calls", "function_call"})
GIVEN: Final = ("exact", "near")
"""What `journey.cache` is where an answer was given again."""


def alone(journey: Journey, parts: Parts) -> contextlib.AbstractAsyncContextManager[None]:
    """Of the same requests at the same time one goes on at once; the others when its answer is kept, or will not be.

    Not for streams: by themselves they have their first words sooner.
    """
    return contextlib.nullcontext() if parts.cache is None else _alone(journey, parts, parts.cache)


@contextlib.asynccontextmanager
async def _alone(journey: Journey, parts: Parts, cache: AnswerCache) -> AsyncIterator[None]:
    keys = _keys(journey, parts)
    if keys is None or cache.get(keys.exact) is not None:
        yield
    elif (flight := cache.flight(keys.exact)) is not None:
        with journey.step("generate"):  # nobody waits twice: answers that are not kept must not be asked for one by one
            await asyncio.wait((flight,))
        yield
    else:
        with cache.flying(keys.exact):
            yield


def answers(journey: Journey, parts: Parts, asked: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
    """The answer that is kept, in one piece; else those that `asked` brings."""
    return asked if parts.cache is None else _answers(journey, parts, asked)


async def _answers(journey: Journey, parts: Parts, asked: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
    entry = _entry(journey, parts)
    if entry is not None:
        yield entry.answer
        return
    async with contextlib.aclosing(asked):
        async for delta in asked:
            yield delta


def keep(journey: Journey, parts: Parts) -> None:
    """Keeps the answer of a journey that has gone well, and is worth it."""
    if parts.cache is None or journey.cache_keys is None or journey.cache in GIVEN or not _worth_keeping(journey):
        return
    answer = Delta(
        text=journey.answer,
        finish_reason=journey.finish_reason,
        usage=journey.tokens,
        model=journey.answer_model,
        extra=dict(journey.extra),
    )
    vector = whole(journey, journey.prompt) if journey.cache_keys.near is not None else None
    parts.cache.put(journey.cache_keys, Entry(journey.request_id, answer, vector))


def _worth_keeping(journey: Journey) -> bool:
    judged = [verdict.action for verdict in journey.verdicts if verdict.target == "output"]
    return (
        journey.error is None
        and journey.finish_reason == "stop"
        and bool(journey.answer)
        and not journey.extra.keys() & CALLING
        and (journey.choice.json is None or bool(journey.choice.json["valid"]))
        and "block" not in judged
        and "unknown" not in judged
    )


def _entry(journey: Journey, parts: Parts) -> Entry | None:
    keys = _keys(journey, parts)
    if parts.cache is None or keys is None:
        return None
    entry, journey.cache = parts.cache.get(keys.exact), "exact"
    if entry is None and keys.near is not None:
        entry, journey.cache = _alike(journey, parts, keys.near), "near"
    if entry is None:
        journey.cache = "miss"
    else:
        journey.cache_source = entry.request_id
    return entry


def _alike(journey: Journey, parts: Parts, near: bytes) -> Entry | None:
    """The entry that has the same form, if its meaning is near enough too; None while the encoder is away."""
    assert parts.cache is not None
    entry, vector = parts.cache.like(near), whole(journey, journey.prompt)
    if entry is None or entry.embedding is None or vector is None:
        return None
    return entry if float(entry.embedding @ vector) >= parts.settings.cache.similarity else None


def _keys(journey: Journey, parts: Parts) -> Keys | None:
    """None: the cache has nothing to do with this request. Made once, with what the cache's file was at."""
    if parts.cache is None or journey.cache:
        return journey.cache_keys
    settings = parts.settings.cache
    temperature = journey.request.temperature
    if temperature is None:
        temperature = journey.release.parameters.temperature
    journey.cache = "bypass"
    wanted = journey.request.extension.cache and journey.request.n == 1
    if wanted and (temperature == 0 or settings.any_temperature):
        since = parts.cache.now()
        with contextlib.suppress(UnicodeEncodeError):  # a lone surrogate in a field that we do not read
            near = _near(journey) if settings.near else None
            journey.cache_keys = Keys(_digest(journey, None), near, since)
            journey.cache = "miss"
    return journey.cache_keys


def _near(journey: Journey) -> bytes | None:
    spoken = [turn for turn in journey.turns if turn.role == "user"]
    if not spoken or spoken[-1].images or len(spoken[-1].body) > 2:  # more than role and content: who speaks, say
        return None
    likeness = canonical(spoken[-1].text)
    return None if likeness is None else _digest(journey, likeness)


def _digest(journey: Journey, likeness: str | None) -> bytes:
    """sha256 over all that decides the answer. `likeness`: what stands for the newest question, beside its passages."""
    body = body_of(journey, journey.candidates[0]) if journey.candidates else {"messages": []}
    for name in ASKED_OTHERWISE:
        body.pop(name, None)
    body["messages"] = [_normal(message) for message in body["messages"]]
    if likeness is not None:
        asked = max(at for at, message in enumerate(body["messages"]) if message["role"] == "user")
        body["messages"][asked] = [likeness, journey.language, [source.text for source in journey.sources]]
    who = sorted((upstream.name, upstream.model) for upstream in journey.candidates)
    scope = [journey.tenant, journey.request.extension.route, journey.release.digest, journey.index_version, who, body]
    return hashlib.sha256(msgspec.json.encode(scope, order="deterministic")).digest()


def _normal(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    return {**message, "content": normal(content)} if isinstance(content, str) else message


def normal(text: str) -> str:
    """The text composed (NFC), and without blank space at its ends and its lines' ends; what a line begins with may mean
    something."""
    composed = text if text.isascii() else unicodedata.normalize("NFC", text)
    return "\n".join(line.rstrip() for line in composed.strip("\n").rstrip().split("\n"))
