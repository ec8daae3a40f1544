"""Attempts at one answer: retries and hedges before the first piece, none after it, all in a budget; losers are closed."""

import asyncio
import random
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watchkeeper.serving.attempts import Attempts
from watchkeeper.serving.balancing import Ask
from watchkeeper.serving.upstreams import Upstreams
from watchkeeper.serving.wire import Delta, UpstreamFailed
from watchkeeper.settings import Balancing, Upstream

Run = Callable[[Any], Any]


@dataclass
class Scripted:
    """What one upstream does with its calls, in turn; the last of it again and again. A step: seconds until the first
    piece, and after how many pieces (of 3) it breaks off: 0 before the first, None not at all."""

    steps: list[tuple[float, int | None]]
    code: str = "upstream_error"
    retryable: bool = True
    retry_after: int | None = None
    calls: int = 0
    open: int = 0
    closed_early: int = 0


@dataclass
class Pool:
    """Upstreams whose calls are scripted, and one answer of theirs."""

    scripts: dict[str, Scripted]
    given: Balancing = field(default_factory=Balancing)
    waits: list[float] = field(default_factory=list)

    def make(self) -> Upstreams:
        self.upstreams = [Upstream(name=name, base_url="http://127.0.0.1:1/v1", model=name) for name in self.scripts]
        clock = asyncio.get_running_loop().time
        self.made = Upstreams(self.upstreams, self.exchange, self.given, clock=clock, rng=random.Random(1))
        return self.made

    async def exchange(self, upstream: Upstream, body: dict[str, Any]) -> AsyncGenerator[Delta, None]:
        script = self.scripts[upstream.name]
        pause, pieces = script.steps[min(script.calls, len(script.steps) - 1)]
        script.calls += 1
        script.open += 1
        try:
            await asyncio.sleep(pause)
            for number in range(3):
                if number == pieces:
                    raise UpstreamFailed(
                        502, script.code, "told to", retryable=script.retryable, retry_after=script.retry_after
                    )
                yield Delta(f"{upstream.name}{number} ")
                await asyncio.sleep(0.01)
        except (asyncio.CancelledError, GeneratorExit):
            script.closed_early += 1
            raise
        finally:
            script.open -= 1

    async def ask(self) -> tuple[str, Attempts]:
        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)
            await asyncio.sleep(seconds)

        attempts = Attempts(self.made, self.upstreams, lambda upstream: {}, Ask(stream=True), sleep=sleep)
        answer = ""
        async for delta in attempts.deltas():
            answer += delta.text
        return answer, attempts

    async def answer(self) -> tuple[str, Attempts]:
        self.make()
        return await self.ask()


def test_the_next_one_answers_when_the_first_fails_before_it_has_said_anything(in_virtual_time: Run) -> None:
    pool = Pool({"a": Scripted([(0.0, 0)]), "b": Scripted([(0.0, None)])})
    answer, attempts = in_virtual_time(pool.answer())
    assert answer == "b0 b1 b2 "
    assert [(one.upstream.name, one.why, one.how) for one in attempts.made] == [
        ("a", "first", "upstream_error"),
        ("b", "retry", "answered"),
    ]
    assert attempts.upstream is not None
    assert attempts.upstream.name == "b"
    assert len(pool.waits) == 1
    assert attempts.told().startswith("a: upstream_error after ")


def test_what_has_begun_is_never_tried_again(in_virtual_time: Run) -> None:
    pool = Pool({"a": Scripted([(0.0, 2)]), "b": Scripted([(0.0, None)])})
    with pytest.raises(UpstreamFailed):
        in_virtual_time(pool.answer())
    assert pool.scripts["b"].calls == 0


def test_a_refusal_of_the_request_is_final_and_no_fault_of_the_upstreams(in_virtual_time: Run) -> None:
    pool = Pool({"a": Scripted([(0.0, 0)], code="context_length_exceeded", retryable=False), "b": Scripted([(0.0, None)])})

    async def run() -> str:
        pool.make()
        for _ in range(5):
            with pytest.raises(UpstreamFailed, match="told to"):
                await pool.ask()
        return pool.made.state("a")

    assert in_virtual_time(run()) == "closed"
    assert pool.scripts["b"].calls == 0


@pytest.mark.parametrize(("code", "calls"), [("upstream_unavailable", 3), ("upstream_error", 1), ("upstream_timeout", 1)])
def test_the_same_one_is_asked_again_only_where_the_connection_broke(in_virtual_time: Run, code: str, calls: int) -> None:
    pool = Pool({"a": Scripted([(0.0, 0)], code=code)})
    with pytest.raises(UpstreamFailed):
        in_virtual_time(pool.answer())
    assert pool.scripts["a"].calls == calls


def test_without_budget_the_first_failure_is_the_answer(in_virtual_time: Run) -> None:
    given_ = Balancing(retry_share=0, retries_per_second=0)
    pool = Pool({"a": Scripted([(0.0, 0)]), "b": Scripted([(0.0, None)])}, given_)
    with pytest.raises(UpstreamFailed):
        in_virtual_time(pool.answer())
    assert (pool.scripts["b"].calls, pool.made.retries["refused"]) == (0, 1)


def test_one_that_says_when_to_come_back_is_left_alone_until_then(in_virtual_time: Run) -> None:
    busy = Scripted([(0.0, 0), (0.0, None)], code="rate_limit_exceeded", retry_after=7)
    pool = Pool({"a": busy, "b": Scripted([(0.0, None)])})

    async def run() -> list[int]:
        pool.make()
        calls = []
        for _ in range(12):
            await pool.ask()
            calls.append(busy.calls)
            await asyncio.sleep(1.0)
        return calls

    calls = in_virtual_time(run())
    assert calls[6] == 1
    assert calls[-1] > 1


def warmed(pool: Pool, seconds: float = 0.1) -> None:
    for _ in range(30):
        pool.made.begun(True, seconds)


def test_a_late_first_piece_is_asked_of_another_too_and_the_loser_is_closed(in_virtual_time: Run) -> None:
    pool = Pool({"a": Scripted([(9.0, None)]), "b": Scripted([(0.05, None)])}, Balancing(hedge=True))

    async def run() -> tuple[str, Attempts, float]:
        pool.make()
        warmed(pool)
        began = asyncio.get_running_loop().time()
        answer, attempts = await pool.ask()
        return answer, attempts, asyncio.get_running_loop().time() - began

    answer, attempts, took = in_virtual_time(run())
    assert answer == "b0 b1 b2 "
    assert took < 0.3, "the first is not waited for"
    assert (pool.scripts["a"].closed_early, pool.scripts["a"].open) == (1, 0)
    assert [(one.why, one.how) for one in attempts.made] == [("first", "given_up"), ("hedge", "answered")]
    assert (pool.made.hedges["asked"], pool.made.hedges["won"]) == (1, 1)
    assert (pool.made.balancer.loads["a"].latency[True].latest or 0) >= 0.1, "that it was slow is remembered"


def test_the_first_may_still_win_and_then_the_hedge_is_closed(in_virtual_time: Run) -> None:
    pool = Pool({"a": Scripted([(0.2, None)]), "b": Scripted([(0.5, None)])}, Balancing(hedge=True))

    async def run() -> str:
        pool.make()
        warmed(pool)
        return (await pool.ask())[0]

    assert in_virtual_time(run()) == "a0 a1 a2 "
    assert (pool.scripts["b"].calls, pool.scripts["b"].closed_early, pool.scripts["b"].open) == (1, 1, 0)
    assert pool.made.hedges["won"] == 0


@pytest.mark.parametrize("given_", [Balancing(), Balancing(hedge=True, retry_share=0, retries_per_second=0)])
def test_no_hedge_without_being_told_or_without_budget(in_virtual_time: Run, given_: Balancing) -> None:
    pool = Pool({"a": Scripted([(9.0, None)]), "b": Scripted([(0.05, None)])}, given_)

    async def run() -> str:
        pool.make()
        warmed(pool)
        return (await pool.ask())[0]

    assert in_virtual_time(run()) == "a0 a1 a2 "
    assert pool.scripts["b"].calls == 0


def test_a_client_that_goes_ends_both_calls_of_a_race(in_virtual_time: Run) -> None:
    pool = Pool({"a": Scripted([(9.0, None)]), "b": Scripted([(9.0, None)])}, Balancing(hedge=True))

    async def run() -> None:
        pool.make()
        warmed(pool)
        asking = asyncio.ensure_future(pool.ask())
        await asyncio.sleep(1.0)
        assert [script.open for script in pool.scripts.values()] == [1, 1]
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert [script.open for script in pool.scripts.values()] == [0, 0]
        assert all(not load.waiting[True] for load in pool.made.balancer.loads.values())

    in_virtual_time(run())


STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.05, 0.3, 2.0]), st.sampled_from([None, None, 0, 1, 2])), min_size=1, max_size=4
)


@given(
    st.lists(STEPS, min_size=1, max_size=4), st.integers(1, 4), st.booleans(), st.sampled_from([0.0, 0.3]),
    st.lists(st.tuples(st.floats(0, 0.5), st.sampled_from([None, 0.01, 0.2, 1.0])), min_size=1, max_size=12),
)  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_upstreams_do(
    in_virtual_time: Run,
    scripts: list[list[tuple[float, int | None]]],
    attempts: int,
    hedge: bool,
    share: float,
    asked: list[tuple[float, float | None]],
) -> None:
    """Answers are of one upstream; every loser is closed; never more attempts or budget than are set; nothing stays open,
    also where clients go away (after the seconds given)."""
    given_ = Balancing(attempts=attempts, hedge=hedge, retry_share=share, retries_per_second=0.5)
    pool = Pool({f"u{at}": Scripted(steps) for at, steps in enumerate(scripts)}, given_)
    made: list[Attempts] = []

    async def one(gone_after: float | None) -> None:
        attempts = Attempts(pool.made, pool.upstreams, lambda upstream: {}, Ask(stream=True))
        made.append(attempts)
        said = []

        async def read() -> None:
            async for delta in attempts.deltas():
                said.append(delta.text)

        try:
            async with asyncio.timeout(gone_after):
                await read()
        except (UpstreamFailed, TimeoutError):
            pass
        else:
            assert len(said) == 3
        assert len({text[:2] for text in said}) <= 1
        assert [text[2] for text in said] == ["0", "1", "2"][: len(said)]
        if said:
            assert attempts.upstream is not None
            assert attempts.upstream.name == said[0][:2]

    async def run() -> float:
        pool.make()
        warmed(pool)
        tasks = []
        for pause, gone_after in asked:
            await asyncio.sleep(pause)
            tasks.append(asyncio.ensure_future(one(gone_after)))
        await asyncio.gather(*tasks)
        return asyncio.get_running_loop().time()

    seconds = in_virtual_time(run())
    calls = Counter({name: script.calls for name, script in pool.scripts.items()})
    assert all(script.open == 0 for script in pool.scripts.values())
    assert calls.total() == sum(len(one.made) for one in made)
    assert all(len(one.made) <= attempts for one in made)
    assert calls.total() - len(asked) <= share * len(asked) + 0.5 * (seconds + 10)
    for load in pool.made.balancer.loads.values():
        assert load.outstanding == pytest.approx(0.0)
        assert not load.waiting[True]


def test_an_answer_that_has_begun_no_longer_holds_what_its_body_is_made_of() -> None:
    """The body knows the journey, which knows its attempts: in a circle they would stay until somebody collects them."""

    class Journey:
        pass

    async def run() -> None:
        journey = Journey()
        gone = weakref.ref(journey)
        pool = Pool({"a": Scripted([(0.0, None)])})
        upstreams = pool.make()

        def body(upstream: Upstream, known: object = journey) -> dict[str, Any]:
            return {}

        attempts = Attempts(upstreams, pool.upstreams, body, Ask())
        async for _ in attempts.deltas():
            pass
        del journey, body
        assert gone() is None
        assert attempts.upstream is not None

    asyncio.run(run())
