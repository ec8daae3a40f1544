"""Whether paired differences are more than chance, where the pairs of one session belong together, and how large they are.

Every test here asks the same question: had base and candidate of a session been exchanged, each session with even chance,
how often would the sum of all differences lie as far from nought as it does? All pairs of a session change sides together,
so that eight turns of one conversation count as what they are, one piece of evidence. With a pair a session and differences
of true and false this is the exact McNemar test.

Takes the differences (candidate - base) as sums by session. Knows numpy and scipy; nothing of rows, scores or releases.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom
from scipy.stats import t as student

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRAWS: Final = 9999
"""Exchanges drawn where there are too many to try them all; with the truth itself, the smallest p is 1/10,000."""

ALL_UP_TO: Final = 14
"""Sessions up to which every exchange is tried: 2^13 of them, as many as would be drawn."""

_BLOCK: Final = 500
"""Exchanges worked on at once: bounds memory to sessions x 500 numbers."""

_STEPS: Final = 200_000_000
"""Multiplications up to which an exact distribution is worth its time (about a second); beyond, exchanges are drawn."""

_EQUAL: Final = 1e-9
"""Sums this close to nought, as a share of all differences, are nought, computed in another order."""


@dataclass(frozen=True)
class Found:
    """`p`: two-sided. `low`, `high`: the interval of the mean difference a pair; infinite where there are too few sessions
    to say anything. `exact`: every exchange was counted, none drawn."""

    p: float
    low: float
    high: float
    exact: bool


def of_numbers(sums: Floats, sizes: Floats, alpha: float) -> Found:
    """Differences of numbers: `sums` (sessions,) of the differences, `sizes` (sessions,) pairs.

    The interval holds every mean that the same test, over the same exchanges, does not reject: nought lies outside exactly
    when p < alpha. To ask whether the mean is m is to ask whether the differences less m could as well be exchanged, and
    they can be by any set of sessions whose own mean is beyond m: so the ends are quantiles of the means of sets of
    sessions (Hartigan 1969; in econometrics, the wild cluster bootstrap with the null imposed, inverted).
    """
    total, count = sums.sum(), sizes.sum()
    near = _EQUAL * np.abs(sums).sum()
    lowest, highest = [], []
    for taken in _exchanges(len(sums)):
        part, pairs = taken @ sums, taken @ sizes
        rest = total - part
        part, rest = np.where(np.abs(part) <= near, 0, part), np.where(np.abs(rest) <= near, 0, rest)
        with np.errstate(divide="ignore", invalid="ignore"):
            means = np.stack([part / pairs, rest / (count - pairs)])
        # A set without pairs changes nothing when it is exchanged: it speaks against no mean at all.
        lowest.append(np.nan_to_num(means, nan=-np.inf, posinf=-np.inf).min(axis=0))
        highest.append(np.nan_to_num(means, nan=np.inf, neginf=np.inf).max(axis=0))
    low, high = np.sort(np.concatenate(lowest)), np.sort(np.concatenate(highest))[::-1]
    tried = len(low)
    as_far = tried if abs(total) <= near else (low <= 0).sum() if total > 0 else (high >= 0).sum()
    end = math.ceil(alpha * tried - _EQUAL) - 1
    return Found(float(as_far / tried), float(low[end]), float(high[end]), len(sums) <= ALL_UP_TO)


def of_assertions(sums: Floats, sizes: Floats, squares: float, alpha: float, unit: int = 1) -> Found:
    """Differences of true and false: `sums` (sessions,) of -1, 0 and 1 (or multiples of 1/`unit`, where answers were
    repeated), `sizes` (sessions,) pairs, `squares` the sum of all squared differences.

    p is exact. The interval is Bonett and Price's (2012), carried over to sessions: one session that speaks for each side
    is added before the spread is looked at, so that no difference among thirty pairs is not taken for certainty. Where it
    and the test disagree about nought the exact test is right, and the interval ends there.
    """
    units: Ints = np.rint(sums * unit).astype(np.int64)
    counted = exact_p(units)
    p = of_numbers(sums, sizes, alpha).p if counted is None else counted
    low, high = _with_one_more_each(sums, sizes, squares, alpha)
    mean = float(sums.sum() / sizes.sum())
    low, high = min(low, mean), max(high, mean)
    if p >= alpha:
        low, high = min(low, 0.0), max(high, 0.0)
    elif mean > 0:
        low = max(low, 0.0)
    else:
        high = min(high, 0.0)
    return Found(p, low, high, counted is not None)


def exact_p(sums: Ints) -> float | None:
    """How often exchanging sessions makes a sum as far from nought: the whole distribution, by convolution. None where that
    would take too long."""
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    reach, total = int((sizes * counts).sum()), abs(int(sums.sum()))
    if total == 0:
        return 1.0
    if len(sizes) > 1 and reach * reach * len(sizes) > _STEPS:
        return None
    chances: Floats = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        one = np.zeros(size * count + 1)
        one[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = one if len(chances) == 1 else np.convolve(chances, one)
    # Exchanging sessions that sum to s leaves reach - 2s: as far out as the truth, on either side.
    return min(1.0, 2 * float(chances[: (reach - total) // 2 + 1].sum()))


def holm(ps: Sequence[float]) -> list[float]:
    """p values adjusted so that below alpha the chance of *any* false alarm among them is alpha at most (Holm 1979)."""
    adjusted = [1.0] * len(ps)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        largest = max(largest, min(1.0, (len(ps) - place) * ps[index]))
        adjusted[index] = largest
    return adjusted


def _exchanges(sessions: int) -> Iterator[Floats]:
    """Sets of sessions to exchange, as rows of nought and one: (up to 500, sessions) each; the first set is empty, which is
    the truth. A set stands for what it leaves, too: to exchange all the others is the same, with the other sign."""
    if sessions <= ALL_UP_TO:
        numbers = np.arange(2 ** max(sessions - 1, 0))
        for at in range(0, len(numbers), _BLOCK):
            yield (numbers[at : at + _BLOCK, None] >> np.arange(sessions) & 1).astype(np.float64)
        return
    yield np.zeros((1, sessions))
    rng = np.random.default_rng(0)
    for at in range(0, DRAWS, _BLOCK):
        shape = min(_BLOCK, DRAWS - at), sessions
        bits = np.unpackbits(np.frombuffer(rng.bytes(math.prod(shape) // 8 + 1), np.uint8), count=math.prod(shape))
        yield bits.reshape(shape).astype(np.float64)


def _with_one_more_each(sums: Floats, sizes: Floats, squares: float, alpha: float) -> tuple[float, float]:
    """The interval of t about the mean, after a session for each side has been added.

    A session weighs as many pairs as the sessions here show that theirs stick together (the design effect); where nothing
    differs nothing is shown, and it weighs as many as a session has.
    """
    usual = float((sizes**2).sum() / sizes.sum())
    weight = min(max(float((sums**2).sum()) / squares, 1.0), usual) if squares > 0 else usual
    sessions, count = len(sums) + 2, float(sizes.sum()) + 2 * weight
    mean = float(sums.sum()) / count
    # The two sessions added sum to nought; their squared distances from the mean are these.
    squared = float(((sums - mean * sizes) ** 2).sum()) + 2 * weight**2 * (1 + mean**2)
    spread = math.sqrt(squared * sessions / (sessions - 1)) / count
    reach = float(student.ppf(1 - alpha / 2, sessions - 1)) * spread
    return max(mean - reach, -1.0), min(mean + reach, 1.0)
