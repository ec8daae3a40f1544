"""The distances are what they are called, and chance is measured in units, not rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from watchkeeper_evaluations.two_sample import Sides, judged, ks, telling, telling_words, variation

ABOUT_LEAVE = ("how many days of leave do I have", "may I carry my leave over", "who approves my leave this year")
ABOUT_BILLS = ("I was charged twice, refund my invoice", "the invoice is wrong", "who refunds a charged invoice")


def everything(sides: Sides) -> NDArray[np.bool_]:
    return np.ones(len(sides.units), np.bool_)


def one_row_units(reference: int, current: int, times: int = 99) -> Sides:
    total = reference + current
    return Sides(range(total), [row >= reference for row in range(total)], times=times)


numbers = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(numbers, numbers)
def test_ks_is_the_largest_gap_of_the_cumulative_shares_ties_and_all(reference: list[float], current: list[float]) -> None:
    sides = one_row_units(len(reference), len(current), times=3)
    found = ks(np.array(reference + current), everything(sides), sides)
    gaps = [abs(np.mean(np.array(reference) <= at) - np.mean(np.array(current) <= at)) for at in reference + current]
    assert found[0] == pytest.approx(max(gaps), abs=1e-6)


def test_variation_is_the_share_that_would_have_to_change() -> None:
    sides = one_row_units(4, 4)
    assert variation(list("aabbaaaa"), everything(sides), sides)[0] == pytest.approx(0.5)
    assert variation(list("aaaabbbb"), everything(sides), sides)[0] == pytest.approx(1.0)
    kept = np.array([True] * 4 + [True, False, False, False])
    assert variation(list("aaaaabbb"), kept, sides)[0] == pytest.approx(0.0)


def test_texts_of_two_topics_are_told_apart_and_the_words_say_how() -> None:
    sides = one_row_units(30, 30)
    texts = [ABOUT_LEAVE[row % 3] for row in range(30)] + [ABOUT_BILLS[row % 3] for row in range(30)]
    distances, said = telling(texts, everything(sides), sides)
    shift = judged({"text": distances})["text"]
    assert shift.effect > 0.95
    assert shift.p == pytest.approx(1 / 100)
    assert said[30:].min() > said[:30].max()
    more, fewer = telling_words(texts, everything(sides), sides, limit=20)
    assert "invoice" in more
    assert "leave" in fewer


def test_embeddings_tell_apart_what_words_do_not() -> None:
    sides = one_row_units(30, 30)
    rng = np.random.default_rng(0)
    texts = [f"word{number}" for number in rng.permutation(60)]
    embeddings = np.repeat(np.eye(2, dtype=np.float32), 30, axis=0)
    assert telling(texts, everything(sides), sides)[0][0] == pytest.approx(0.5, abs=0.1)
    assert telling(texts, everything(sides), sides, embeddings)[0][0] > 0.95


def test_a_conversation_that_repeats_itself_does_not_tell_the_window() -> None:
    """Each unit has words of its own, five times: a classifier that saw the unit's other turns would be always right."""
    units = [row // 5 for row in range(200)]
    sides = Sides(units, [row >= 100 for row in range(200)], times=99)
    texts = [f"own{unit} words{unit} asked again" for unit in units]
    assert telling(texts, everything(sides), sides)[0][0] < 0.6


def test_words_of_few_units_are_not_repeated() -> None:
    sides = one_row_units(30, 30)
    texts = ["plain words"] * 30 + ["plain secret words"] * 4 + ["plain words"] * 26
    assert telling_words(texts, everything(sides), sides) == ([], [])


def test_whole_units_change_sides() -> None:
    units = [0, 0, 0, 1, 1, 2, 2, 3]
    sides = Sides(units, [False] * 5 + [True] * 3, times=50)
    for block in sides.blocks(everything(sides)):
        for first, last in ((0, 3), (3, 5), (5, 7)):
            assert (block[first:last] == block[first]).all()
        assert (np.array([block[[0, 3, 5, 7], column].sum() for column in range(block.shape[1])]) == 2).all()


def test_few_units_are_little_evidence_however_many_rows_they_have() -> None:
    """Ten users a side, each with a level of their own, 100 rows a user: a test of rows is sure of a difference."""
    rng = np.random.default_rng(3)
    units = np.repeat(np.arange(20), 100)
    values = rng.normal(size=20)[units] + 0.1 * rng.normal(size=2000)
    current = units >= 10
    assert ks_2samp(values[~current], values[current]).pvalue < 1e-6
    sides = Sides(units.tolist(), current.tolist(), times=199)
    assert judged({"x": ks(values, everything(sides), sides)})["x"].p > 0.05


def test_one_p_is_adjusted_for_all_and_same_columns_are_paid_for_once() -> None:
    rng = np.random.default_rng(4)
    sides = one_row_units(40, 40, times=499)
    values = rng.normal(size=80)
    values[40:] += 0.8
    alone = judged({"x": ks(values, everything(sides), sides)})["x"]
    copies = judged({f"x{number}": ks(values, everything(sides), sides) for number in range(10)})["x0"]
    noise = {f"n{number}": ks(rng.normal(size=80), everything(sides), sides) for number in range(10)}
    among = judged({"x": ks(values, everything(sides), sides), **noise})["x"]
    assert alone.p == alone.adjusted == copies.adjusted
    assert alone.adjusted < among.adjusted < 11 * alone.p + 0.01


def test_false_alarms_among_many_clustered_columns_are_as_rare_as_promised() -> None:
    """Nothing drifts: 20 sessions of 5 rows a side, ten columns with a level of their own in each session."""
    rng = np.random.default_rng(5)
    units = np.repeat(np.arange(40), 5).tolist()
    current = [row >= 100 for row in range(200)]
    alarms, runs = 0, 80
    for run in range(runs):
        sides = Sides(units, current, seed=run, times=199)
        values = rng.normal(size=(10, 40))[:, units] + rng.normal(size=(10, 200))
        shifts = judged({str(row): ks(values[row], everything(sides), sides) for row in range(10)})
        alarms += any(shift.adjusted < 0.05 for shift in shifts.values())
    # 4 are expected; 11 or more come up once in 500 times.
    assert alarms <= 10


def test_nothing_to_compare_is_nothing_judged() -> None:
    assert judged({}) == {}
