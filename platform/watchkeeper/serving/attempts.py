"""All attempts at one answer: the first upstream, others when it fails before it has said anything, and hedges.

What has begun is never tried again: an answer is of one upstream. Every call beyond the first comes out of one budget, and
there are never more than `balancing.attempts`. Knows nothing of stages or of HTTP.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from watchkeeper.serving.balancing import Ask
from watchkeeper.serving.hedging import first_of
from watchkeeper.serving.retrying import wait_s
from watchkeeper.serving.upstreams import Upstreams
from watchkeeper.serving.wire import Delta, UpstreamFailed
from watchkeeper.settings import Upstream

Why = Literal["first", "retry", "hedge"]


@dataclass(slots=True)
class Attempt:
    """One call. `how`: asking, answering, answered, given_up, or the code of its failure."""

    upstream: Upstream
    why: Why
    breaker: str
    began: float
    how: str = "asking"
    ms: float = 0.0


class Attempts:
    """`candidates`: in the order in which to try them. `body`: what an upstream is sent. `made`: what was tried so far."""

    def __init__(
        self,
        upstreams: Upstreams,
        candidates: Sequence[Upstream],
        body: Callable[[Upstream], dict[str, Any]],
        ask: Ask,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.made: list[Attempt] = []
        self._answers: Upstream | None = None
        self._upstreams = upstreams
        self._candidates = list(candidates)
        self._body: Callable[[Upstream], dict[str, Any]] | None = body
        self._ask = ask
        self._sleep = sleep

    @property
    def upstream(self) -> Upstream | None:
        """Who answers, or did until it broke off; while nobody does, who was asked last."""
        return self._answers or (self.made[-1].upstream if self.made else None)

    @property
    def hedged(self) -> bool:
        """Whether a second upstream was asked while the first was not yet done."""
        return any(attempt.why == "hedge" for attempt in self.made)

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """The answer. Raises `UpstreamFailed` with the last failure when nobody answers, or who did breaks off."""
        if not self._candidates:
            raise UpstreamFailed(503, "upstream_unavailable", "no upstream is set for this model", retryable=False)
        self._upstreams.budget.request()
        asked_at = self._upstreams.clock()
        try:
            call, delta = await self._begun()
        finally:
            # It knows the journey, which knows this: in a circle they would be in the way until the garbage collector
            # comes, and that, 10,000 objects later, held up whoever was being served by 4 ms.
            self._body = None
        self._answers = call.attempt.upstream
        self._upstreams.begun(self._ask.stream, self._upstreams.clock() - asked_at)
        try:
            while delta is not None:
                yield delta
                delta = await call.next()
        finally:
            await call.close()

    async def _begun(self) -> tuple["_Call", Delta | None]:
        """The first call that begins to answer, and what it said first."""
        call = self._call("first", self._next())
        retries = 0
        while True:
            try:
                if not self._hedging():
                    return call, await call.first()
                won, delta = await first_of(call, self._late_after_s, self._hedge, self._upstreams.clock)
                self._upstreams.hedges["won"] += won is not call
                return won, delta
            except UpstreamFailed as failure:
                after = self._after(failure)
                if after is None:
                    raise
                retries += 1
                self._upstreams.retries["retried"] += 1
                await self._sleep(wait_s(retries, self._upstreams.rng))
                call = self._call("retry", after)

    def _call(self, why: Why, upstream: Upstream) -> "_Call":
        upstreams = self._upstreams
        state = upstreams.state(upstream.name)
        attempt = Attempt(upstream, why, state, upstreams.clock())
        self.made.append(attempt)
        assert self._body is not None  # there are no calls once one answers
        return _Call(attempt, upstreams.call(upstream, self._body(upstream), self._ask), upstreams.clock)

    def _fresh(self) -> list[Upstream]:
        """Those that were not asked yet."""
        asked = {attempt.upstream.name for attempt in self.made}
        return [upstream for upstream in self._candidates if upstream.name not in asked]

    def _next(self) -> Upstream:
        """The next that was not asked yet and may be; the next at all where none may."""
        fresh = self._fresh()
        return next((upstream for upstream in fresh if self._upstreams.ready(upstream)), fresh[0])

    def _after(self, failure: UpstreamFailed) -> Upstream | None:
        """Who is asked after this failure: another; the same again only where the connection broke. None: nobody."""
        if not failure.retryable or len(self.made) >= self._upstreams.settings.attempts:
            return None
        again = failure.code == "upstream_unavailable"
        if not self._fresh() and not again:
            return None
        if not self._upstreams.budget.take():
            self._upstreams.retries["refused"] += 1
            return None
        return self._next() if self._fresh() else self.made[-1].upstream

    def _hedging(self) -> bool:
        settings = self._upstreams.settings
        return settings.hedge and self._ask.alike and len(self.made) < settings.attempts and bool(self._rivals())

    def _rivals(self) -> list[Upstream]:
        """Whom a hedge may ask: those of the same fallback that were not asked yet and may be."""
        level = self.made[-1].upstream.fallback
        return [
            upstream
            for upstream in self._fresh()
            if upstream.fallback == level and self._upstreams.state(upstream.name) == "closed"
        ]

    def _late_after_s(self) -> float | None:
        return self._upstreams.late_s(self._ask.stream)

    def _hedge(self) -> "_Call | None":
        rivals = self._rivals()
        if not rivals:
            return None
        if not self._upstreams.budget.take():
            self._upstreams.hedges["refused"] += 1
            return None
        self._upstreams.hedges["asked"] += 1
        return self._call("hedge", self._upstreams.rank(rivals, self._ask).order[0])

    def told(self) -> str:
        """What was tried, for the span: `a: upstream_unavailable after 3 ms; b (retry): answered after 120 ms`."""
        return "; ".join(
            f"{attempt.upstream.name}{'' if attempt.why == 'first' else f' ({attempt.why})'}: {attempt.how}"
            + (f" after {attempt.ms:.0f} ms" if attempt.how != "asking" else "")
            for attempt in self.made
        )


class _Call:
    """One call, in the terms of a race: the first delta, the next ones, and the end."""

    def __init__(self, attempt: Attempt, deltas: AsyncGenerator[Delta, None], clock: Callable[[], float]) -> None:
        self.attempt = attempt
        self._deltas = deltas
        self._clock = clock

    async def first(self) -> Delta | None:
        delta = await self.next()
        if self.attempt.how == "asking":
            self._note("answering")
        return delta

    async def next(self) -> Delta | None:
        try:
            delta = await anext(self._deltas, None)
        except UpstreamFailed as failure:
            self._note(failure.code)
            raise
        if delta is None:
            self._note("answered")
        return delta

    async def close(self) -> None:
        if self.attempt.how in ("asking", "answering"):
            self._note("given_up")
        await self._deltas.aclose()

    def _note(self, how: str) -> None:
        self.attempt.how = how
        self.attempt.ms = (self._clock() - self.attempt.began) * 1000
