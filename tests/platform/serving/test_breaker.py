"""The breaker: what opens it, one probe at a time, and what an old call may still say."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.breaker import JITTER, LONGEST_PAUSE_S, Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def breaker(clock: Clock, failures: int = 3) -> Breaker:
    return Breaker(failures, 1.0, clock=clock, rng=random.Random(1))


def opened(clock: Clock) -> Breaker:
    made = breaker(clock, failures=1)
    made.failed(made.begin())
    assert made.state == "open"
    return made


def test_failures_in_a_row_open_it_and_an_answer_between_does_not() -> None:
    made = breaker(Clock())
    for answers in (True, False, False, True, False, False):
        made.succeeded(made.begin()) if answers else made.failed(made.begin())
    assert made.state == "closed"
    made.failed(made.begin())
    assert (made.state, made.ready) == ("open", False)


def test_one_probe_at_a_time_decides() -> None:
    clock = Clock()
    made = opened(clock)
    clock.now += 1 + JITTER
    assert (made.state, made.ready) == ("half_open", True)
    probe = made.begin()
    assert not made.ready, "somebody is trying it"
    made.succeeded(probe)
    assert (made.state, made.ready) == ("closed", True)


def test_each_failing_probe_doubles_the_pause_up_to_a_bound() -> None:
    clock = Clock()
    made = opened(clock)
    pauses = []
    for _ in range(9):
        began = clock.now
        clock.now = made.until
        made.failed(made.begin())
        pauses.append(clock.now - began)
    assert all(later >= earlier * 2 / (1 + JITTER) for earlier, later in pairwise(pauses[:6]))
    assert pauses[-1] <= LONGEST_PAUSE_S * (1 + JITTER)
    clock.now = made.until
    made.succeeded(made.begin())
    made = opened(clock)
    assert made.until - clock.now <= 1 + JITTER, "once it has answered the pause is the first one again"


def test_a_probe_that_is_given_up_leaves_room_for_the_next() -> None:
    clock = Clock()
    made = opened(clock)
    clock.now = made.until
    made.abandoned(made.begin())
    assert made.ready


def test_what_the_upstream_says_of_when_to_come_back_is_kept_but_for_a_bound() -> None:
    clock = Clock()
    for said, least in ((7.0, 7.0), (86_400.0, LONGEST_PAUSE_S)):
        made = breaker(clock)
        made.failed(made.begin(), said)
        assert made.state == "open"
        assert least <= made.until - clock.now <= least * (1 + JITTER)


def test_calls_from_before_it_opened_say_nothing_of_now() -> None:
    clock = Clock()
    made = breaker(clock, failures=1)
    old, other, failing = made.begin(), made.begin(), made.begin()
    made.failed(failing)
    until = made.until
    made.succeeded(old)
    made.failed(other)
    assert (made.state, made.until) == ("open", until)


def test_who_is_called_for_want_of_another_and_answers_is_back() -> None:
    made = opened(Clock())
    made.failed(made.begin())
    assert not made.ready
    made.succeeded(made.begin())
    assert made.ready


@given(st.lists(st.tuples(st.sampled_from(["begin", "good", "bad", "gone", "wait"]), st.integers(0, 5)), max_size=60))
def test_whatever_happens_there_is_at_most_one_probe_and_never_no_way_back(steps: list[tuple[str, int]]) -> None:
    clock = Clock()
    made = breaker(clock, failures=2)
    running = []
    for what, number in steps:
        if what == "wait":
            clock.now += number
        elif what == "begin" and made.ready:
            running.append(made.begin())
        elif running:
            ticket = running.pop(number % len(running))
            {"good": made.succeeded, "bad": made.failed, "gone": made.abandoned, "begin": made.abandoned}[what](ticket)
        probes = [ticket for ticket in running if ticket.probe and made.state == "half_open"]
        assert len(probes) <= 1
        assert made.ready == (made.state == "closed" or (made.state == "half_open" and not probes))
    while running:
        made.abandoned(running.pop())
    clock.now += LONGEST_PAUSE_S * (1 + JITTER)
    assert made.ready
