"""How much may stay with the small model? A threshold on difficulty whose loss of quality is controlled.

Conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster, 2022): the loss of a prompt that stays with the small
model is how much worse its answer is than the large one's, in [0, 1], 0 where it is not worse; of one that goes to the
large model it is 0. So the loss only grows with the threshold, and for the highest threshold t with

    (n · mean loss at t + 1) / (n + 1) <= most

the expected loss of a further prompt of the same kind is at most `most`. That holds in expectation over samples and
prompts, for prompts that are exchangeable with these: not for each sample, not for a topic that these did not have.
Conversations are the units: what was said in one is no independent evidence. Pure; knows nothing of models, scores or
files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Case:
    """One prompt that both models answered. `loss`, in [0, 1]: how much worse the small one did; costs in USD. `cluster`:
    what it belongs to."""

    cluster: str
    difficulty: float
    loss: float
    small_usd: float = 0.0
    large_usd: float = 0.0


@dataclass(frozen=True)
class Point:
    """What a threshold would have meant for the cases. `loss`: mean over clusters; `small_share`: of the cases;
    `cost_share`: against all on the large model, None where that costs nothing."""

    difficulty: float
    loss: float
    small_share: float
    cost_share: float | None


def curve(cases: Sequence[Case]) -> list[Point]:
    """Every threshold that makes a difference, lowest (nothing stays with the small model) first; the last is 1 (all
    does)."""
    ordered = sorted(cases, key=lambda case: case.difficulty)
    sizes: dict[str, int] = {}
    for case in ordered:
        sizes[case.cluster] = sizes.get(case.cluster, 0) + 1
    difficulties = np.array([case.difficulty for case in ordered])
    losses = _below([case.loss / (sizes[case.cluster] * len(sizes)) for case in ordered])
    saved = _below([case.small_usd - case.large_usd for case in ordered])
    whole = sum(case.large_usd for case in ordered)
    points = []
    for threshold in [*dict.fromkeys(difficulties.tolist()), 1.0]:
        small = int(np.searchsorted(difficulties, threshold, side="left"))
        cost = (whole + float(saved[small])) / whole if whole > 0 else None
        points.append(Point(threshold, float(losses[small]), small / len(ordered), cost))
    return points


def controlled(points: Sequence[Point], clusters: int, most: float) -> Point | None:
    """The last point whose loss is controlled at `most`; None: not even that of nothing at all is, for want of clusters."""
    good = [point for point in points if (clusters * point.loss + 1) / (clusters + 1) <= most]
    return good[-1] if good else None


def needed(most: float) -> int:
    """With how many clusters a loss of `most` can be controlled at all."""
    clusters = max(int(1 / most) - 2, 0)
    while 1 / (clusters + 1) > most:
        clusters += 1
    return clusters


def _below(values: Sequence[float]) -> NDArray[np.float64]:
    """At each index the sum of the values before it."""
    return np.concatenate([[0.0], np.cumsum(np.asarray(values, np.float64))])
