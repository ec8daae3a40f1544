"""How certain a figure is: 95% intervals of shares, means and quantiles. Knows nothing of what was measured.

Rows of one session belong together, so shares and means are given with the session of each row, and the interval is as wide
as the sessions are many. Quantiles take rows for independent.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

LEVEL: Final = 0.95
_TAIL: Final = (1 - LEVEL) / 2


@dataclass(frozen=True)
class Estimate:
    """`n` rows in `clusters` clusters. `lower`, `upper`: minus or plus infinity where the rows set no bound."""

    value: float
    lower: float
    upper: float
    n: int
    clusters: int


def clopper_pearson(hits: float, count: float) -> tuple[float, float]:
    """Of a share, [0, 1] of nothing. It takes the rows for independent; numbers need not be whole."""
    from scipy.special import betaincinv

    lower = float(betaincinv(hits, count - hits + 1, _TAIL)) if hits > 0 else 0.0
    upper = float(betaincinv(hits + 1, count - hits, 1 - _TAIL)) if hits < count else 1.0
    return lower, upper


def share(values: Sequence[float], clusters: Sequence[Hashable]) -> Estimate:
    """Of zeros and ones: Clopper and Pearson's interval, of as many rows as are worth independent ones (Korn and Graubard).

    Where all rows are alike nothing tells how alike those of a cluster are: there each cluster counts as one row. So does a
    single cluster, whatever its rows are: it says nothing of others.
    """
    numbers = np.asarray(values, np.float64)
    value, variance, groups = _spread(numbers, clusters)
    independent = value * (1 - value)
    if groups < 2 or independent == 0:
        worth = float(groups)
    else:
        worth = min(independent / variance, len(numbers)) if variance else len(numbers)
    lower, upper = clopper_pearson(value * worth, worth)
    return Estimate(value, lower, upper, len(numbers), groups)


def mean(values: Sequence[float], clusters: Sequence[Hashable], low: float, high: float) -> Estimate:
    """Of numbers in [low, high]: Student's interval over the clusters; all of [low, high] of fewer than two."""
    numbers = np.asarray(values, np.float64)
    value, variance, groups = _spread(numbers, clusters)
    if groups < 2:
        return Estimate(value, low, high, len(numbers), groups)
    from scipy.special import stdtrit

    reach = float(stdtrit(groups - 1, 1 - _TAIL)) * variance**0.5
    return Estimate(value, max(value - reach, low), min(value + reach, high), len(numbers), groups)


def quantile(values: Sequence[float], q: float) -> Estimate:
    """The q-quantile of independent rows, at least one, and the order statistics that hold it."""
    from scipy.special import bdtr

    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    below = bdtr(np.arange(n + 1, dtype=np.float64), n, q)  # P(at most k rows lie below the true quantile)
    first = int(np.searchsorted(below, _TAIL))
    last = int(np.searchsorted(below, 1 - _TAIL)) + 1
    lower = float(ordered[first - 1]) if first >= 1 else -np.inf
    upper = float(ordered[last - 1]) if last <= n else np.inf
    return Estimate(float(np.quantile(ordered, q)), lower, upper, n, n)


def _spread(numbers: NDArray[np.float64], clusters: Sequence[Hashable]) -> tuple[float, float, int]:
    """The mean, its variance by clusters (linearised, 0 of one cluster), and how many clusters there are."""
    known: dict[Hashable, int] = {}
    places = np.array([known.setdefault(cluster, len(known)) for cluster in clusters], np.int64)
    value = float(numbers.mean())
    off = np.bincount(places, weights=numbers - value, minlength=len(known))
    groups = len(known)
    variance = 0.0 if groups < 2 else float((off**2).sum()) * groups / (groups - 1) / len(numbers) ** 2
    return value, variance, groups
