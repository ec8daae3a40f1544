"""A tenant's allowance, whatever comes in whatever order: never below zero, never above what it holds."""

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.allowance import Allowance, Denied, Reservation, bring_up, opened, reserve, settle
from watchkeeper.settings import Tenant

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
TOKENS, REQUESTS = 1_000, 60


def tenant(**limits: Any) -> Tenant:
    return Tenant(name="acme", **limits)


LIMITED = tenant(
    requests_per_minute=REQUESTS, tokens_per_minute=TOKENS, max_in_flight=3, usd_per_day=1.0, usd_per_month=10.0
)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "settle", "give back", "crash"]),
        st.integers(0, 1_200),  # tokens that are asked for, or were used
        st.floats(0, 0.6),  # the same in USD
        st.floats(-5, 40),  # how far the clock goes
        st.integers(0, 3),  # which worker
    ),
    max_size=60,
)


@given(STEPS)
def test_no_bucket_is_ever_below_zero_or_above_its_capacity(steps: list[tuple[str, int, float, float, int]]) -> None:
    now = NOON
    allowance = opened(LIMITED, now)
    held: list[tuple[Reservation, int]] = []
    for what, tokens, usd, pause, worker in steps:
        now += pause
        if what == "reserve":
            got = reserve(allowance, LIMITED, now, tokens, usd, worker)
            if isinstance(got, Reservation):
                held.append((got, worker))
        elif held and what == "settle":
            got, who = held.pop(0)
            settle(allowance, LIMITED, now, got, tokens, usd, who, asked=True)
        elif held and what == "give back":
            got, who = held.pop()
            settle(allowance, LIMITED, now, got, 0, 0.0, who, asked=False)
        elif what == "crash":
            held = [one for one in held if one[1] != worker]
            allowance.running[worker] = 0
        check(allowance, len(held))


def check(allowance: Allowance, under_way: int) -> None:
    for bucket, capacity in ((allowance.requests, REQUESTS), (allowance.tokens, TOKENS)):
        assert 0 <= bucket.level <= capacity
        assert bucket.owed >= 0
    assert sum(allowance.running) == under_way <= 3
    for spent in (allowance.day, allowance.month):
        assert math.isfinite(spent.usd)
        assert spent.usd >= 0


@given(st.lists(st.tuples(st.integers(1, TOKENS), st.integers(0, 3 * TOKENS), st.floats(0, 30)), min_size=1, max_size=60))
def test_over_time_nobody_gets_more_than_the_limit(asks: list[tuple[int, int, float]]) -> None:
    """`used` may be more than was reserved: what is owed is paid before anything more is given."""
    limits = tenant(tokens_per_minute=TOKENS)
    now, used_in_all, last = NOON, 0, 0
    allowance = opened(limits, now)
    for tokens, used, pause in asks:
        got = reserve(allowance, limits, now, tokens, 0.0, 0)
        if isinstance(got, Reservation):
            settle(allowance, limits, now, got, used, 0.0, 0, asked=True)
            used_in_all += used
            last = max(last, used - tokens)
        given = TOKENS + TOKENS * (now - NOON) / 60
        assert used_in_all <= given + last + 1e-6
        now += pause


@given(st.integers(1, 100), st.integers(1, 100_000), st.lists(st.integers(1, 5_000), min_size=1, max_size=30))
def test_who_comes_back_when_told_is_served(requests: int, tokens: int, asks: list[int]) -> None:
    limits = tenant(requests_per_minute=requests, tokens_per_minute=tokens)
    now = NOON
    allowance = opened(limits, now)
    for ask in asks:
        got = reserve(allowance, limits, now, ask, 0.0, 0)
        if isinstance(got, Denied):
            if got.wait_s is None:
                assert ask > tokens
                continue
            early = reserve(allowance, limits, now + got.wait_s * 0.99 - 0.01, ask, 0.0, 0)
            assert isinstance(early, Denied), "a longer wait than was needed"
            now += math.ceil(got.wait_s)
            got = reserve(allowance, limits, now, ask, 0.0, 0)
        assert isinstance(got, Reservation)


def test_what_was_not_used_comes_back_and_a_request_only_when_it_did_not_count() -> None:
    allowance = opened(LIMITED, NOON)
    for asked, left in ((True, REQUESTS - 1), (False, REQUESTS - 1)):
        got = reserve(allowance, LIMITED, NOON, 500, 0.1, 0)
        assert isinstance(got, Reservation)
        assert (got.tokens_left, allowance.day.usd) == (500, 0.1)
        settle(allowance, LIMITED, NOON, got, 0, 0.0, 0, asked=asked)
        assert (allowance.tokens.level, allowance.requests.level, allowance.day.usd) == (TOKENS, left, 0.0)


def test_all_or_nothing() -> None:
    allowance = opened(LIMITED, NOON)
    refused = reserve(allowance, LIMITED, NOON, 100, 0.9, 0), reserve(allowance, LIMITED, NOON, 100, 0.2, 0)
    assert isinstance(refused[1], Denied)
    assert (allowance.requests.level, allowance.tokens.level, sum(allowance.running)) == (REQUESTS - 1, TOKENS - 100, 1)


@pytest.mark.parametrize(
    ("reason", "limits", "wait_s"),
    [
        ("requests", {"requests_per_minute": 1}, 60),
        ("in_flight", {"max_in_flight": 1}, 4),
        ("tokens", {"tokens_per_minute": 150}, 20),
        ("usd_per_day", {"usd_per_day": 0.15}, 12 * 3600),
        ("usd_per_month", {"usd_per_month": 0.15}, 36 * 3600),
    ],
)
def test_each_limit_says_when_to_come_back(reason: str, limits: dict[str, Any], wait_s: float) -> None:
    allowance = opened(tenant(**limits), NOON)
    assert isinstance(reserve(allowance, tenant(**limits), NOON, 100, 0.1, 0), Reservation)
    denied = reserve(allowance, tenant(**limits), NOON, 100, 0.1, 0, stay_s=4.0)
    assert isinstance(denied, Denied)
    assert denied.reason == reason
    assert denied.wait_s == pytest.approx(wait_s)


def test_of_several_limits_the_last_to_be_over_is_told() -> None:
    both = tenant(requests_per_minute=1, usd_per_day=0.15)
    allowance = opened(both, NOON)
    reserve(allowance, both, NOON, 1, 0.1, 0)
    denied = reserve(allowance, both, NOON, 1, 0.1, 0)
    assert isinstance(denied, Denied)
    assert denied.reason == "usd_per_day"


def test_a_request_that_never_fits_says_so() -> None:
    for limits in ({"tokens_per_minute": 99}, {"usd_per_day": 0.09}):
        denied = reserve(opened(tenant(**limits), NOON), tenant(**limits), NOON, 100, 0.1, 0)
        assert isinstance(denied, Denied)
        assert denied.wait_s is None


def test_a_budget_begins_anew_with_its_day_and_month_and_what_was_reserved_before_stays_there() -> None:
    limits = tenant(usd_per_day=1.0, usd_per_month=10.0)
    eve = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp()
    allowance = opened(limits, eve)
    got = reserve(allowance, limits, eve, 0, 0.8, 0)
    assert isinstance(got, Reservation)
    bring_up(allowance, limits, eve + 2)
    assert (allowance.day.usd, allowance.month.usd) == (0.0, 0.0)
    settle(allowance, limits, eve + 2, got, 0, 0.1, 0, asked=True)
    assert (allowance.day.usd, allowance.month.usd) == (0.0, 0.0)
