"""Upstreams: the models behind the gateway, each anything that speaks the OpenAI API, and what this worker saw of them.

Says which may be asked and in which order, and calls one, so that how that goes counts for the next choice: its load, its
latency, its breaker. Knows nothing of stages, nor of how often an answer is tried for (attempts.py).
"""

import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from typing import Any, Final

import msgspec

from watchkeeper.serving.balancing import Ask, Balancer, Load, Ranking
from watchkeeper.serving.breaker import State, Ticket
from watchkeeper.serving.exchange import CODES, Exchange
from watchkeeper.serving.latency import Recent
from watchkeeper.serving.retrying import RetryBudget
from watchkeeper.serving.wire import Delta, UpstreamFailed
from watchkeeper.settings import Balancing, Upstream

SLOW: Final = frozenset({CODES["first_token"], CODES["token"], CODES["total"]})
"""Failures that say nothing but that it took long: the latency tells of them, not the breaker."""

USUAL_OUTPUT: Final = 100.0
LEARNS: Final = 0.02
LATE: Final = 0.95
"""The share of answers that begin earlier than one that is late."""


class Seen(msgspec.Struct, frozen=True):
    """How an upstream stands, for those who watch. `latency_s`: of plain answers and of first tokens; None: not known."""

    state: State
    outstanding_tokens: float
    latency_s: dict[str, float | None]
    calls: dict[str, int]


class Upstreams:
    """All upstreams of one gateway worker. `exchange`: how one is called; `clock`: monotonic seconds."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        exchange: Exchange,
        settings: Balancing | None = None,
        *,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.all = tuple(upstreams)
        self.settings = settings or Balancing()
        self.balancer = Balancer(self.all, self.settings, clock=clock, rng=rng)
        self.budget = RetryBudget(self.settings.retry_share, self.settings.retries_per_second, clock)
        self.hedges: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.clock = clock
        self.rng = rng
        self._exchange = exchange
        self._calls: dict[str, Counter[str]] = {upstream.name: Counter() for upstream in self.all}
        self._begun = {False: Recent(), True: Recent()}
        self._number = 0
        self.usual_output = USUAL_OUTPUT
        """Tokens of an answer, on average lately."""

    def named(self, name: str) -> Upstream | None:
        return next((upstream for upstream in self.all if upstream.name == name), None)

    def among(self, names: Collection[str] | None) -> tuple[Upstream, ...]:
        """The upstreams of those names; all where None is given."""
        return self.all if names is None else tuple(upstream for upstream in self.all if upstream.name in names)

    def rank(self, among: Sequence[Upstream], ask: Ask) -> Ranking:
        """In the order in which to ask them."""
        return self.balancer.rank(among, ask)

    def ready(self, upstream: Upstream) -> bool:
        """Whether its breaker lets a call pass."""
        return self.balancer.loads[upstream.name].breaker.ready

    def state(self, name: str) -> State:
        """How its breaker stands."""
        return self.balancer.loads[name].breaker.state

    def begun(self, stream: bool, after_s: float) -> None:
        """A client's answer began so long after it was asked for."""
        self._begun[stream].observe(after_s)

    def late_s(self, stream: bool) -> float | None:
        """After how long an answer that has not begun is late. None while that is not known."""
        return self._begun[stream].quantile(LATE)

    async def call(self, upstream: Upstream, body: dict[str, Any], ask: Ask | None = None) -> AsyncGenerator[Delta, None]:
        """The answer in deltas; one, unless `body["stream"]`. Raises `UpstreamFailed`. Closing it ends the call."""
        ask = ask or Ask(stream=bool(body.get("stream")))
        load = self.balancer.loads[upstream.name]
        latency, waiting = load.latency[ask.stream], load.waiting[ask.stream]
        number = self._number = self._number + 1
        ticket = load.breaker.begin()
        began = self.clock()
        waiting[number] = began
        load.outstanding += ask.tokens
        outcome = "given_up"
        deltas = self._exchange(upstream, body)
        try:
            async for delta in deltas:
                if waiting.pop(number, None) is not None:
                    latency.observe((now := self.clock()) - began, now)
                if delta.usage and delta.usage[1]:
                    self.usual_output += (delta.usage[1] - self.usual_output) * LEARNS
                yield delta
            outcome = "answered"
            load.breaker.succeeded(ticket)
        except UpstreamFailed as failure:
            outcome = failure.code if failure.retryable else "refused"
            _tell(load, ticket, failure)
            raise
        finally:
            load.outstanding -= ask.tokens
            if outcome == "given_up":
                load.breaker.abandoned(ticket)
            if waiting.pop(number, None) is not None and (outcome == "given_up" or outcome in SLOW):
                best = self.balancer.best(tuple(self.balancer.loads.values()), ask.stream)
                latency.at_least((now := self.clock()) - began, now, best)
            self._calls[upstream.name][outcome] += 1
            await deltas.aclose()

    def seen(self) -> dict[str, Seen]:
        """How each stands now, as this worker sees it."""
        now = self.clock()
        found: dict[str, Seen] = {}
        for load in self.balancer.loads.values():
            latency = {kind: load.latency[kind == "stream"].estimate(now, None) for kind in ("plain", "stream")}
            calls = dict(self._calls[load.upstream.name])
            found[load.upstream.name] = Seen(load.breaker.state, load.outstanding, latency, calls)
        return found


def _tell(load: Load, ticket: Ticket, failure: UpstreamFailed) -> None:
    """What a failure means for the breaker: a refusal of the request, or slowness, is not the upstream's being broken."""
    if not failure.retryable:
        load.breaker.succeeded(ticket)
    elif failure.code in SLOW:
        load.breaker.abandoned(ticket)
    else:
        load.breaker.failed(ticket, failure.retry_after)
