"""Latencies: peaks count at once, decline comes slowly, and an estimate that nothing confirms fades towards the best."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.latency import ENOUGH, FADES_S, WINDOW, Latency, Recent


def test_a_peak_counts_at_once_and_recovery_takes_its_time() -> None:
    latency = Latency()
    latency.observe(0.1, 0.0)
    latency.observe(1.0, 1.0)
    assert latency.latest == 1.0
    latency.observe(0.1, 2.0)
    assert 0.8 < (latency.latest or 0) < 1.0
    for at in range(3, 200):
        latency.observe(0.1, float(at))
    assert latency.latest == pytest.approx(0.1, rel=0.05)


def test_what_nothing_confirms_fades_towards_the_best() -> None:
    latency = Latency()
    latency.observe(1.0, 0.0)
    assert latency.estimate(0.0, 0.1) == 1.0
    assert latency.estimate(3 * FADES_S, 0.1) == pytest.approx(0.145, abs=0.01)
    assert latency.estimate(1e9, 0.1) == pytest.approx(0.1)
    assert latency.estimate(1e9, None) == 1.0, "with nothing to compare, it is what it was"
    assert Latency().estimate(0.0, 0.1) is None


def test_a_call_that_was_given_up_counts_for_what_it_took_at_least() -> None:
    latency = Latency()
    latency.at_least(0.5, 0.0, None)
    assert latency.latest == 0.5
    latency.at_least(0.2, 1.0, 0.1)
    assert latency.latest == 0.5, "that it took more than a little says nothing"
    faded = latency.estimate(40.0, 0.1)
    assert faded is not None
    assert faded < 0.2
    latency.at_least(0.2, 40.0, 0.1)
    assert latency.estimate(40.0, 0.1) == 0.5, "it is still slow: the estimate had faded for want of calls"


@given(st.lists(st.floats(0, 100), min_size=ENOUGH, max_size=3 * WINDOW), st.floats(0, 1))
def test_the_quantile_is_that_of_the_last_observations(times: list[float], q: float) -> None:
    recent = Recent()
    for at, seconds in enumerate(times):
        assert (recent.quantile(q) is None) == (at < ENOUGH)
        recent.observe(seconds)
    last = sorted(times[-WINDOW:])
    assert recent.quantile(q) == last[min(len(last) - 1, int(q * len(last)))]
