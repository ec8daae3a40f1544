"""Intervals: exact where theory is, and as often right as they say where rows come in clusters."""

import numpy as np
import pytest
from scipy.stats import binomtest, t

from watchkeeper_evaluations.interval import clopper_pearson, mean, quantile, share


@pytest.mark.parametrize(("hits", "count"), [(0, 0), (0, 30), (1, 100), (30, 30), (7, 19)])
def test_the_interval_of_independent_rows_is_clopper_and_pearsons(hits: int, count: int) -> None:
    if not count:
        assert clopper_pearson(hits, count) == (0.0, 1.0)
        return
    expected = binomtest(hits, count).proportion_ci(method="exact")
    assert clopper_pearson(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-6)
    found = share([1.0] * hits + [0.0] * (count - hits), range(count))
    assert (found.lower, found.upper) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert (found.value, found.n, found.clusters) == (hits / count, count, count)


def test_rows_that_say_the_same_count_once() -> None:
    """Ten sessions of ten equal turns are ten rows of evidence."""
    values = [float(number < 5) for number in range(10)]
    once = share(values, range(10))
    ten_times = share([value for value in values for _ in range(10)], [number for number in range(10) for _ in range(10)])
    assert ten_times.lower == pytest.approx(once.lower, abs=0.02)
    assert ten_times.n == 100
    alike = share([1.0] * 100, [number // 10 for number in range(100)])
    assert (alike.lower, alike.upper) == pytest.approx(clopper_pearson(10, 10))


@pytest.mark.parametrize("hits", [0, 1, 40, 99, 100])
def test_a_share_of_one_session_is_no_more_certain_than_one_row(hits: int) -> None:
    """Whatever the turns of one conversation say, nothing tells how others go."""
    found = share([1.0] * hits + [0.0] * (100 - hits), ["one session"] * 100)
    assert (found.value, found.n, found.clusters) == (hits / 100, 100, 1)
    assert (found.lower, found.upper) == pytest.approx(clopper_pearson(hits / 100, 1))
    assert found.lower < 0.03
    assert found.upper > 0.97


def test_the_mean_of_independent_rows_has_students_interval() -> None:
    values = [0.1, 0.4, 0.35, 0.8, 0.55]
    found = mean(values, range(5), 0, 1)
    reach = t.ppf(0.975, 4) * np.std(values, ddof=1) / 5**0.5
    assert (found.lower, found.upper) == pytest.approx((np.mean(values) - reach, np.mean(values) + reach))
    assert mean([0.5] * 9, ["one session"] * 9, 0, 1).lower == 0.0, "one session is no evidence of others"
    assert mean([1.0, 0.0], range(2), 0, 1).upper == 1.0, "not beyond its range"


@pytest.mark.parametrize("kind", ["share", "mean"])
def test_of_a_hundred_clustered_windows_about_five_miss_the_truth(kind: str) -> None:
    rng = np.random.default_rng(5)
    missed = 0
    for _ in range(400):
        level = np.repeat(rng.beta(2, 3, 40), 5)
        clusters = np.repeat(np.arange(40), 5).tolist()
        if kind == "share":
            found = share((rng.random(200) < level).astype(float).tolist(), clusters)
        else:
            found = mean(np.clip(level + rng.normal(0, 0.01, 200), 0, 1).tolist(), clusters, 0, 1)
        missed += not found.lower <= 0.4 <= found.upper
    assert 4 <= missed <= 32


def test_a_quantile_is_held_by_order_statistics() -> None:
    rng = np.random.default_rng(6)
    truth = -np.log(0.05)
    inside = [
        found.lower <= truth <= found.upper
        for found in (quantile(rng.exponential(size=300).tolist(), 0.95) for _ in range(400))
    ]
    assert 0.93 <= np.mean(inside) <= 1.0
    few = quantile(range(30), 0.99)
    assert few.upper == np.inf
    assert few.lower == 27.0, "the 28th of 30"
    assert quantile([5.0], 0.95).value == 5.0
    assert quantile([5.0], 0.95).lower == -np.inf
