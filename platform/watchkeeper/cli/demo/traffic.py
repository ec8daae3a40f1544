"""The demo's traffic: which written prompts are sent, and the clients that send them and count for themselves.

The clients know only what any client sees: HTTP. Their count is the independent side of the ledger.
"""

import asyncio
import json
import random
import time
import tomllib
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final

import aiohttp

CLIENTS: Final = 4
MAX_TOKENS: Final = 64
SEED: Final = 20_260_101


@dataclass(frozen=True)
class Conversation:
    """Prompts sent one after the other; more than one of them share a session."""

    kind: str
    turns: tuple[str, ...]
    stream: bool


@dataclass
class Counts:
    """What the clients saw. `ids`: the x-request-id of every request that was answered, with whatever status."""

    ids: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    finish_reasons: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)


def written() -> dict[str, Any]:
    """The written prompts, by kind."""
    return tomllib.loads(files(__package__).joinpath("traffic.toml").read_text(encoding="utf-8"))


def answers() -> dict[str, str]:
    """Prompt → what somebody who knows the handbook answers, for the kinds that have answers written."""
    return {
        prompt: answer
        for group in written().values()
        if "answers" in group
        for prompt, answer in zip(group["prompts"], group["answers"], strict=True)
    }


def plan(requests: int, part: int, *, seed: int = SEED) -> list[Conversation]:
    """Conversations of `requests` turns in all, the same ones every time. Part 0 is before the shift of topics, all others
    are after it.

    A kind's prompts are used up before one comes again.
    """
    rng = random.Random(seed + part)
    groups = written()
    decks = {kind: _deck(group["prompts"], rng) for kind, group in groups.items()}
    shares = [group["share"][min(part, 1)] for group in groups.values()]
    planned: list[Conversation] = []
    left = requests
    while left:
        kind = rng.choices(list(groups), shares)[0]
        prompt = next(decks[kind])
        turns = (prompt,) if isinstance(prompt, str) else tuple(prompt[:left])
        planned.append(Conversation(kind, turns, stream=rng.random() < 0.35))
        left -= len(turns)
    return planned


def _deck(prompts: Sequence[str | list[str]], rng: random.Random) -> Iterator[str | list[str]]:
    while True:
        yield from rng.sample(prompts, len(prompts))


async def send(url: str, planned: Sequence[Conversation], counts: Counts, tick: Callable[[], None]) -> None:
    """Sends everything with `CLIENTS` clients at a time; `tick` is called after each answer."""
    waiting = iter(planned)

    async def client(session: aiohttp.ClientSession) -> None:
        for conversation in waiting:
            name = uuid.uuid4().hex[:12] if len(conversation.turns) > 1 else None
            for turn in conversation.turns:
                await _ask(session, url, conversation, turn, name, counts)
                tick()

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:
        await asyncio.gather(*(client(session) for _ in range(CLIENTS)))


async def _ask(
    session: aiohttp.ClientSession, url: str, conversation: Conversation, turn: str, name: str | None, counts: Counts
) -> None:
    body: dict[str, Any] = {
        "model": "watchkeeper",
        "messages": [{"role": "user", "content": turn}],
        "max_tokens": MAX_TOKENS,
        "stream": conversation.stream,
        "watchkeeper": {"tags": {"kind": conversation.kind}, **({"session": name} if name else {})},
    }
    started = time.perf_counter()
    async with session.post(f"{url}/chat/completions", json=body) as response:
        text = await response.text()
    counts.ids.append(response.headers["x-request-id"])
    counts.statuses[response.status] += 1
    counts.latencies_s.append(time.perf_counter() - started)
    if response.status == 200:
        counts.finish_reasons[_finish_reason(text, stream=conversation.stream)] += 1


def _finish_reason(text: str, *, stream: bool) -> str:
    lines = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")] if stream else [text]
    for line in reversed(lines):
        if line != "[DONE]":
            choices = json.loads(line).get("choices") or [{}]
            if choices[0].get("finish_reason"):
                return str(choices[0]["finish_reason"])
    return "none"
