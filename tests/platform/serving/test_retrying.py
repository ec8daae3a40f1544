"""The retry budget: never more than it says, whatever comes when; and waits that are spread."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.retrying import LONGEST_WAIT_S, REMEMBERED_S, RetryBudget, wait_s


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 30), st.integers(0, 60)), max_size=40),
    st.floats(0, 1),
    st.floats(0, 20),
)
def test_the_budget_is_never_exceeded(steps: list[tuple[float, int, int]], share: float, per_second: float) -> None:
    now = [50.0]
    budget = RetryBudget(share, per_second, lambda: now[0])
    requests = retries = 0
    for pause, asked, wanted in steps:
        now[0] += pause
        for _ in range(asked):
            budget.request()
        requests += asked
        retries += sum(budget.take() for _ in range(wanted))
        most = share * requests + per_second * (now[0] - 50.0 + REMEMBERED_S)
        assert retries <= most + 1e-6


@pytest.mark.parametrize(("failing", "least", "most"), [(0.15, 1.0, 1.0), (0.8, 0.24, 0.27)])
def test_a_steady_share_of_failures_is_retried_up_to_the_share_of_the_budget(
    failing: float, least: float, most: float
) -> None:
    now = [0.0]
    rng = random.Random(1)
    budget = RetryBudget(0.2, 0.0, lambda: now[0])
    wanted = got = 0
    for at in range(20_000):
        now[0] += 0.01
        budget.request()
        if at > 5_000 and rng.random() < failing:
            wanted += 1
            got += budget.take()
    assert least <= got / wanted <= most


def test_little_traffic_may_retry_all() -> None:
    now = [0.0]
    budget = RetryBudget(0.2, 10.0, lambda: now[0])
    for _ in range(100):
        now[0] += 0.2
        budget.request()
        assert budget.take()


def test_waits_are_spread_and_bounded() -> None:
    rng = random.Random(1)
    waits = [wait_s(retry, rng) for retry in range(1, 12) for _ in range(200)]
    assert 0 <= min(waits) <= max(waits) <= LONGEST_WAIT_S
    firsts = [wait_s(1, rng) for _ in range(500)]
    assert len({round(wait, 3) for wait in firsts}) > 15
