"""Risk control: what looks good by chance is not taken, and over many samples the loss stays where it was asked."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper_evaluations.risk import Case, controlled, curve, needed

cases = st.lists(
    st.builds(
        Case,
        cluster=st.sampled_from("abcdefgh"),
        difficulty=st.floats(0.001, 0.999),
        loss=st.floats(0, 1),
        small_usd=st.floats(0, 1),
        large_usd=st.floats(0, 2),
    ),
    min_size=1,
    max_size=40,
)


@given(cases)
def test_every_threshold_says_what_it_would_have_meant(found: list[Case]) -> None:
    points = curve(found)
    clusters = {case.cluster for case in found}
    assert [point.difficulty for point in points] == [*sorted({case.difficulty for case in found}), 1.0]
    for point in points:
        small = [case for case in found if case.difficulty < point.difficulty]
        by_cluster = []
        for cluster in clusters:
            own = [case for case in found if case.cluster == cluster]
            by_cluster.append(sum(case.loss for case in own if case in small) / len(own))
        assert point.loss == pytest.approx(sum(by_cluster) / len(clusters))
        assert point.small_share == pytest.approx(len(small) / len(found))
        large = sum(case.large_usd for case in found)
        if large > 0:
            paid = sum(case.small_usd if case in small else case.large_usd for case in found)
            assert point.cost_share == pytest.approx(paid / large)
        else:
            assert point.cost_share is None
    assert points[0].small_share == points[0].loss == 0
    assert [point.loss for point in points] == sorted(point.loss for point in points)


@given(cases, st.floats(0.01, 0.9))
def test_what_is_taken_is_controlled_and_the_next_one_is_not(found: list[Case], most: float) -> None:
    points, n = curve(found), len({case.cluster for case in found})
    taken = controlled(points, n, most)
    if taken is None:
        assert n < needed(most)
        return
    assert (n * taken.loss + 1) / (n + 1) <= most
    after = points.index(taken) + 1
    assert after == len(points) or (n * points[after].loss + 1) / (n + 1) > most


@given(st.floats(0.005, 0.99))
def test_with_too_few_conversations_nothing_can_be_shown(most: float) -> None:
    n = needed(most)
    assert 1 / (n + 1) <= most
    assert n == 0 or 1 / n > most


def test_over_many_samples_the_loss_of_further_prompts_stays_within_what_was_asked() -> None:
    """The guarantee itself: losses that grow with difficulty, 60 cases each time, 2,000 times."""
    rng, most, losses = np.random.default_rng(5), 0.1, []
    for _ in range(2_000):
        hard = rng.random(61)
        lost = (rng.random(61) < hard) * rng.random(61)
        sample = [Case(str(at), *pair) for at, pair in enumerate(zip(hard[:60].tolist(), lost[:60].tolist(), strict=True))]
        taken = controlled(curve(sample), 60, most)
        assert taken is not None
        losses.append(lost[60] if hard[60] < taken.difficulty else 0.0)
    error = np.std(losses) / math.sqrt(len(losses))
    assert np.mean(losses) <= most + 3 * error
    assert np.mean(losses) >= 0.5 * most, "and it is not for free: a threshold that nothing passes would hold too"


def test_a_long_conversation_counts_once() -> None:
    alone = [Case(str(at), 0.5, 0.0) for at in range(30)]
    talk = [Case("talk", 0.4, 1.0)] * 100
    assert curve([*alone, *talk])[1].loss == pytest.approx(1 / 31)
