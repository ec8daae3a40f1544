"""The line: who is next, who is sent away, and for how long anyone waits; first as arithmetic, then on a loop."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.queueing import Line, Overloaded, Queue, Waiter

LIMIT_S, TARGET_S = 10.0, 1.0
ARRIVALS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), min_size=1, max_size=40)


def line(most: int = 1_000) -> Line:
    return Line(most, limit_s=LIMIT_S, target_s=TARGET_S)


def served(waiting: Line) -> list[Waiter]:
    return list(iter(waiting.next, None))


@given(ARRIVALS)
def test_of_one_tenant_and_priority_who_came_first_is_served_first(arrivals: list[tuple[str, int]]) -> None:
    waiting = line()
    for number, (tenant, priority) in enumerate(arrivals):
        assert waiting.arrive(Waiter(tenant, priority, 0.0, number), 0.0) is None
    order = served(waiting)
    assert sorted(waiter.place for waiter in order) == list(range(len(arrivals)))
    for flow in set(arrivals):
        places = [waiter.place for waiter in order if waiter.flow == flow]
        assert places == sorted(places)


@given(st.permutations(range(10)))
def test_of_those_who_come_together_the_higher_priority_is_served_first(priorities: list[int]) -> None:
    waiting = line()
    for priority in priorities:
        waiting.arrive(Waiter("a", priority, 0.0), 0.0)
    assert [waiter.priority for waiter in served(waiting)] == sorted(priorities, reverse=True)


@pytest.mark.parametrize("priority", [0, 4, 5])
def test_nobody_starves_while_others_never_stop(priority: int) -> None:
    """Two flows of priority 5 always have somebody waiting; each is served twice as often a priority more."""
    waiting = line()
    waiting.arrive(Waiter("flood", 5, 0.0), 0.0)
    waiting.arrive(Waiter("other flood", 5, 0.0), 0.0)
    waiting.arrive(Waiter("patient", priority, 0.0), 0.0)
    waiting.arrive(Waiter("patient", priority, 0.0), 0.0)
    before = 0
    patient = 0
    while patient < 2:
        waiter = waiting.next()
        assert waiter is not None
        if waiter.tenant == "patient":
            patient += 1
        else:
            before += 1
            waiting.arrive(Waiter(waiter.tenant, 5, 0.0), 0.0)
    assert before <= 2 * (2 ** (5 - priority) + 1)


def test_a_flood_waits_behind_itself_and_others_do_not() -> None:
    waiting = line()
    for _ in range(100):
        waiting.arrive(Waiter("flood", 5, 0.0), 0.0)
    for _ in range(3):
        waiting.arrive(Waiter("quiet", 5, 0.0), 0.0)
    first = [waiter.tenant for waiter in served(waiting)[:7]]
    assert Counter(first)["quiet"] == 3


def test_priorities_of_one_tenant_get_it_less_than_twice_its_share() -> None:
    waiting = line(10_000)
    for _ in range(600):
        for priority in range(6):
            waiting.arrive(Waiter("clever", priority, 0.0), 0.0)
        waiting.arrive(Waiter("plain", 5, 0.0), 0.0)
    got = Counter(waiter.tenant for waiter in served(waiting)[:600])
    assert got["clever"] <= 2 * got["plain"] + 6


@given(ARRIVALS, st.integers(0, 10))
def test_a_full_line_sends_away_who_would_be_last(arrivals: list[tuple[str, int]], most: int) -> None:
    waiting, here = line(most), 0
    for number, (tenant, priority) in enumerate(arrivals):
        newcomer = Waiter(tenant, priority, 0.0, number)
        gone = waiting.arrive(newcomer, 0.0)
        here += gone is None
        assert (gone is None) == (number < most)
        assert len(waiting) == here <= most
        if gone is not None and gone is not newcomer:
            assert gone.order > newcomer.order
    assert len(served(waiting)) == here


@given(st.floats(0, 1e6), st.floats(0, 5))
def test_at_the_time_that_is_due_somebody_goes_or_the_time_moves_on(began: float, pause: float) -> None:
    waiting = line(10)
    waiting.arrive(Waiter("a", 5, began), began)
    now = began + pause
    waiting.late(now)
    for _ in range(3):
        if (due := waiting.due(now)) is None:
            return
        now = max(now, due)
        waiting.late(now)
    raise AssertionError("it is due again and again")


def test_a_flood_that_fills_the_line_makes_room_for_others() -> None:
    waiting = line(10)
    for _ in range(30):
        waiting.arrive(Waiter("flood", 5, 0.0), 0.0)
    for _ in range(4):
        gone = waiting.arrive(Waiter("quiet", 5, 0.0), 0.0)
        assert gone is not None
        assert gone.tenant == "flood"
    assert Counter(waiter.tenant for waiter in served(waiting)) == {"flood": 6, "quiet": 4}


@given(
    st.lists(
        st.tuples(st.sampled_from(["arrive", "serve", "leave", "look"]), st.integers(0, 9), st.floats(0, 4)), max_size=80
    )
)
def test_nobody_waits_longer_than_the_limit_nor_than_the_target_in_a_standing_line(
    steps: list[tuple[str, int, float]],
) -> None:
    waiting, now = line(20), 0.0
    here: list[Waiter] = []
    since: float | None = None
    for what, number, pause in steps:
        # Time passes as it does for a queue: it looks when the line says that it is due.
        until = now + pause
        while (due := waiting.due(now)) is not None and due <= until:
            now = max(now, due)
            standing = since is not None and now >= since + LIMIT_S
            for waiter in waiting.late(now):
                waited = now - waiter.arrived
                assert waited >= (TARGET_S if standing else LIMIT_S) - 1e-9, "sent away too soon"
                assert waited <= LIMIT_S + 1e-9
                here.remove(waiter)
        now = until
        if what == "arrive":
            waiter = Waiter("abc"[number % 3], number, now)
            if not here:
                since = now
            gone = waiting.arrive(waiter, now)
            here = [one for one in [*here, waiter] if one is not gone]
        elif what == "serve":
            turn = waiting.next()
            assert (turn is None) == (not here)
            if turn is not None:
                here.remove(turn)
        elif what == "leave" and here:
            waiting.remove(here.pop(number % len(here)))
        assert len(waiting) == len(here)
        assert all(now - waiter.arrived <= LIMIT_S + 1e-9 for waiter in here)
        if since is not None and now - since > LIMIT_S + TARGET_S:
            assert all(now - waiter.arrived <= TARGET_S + 1e-9 for waiter in here)


def queue(slots: int = 1, most: int = 10, limit_s: float = 60.0, target_s: float = 60.0) -> Queue:
    return Queue(slots, most, limit_s=limit_s, target_s=target_s, clock=time.monotonic)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def test_places_are_never_more_than_there_are_and_all_are_free_in_the_end() -> None:
    async def run() -> None:
        places = queue(slots=3, most=200)
        most = 0

        async def one(number: int) -> None:
            nonlocal most
            await places.enter("ab"[number % 2], number % 10)
            try:
                most = max(most, places.running)
                await asyncio.sleep(0)
            finally:
                places.leave()

        tasks = [asyncio.create_task(one(number)) for number in range(120)]
        for number in range(0, 120, 7):
            await asyncio.sleep(0)
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most == 3
        assert (places.running, places.waiting) == (0, 0)

    asyncio.run(run())


def test_who_goes_away_leaves_the_line() -> None:
    async def run() -> None:
        places = queue()
        assert await places.enter("a", 5) == 0.0
        gone, next_ = (asyncio.create_task(places.enter("a", 5)) for _ in range(2))
        await until(lambda: places.waiting == 2)
        gone.cancel()
        await until(lambda: places.waiting == 1)
        places.leave()
        assert await next_ > 0
        assert (places.running, places.waiting) == (1, 0)

    asyncio.run(run())


def test_who_goes_away_in_the_moment_of_its_turn_gives_it_on() -> None:
    async def run() -> None:
        places = queue()
        await places.enter("a", 5)
        gone, next_ = (asyncio.create_task(places.enter("a", 5)) for _ in range(2))
        await until(lambda: places.waiting == 2)
        places.leave()
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        await asyncio.wait_for(next_, 10)
        assert (places.running, places.waiting) == (1, 0)

    asyncio.run(run())


def test_nobody_waits_for_ever_though_nobody_leaves() -> None:
    async def run() -> None:
        places = queue(limit_s=0.05, target_s=0.05)
        await places.enter("a", 5)
        with pytest.raises(Overloaded) as caught:
            await asyncio.wait_for(places.enter("a", 5), 30)
        assert caught.value.reason == "queue_wait"
        assert caught.value.retry_after >= 1
        assert (places.running, places.waiting) == (1, 0)

    asyncio.run(run())


def test_without_a_line_who_finds_no_place_is_sent_away_at_once() -> None:
    async def run() -> None:
        places = queue(most=0)
        await places.enter("a", 5)
        with pytest.raises(Overloaded) as caught:
            await places.enter("b", 9)
        assert caught.value.reason == "queue_full"

    asyncio.run(run())
