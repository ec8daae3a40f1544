"""Tests and intervals are what they are called: exact where they say so, in step with each other, and blind to order."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import permutation_test
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from watchkeeper_evaluations.paired import exact_p, holm, of_assertions, of_numbers

ALPHA = 0.05
Floats = NDArray[np.float64]

counts = st.integers(0, 40)
whole = st.lists(st.integers(-4, 4), min_size=1, max_size=9)
unequal = st.lists(st.tuples(st.integers(-30, 30), st.integers(1, 6)), min_size=6, max_size=40)


def ones(n: int) -> Floats:
    return np.ones(n)


def every_exchange(sums: Floats) -> float:
    """The definition: how many of all exchanges are as far from nought."""
    signs = np.array(list(itertools.product([1, -1], repeat=len(sums))))
    return float((np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9).mean())


@given(counts, counts, counts)
def test_a_case_a_session_is_exact_mcnemar(wins: int, losses: int, ties: int) -> None:
    theirs = mcnemar([[ties, losses], [wins, 0]], exact=True).pvalue if wins + losses else 1.0
    assert exact_p(np.array([1] * wins + [-1] * losses + [0] * ties)) == pytest.approx(theirs, abs=1e-12)


@given(whole)
def test_exact_is_every_exchange_counted(sums: list[int]) -> None:
    assert exact_p(np.array(sums)) == pytest.approx(every_exchange(np.array(sums, np.float64)), abs=1e-12)
    found = of_numbers(np.array(sums, np.float64), ones(len(sums)), ALPHA)
    assert found.exact
    assert found.p == pytest.approx(every_exchange(np.array(sums, np.float64)), abs=1e-12)


def test_scipys_permutation_test_says_the_same_of_numbers() -> None:
    sums = np.random.default_rng(5).normal(0.3, 1, 11)
    theirs = permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert of_numbers(sums, ones(11), ALPHA).p == pytest.approx(theirs, abs=1e-12)


def test_drawn_exchanges_say_what_all_of_them_say() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        sums = rng.integers(-3, 5, 30)
        exact = exact_p(sums)
        assert exact is not None
        found = of_numbers(sums.astype(np.float64), ones(30), ALPHA)
        assert not found.exact
        assert found.p == pytest.approx(exact, abs=0.015)


@settings(deadline=None)
@given(unequal)
def test_an_interval_of_numbers_leaves_nought_out_exactly_when_the_test_does(sessions: list[tuple[int, int]]) -> None:
    sums, sizes = (np.array(values, np.float64) for values in zip(*sessions, strict=True))
    found = of_numbers(sums / 7, sizes, ALPHA)
    assert (found.low > 0 or found.high < 0) == (found.p < ALPHA)
    assert found.low <= sums.sum() / 7 / sizes.sum() + 1e-12
    assert found.high >= sums.sum() / 7 / sizes.sum() - 1e-12


@given(unequal)
def test_an_interval_of_assertions_ends_where_the_test_says(sessions: list[tuple[int, int]]) -> None:
    sizes = np.array([size for _, size in sessions], np.float64)
    sums = np.clip(np.array([sum_ for sum_, _ in sessions], np.float64), -sizes, sizes)
    found = of_assertions(sums, sizes, float(np.abs(sums).sum()), ALPHA)
    assert found.exact
    assert (found.low >= 0 or found.high <= 0) or found.p >= ALPHA
    assert found.low <= 0 <= found.high or found.p < ALPHA
    assert -1 <= found.low <= sums.sum() / sizes.sum() <= found.high <= 1


@settings(deadline=None)
@given(unequal)
def test_exchanging_base_and_candidate_mirrors_everything(sessions: list[tuple[int, int]]) -> None:
    sums, sizes = (np.array(values, np.float64) for values in zip(*sessions, strict=True))
    one, other = of_numbers(sums, sizes, ALPHA), of_numbers(-sums, sizes, ALPHA)
    assert (one.p, one.low, one.high) == (other.p, -other.high, -other.low)
    sums = np.clip(sums, -sizes, sizes)
    squares = float(np.abs(sums).sum())
    one, other = of_assertions(sums, sizes, squares, ALPHA), of_assertions(-sums, sizes, squares, ALPHA)
    assert (one.p, one.low, one.high) == (other.p, -other.high, -other.low)


@settings(deadline=None)
@given(unequal, st.integers(-20, 20))
def test_a_shift_of_all_differences_shifts_the_interval(sessions: list[tuple[int, int]], shift: int) -> None:
    sums, sizes = (np.array(values, np.float64) for values in zip(*sessions, strict=True))
    one, other = of_numbers(sums, sizes, ALPHA), of_numbers(sums + shift * sizes, sizes, ALPHA)
    assert (other.low, other.high) == pytest.approx((one.low + shift, one.high + shift))


@pytest.mark.parametrize(("wins", "losses", "n"), [(0, 0, 60), (6, 2, 40), (20, 9, 100)])
def test_the_interval_of_assertions_is_bonetts_and_prices(wins: int, losses: int, n: int) -> None:
    """Their formula, with t in the place of the normal distribution, and nought put in where the test is not sure."""
    sums = np.array([1.0] * wins + [-1.0] * losses + [0.0] * (n - wins - losses))
    found = of_assertions(sums, ones(n), wins + losses, ALPHA)
    won, lost = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    reach = student.ppf(0.975, n + 1) * ((won + lost - (won - lost) ** 2) / (n + 1)) ** 0.5
    assert found.p >= ALPHA
    assert (found.low, found.high) == pytest.approx((min(won - lost - reach, 0), won - lost + reach))


def test_no_difference_among_few_is_not_certainty() -> None:
    alone = of_assertions(np.zeros(30), ones(30), 0.0, ALPHA)
    assert alone.p == 1
    assert alone.high == -alone.low
    assert 0.08 < alone.high < 0.1
    together = of_assertions(np.zeros(30), np.full(30, 8.0), 0.0, ALPHA)
    assert together.high == pytest.approx(alone.high)


def test_a_few_sessions_say_nothing_for_certain() -> None:
    found = of_numbers(np.array([3.0, 2.0, 4.0, 3.0]), ones(4), ALPHA)
    assert found.p == pytest.approx(2 / 16)
    assert (found.low, found.high) == (-np.inf, np.inf)
    assert of_numbers(np.array([3.0]), ones(1), ALPHA).p == 1


@pytest.mark.parametrize("ps", [[0.03], [0.04, 0.01, 0.04, 0.9], [0.5, 0.5, 1.0, 0.0], [0.012, 0.013, 0.014]])
def test_holm_is_statsmodels_holm(ps: list[float]) -> None:
    assert holm(ps) == pytest.approx(list(multipletests(ps, method="holm")[1]))


def test_where_every_exchange_is_too_many_they_are_drawn() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 40, 4000).astype(np.float64)
    sums = np.rint(rng.uniform(-1, 1.1, 4000) * sizes)
    found = of_assertions(sums, sizes, float(np.abs(sums).sum()), ALPHA)
    assert not found.exact
    assert found.p < 0.01
