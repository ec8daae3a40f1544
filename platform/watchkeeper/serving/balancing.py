"""Which upstream is asked: the power of two choices on outstanding tokens x peak EWMA of latency, by weight.

Of the upstreams that may answer two are drawn, in proportion to their weights, and the one that would cost less is asked
first. The first of the two is not drawn afresh for each request but for each conversation: its key, hashed with each
upstream's name (weighted rendezvous), gives every gateway worker the same one without a word between them, and that one
has what was said so far in its prefix cache. Load decides all the same.

Knows nothing of HTTP, nor of why a call failed. Each gateway worker balances by what it saw itself.
"""

import hashlib
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from watchkeeper.serving.breaker import Breaker
from watchkeeper.serving.latency import Latency
from watchkeeper.settings import Balancing, Upstream, seconds

READING: Final = 0.1
"""What a token of the prompt costs, in tokens of the answer: prompts are read many tokens at a time."""
ALIKE: Final = 1.5
"""Latencies up to so many times the best are taken as equal: equal upstreams differ so much by chance, and what is truly
slower has more outstanding anyway. (Weighing every difference makes equal upstreams take turns at being flooded.)"""
LEAST_S: Final = 0.01
"""Nor does it matter who is the quicker of two that answer at once."""
STEEP: Final = 6.0
"""Beyond, twice as slow costs 64 times as much: an upstream ten times slower gets next to nothing, and not its few
requests in a hundred, which would be the slowest hundredth."""
SLACK: Final = 0.25
"""How much less another upstream must cost to be asked instead of the first drawn: else noise would decide, not weights."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks of an upstream. `tokens`: prompt and expected answer, in tokens of the answer. `key`: of its
    conversation, None where it has none. `known`: the share of its prompt that was sent before, as far as one can tell.
    `alike`: whether it is the same which of the candidates answers; else none is asked beside another."""

    tokens: float = 1.0
    stream: bool = False
    key: str | None = None
    known: float = 0.0
    alike: bool = True


@dataclass(slots=True)
class Load:
    """What this worker knows of one upstream. `strength`: its weight, 1 for the mean of those that it shares work with.
    `waiting`: when calls began that have brought nothing yet, oldest first."""

    upstream: Upstream
    breaker: Breaker
    strength: float = 1.0
    outstanding: float = 0.0
    latency: dict[bool, Latency] = field(default_factory=lambda: {False: Latency(), True: Latency()})
    waiting: dict[bool, dict[int, float]] = field(default_factory=lambda: {False: {}, True: {}})

    def oldest_s(self, stream: bool, now: float) -> float:
        """How long the oldest call that has brought nothing yet has waited: what is slow shows before it has answered."""
        began = next(iter(self.waiting[stream].values()), None)
        return 0.0 if began is None else now - began


@dataclass(frozen=True, slots=True)
class Ranking:
    """Upstreams in the order in which to ask them, and why. `costs`: by name, of those that were compared; less is better.
    `home`: the upstream of the conversation, None where it has no key."""

    order: tuple[Upstream, ...]
    costs: dict[str, float] = field(default_factory=dict)
    home: str | None = None


class Balancer:
    """The loads of all upstreams of one gateway worker. `clock`: seconds."""

    def __init__(
        self, upstreams: Sequence[Upstream], settings: Balancing, *, clock: Callable[[], float], rng: random.Random
    ) -> None:
        pause_s = seconds(settings.breaker_pause)
        weights: dict[int, list[float]] = {}
        for upstream in upstreams:
            weights.setdefault(upstream.fallback, []).append(upstream.weight)
        self.loads = {
            upstream.name: Load(
                upstream,
                Breaker(settings.breaker_failures, pause_s, clock=clock, rng=rng),
                upstream.weight / statistics.fmean(weights[upstream.fallback]),
            )
            for upstream in upstreams
        }
        self._affinity = settings.affinity
        self._clock = clock
        self._rng = rng

    def rank(self, among: Sequence[Upstream], ask: Ask) -> Ranking:
        """All of `among`: those that may be asked now by their fallback and their costs; after them, soonest first, those
        whose breaker is open. So the last one is never left out."""
        if len(among) == 1:
            return Ranking(tuple(among))
        ready = [load for upstream in among if (load := self.loads[upstream.name]).breaker.ready]
        shut = [load for upstream in among if not (load := self.loads[upstream.name]).breaker.ready]
        shut.sort(key=lambda load: (load.breaker.until, load.upstream.fallback))
        tiers: dict[int, list[Load]] = {}
        for load in ready:
            tiers.setdefault(load.upstream.fallback, []).append(load)
        order: list[Load] = []
        costs: dict[str, float] = {}
        home: str | None = None
        for tier in sorted(tiers):
            ranked, of_tier, own = self._tier(tiers[tier], ask)
            order += ranked
            costs |= of_tier
            home = home or own
        return Ranking(tuple(load.upstream for load in (*order, *shut)), costs, home)

    def cost(self, load: Load, ask: Ask, best: float | None) -> float:
        """What asking there would cost: the tokens that would then be outstanding for its weight x how slow it is."""
        now = self._clock()
        tokens = load.outstanding / load.strength + ask.tokens
        latency = max(load.latency[ask.stream].estimate(now, best) or 0.0, load.oldest_s(ask.stream, now))
        alike = ALIKE * max(best or 0.0, LEAST_S)
        if best is None or latency <= alike:
            return tokens
        return tokens * float((latency / alike) ** STEEP)

    def best(self, loads: Sequence[Load], stream: bool) -> float | None:
        """The lowest latency that any of them has shown."""
        return min((latest for load in loads if (latest := load.latency[stream].latest) is not None), default=None)

    def _tier(self, loads: list[Load], ask: Ask) -> tuple[list[Load], dict[str, float], str | None]:
        if len(loads) == 1:
            return loads, {}, None
        best = self.best(loads, ask.stream)
        costs = {load.upstream.name: self.cost(load, ask, best) for load in loads}
        first = self._home(loads, ask.key) if ask.key is not None else self._drawn(loads)
        others = [load for load in loads if load is not first]
        second = others[0] if len(others) == 1 else self._drawn(others)
        home = first.upstream.name if ask.key is not None else None
        more = SLACK + (self._affinity * ask.known if home else 0.0)
        if costs[second.upstream.name] * (1 + more) < costs[first.upstream.name]:
            first, second = second, first
        rest = [load for load in loads if load is not first]
        rest.sort(key=lambda load: costs[load.upstream.name])
        return [first, *rest], costs, home

    def _drawn(self, loads: Sequence[Load]) -> Load:
        return self._rng.choices(loads, [load.upstream.weight for load in loads])[0]

    def _home(self, loads: Sequence[Load], key: str) -> Load:
        """Weighted rendezvous: each upstream is home to a share of all conversations as large as its weight's; one that
        comes or goes moves only its own."""
        return max(loads, key=lambda load: load.upstream.weight / -math.log(_unit(f"{key}\0{load.upstream.name}")))


def _unit(text: str) -> float:
    """A hash in (0, 1), the same in every process."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=7).digest()
    return (int.from_bytes(digest) + 0.5) / (1 << 56)
