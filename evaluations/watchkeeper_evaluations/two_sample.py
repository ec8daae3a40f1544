"""Whether two sets of rows differ by more than chance, where rows of one unit (a session, a user) belong together.

Three distances, each in [0, 1]: `ks` of numbers, `variation` of categories, `telling` of texts. How often chance alone
reaches the distance found is asked by permutation: whole units change sides, their rows stay together, so that ten turns of
one conversation count as what they are, one piece of evidence. A test that took each row for independent would raise false
alarms in every third window of 100 users with 10 rows each. Knows numpy and scipy; nothing of lakes, columns or verdicts.
"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

TIMES: Final = 1999
"""Permutations: the smallest p is 1/2000."""

Distances = NDArray[np.float64]
"""(1 + times,): the distance between the sides as they are, then between the sides of each permutation."""

_BLOCK: Final = 250
"""Permutations worked on at once: bounds memory to rows x 250 numbers."""

_TIE: Final = 1e-6
"""Distances this close are the same one, computed in another order."""

_WORD: Final = re.compile(r"\w+")


@dataclass(frozen=True)
class Shift:
    """`effect`: the distance between the sides. `p`: how often chance alone makes it as large. `adjusted`: how often chance
    makes *any* of the columns looked at as unlikely as this one."""

    effect: float
    p: float
    adjusted: float


class Sides:
    """Which rows are current (True) and which are reference, once as they are and `times` times with units shuffled."""

    def __init__(self, units: Sequence[Hashable], current: Sequence[bool], seed: int = 0, times: int = TIMES) -> None:
        """A unit that has rows on both sides counts as two."""
        keys = list(zip(current, units, strict=True))
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        self.units: Ints = np.array([numbers[key] for key in keys], np.int64)
        truth = np.array([side for side, _ in numbers], np.bool_)
        rng = np.random.default_rng(seed)
        shuffled = [rng.permutation(truth) for _ in range(times)]
        self._by_unit: Flags = np.stack([truth, *shuffled], axis=1)

    @property
    def current(self) -> Flags:
        """(n,): the rows as they are."""
        truth: Flags = self._by_unit[self.units, 0]
        return truth

    def smaller(self, kept: Flags) -> int:
        """How many units the side with fewer of them has among the rows `kept`."""
        present = np.unique(self.units[kept])
        current = int(self._by_unit[present, 0].sum())
        return min(current, len(present) - current)

    def blocks(self, kept: Flags) -> list[Flags]:
        """The sides of the rows `kept`, as they are and shuffled: (rows, up to 250) each; the truth is the first."""
        rows = self.units[kept]
        width = self._by_unit.shape[1]
        return [self._by_unit[rows, at : at + _BLOCK] for at in range(0, width, _BLOCK)]


def ks(values: Distances, kept: Flags, sides: Sides) -> Distances:
    """Kolmogorov-Smirnov: the largest gap between the two cumulative shares. Only the rows `kept` count."""
    numbers = values[kept]
    order = np.argsort(numbers, kind="stable")
    ranked = numbers[order]
    # A gap is only looked at after the last of equal values.
    last = np.append(ranked[1:] != ranked[:-1], True)
    found = []
    for block in sides.blocks(kept):
        current = block[order].astype(np.float32)
        above = np.cumsum(current, axis=0)[last] / _at_least_one(current)
        below = np.cumsum(1 - current, axis=0)[last] / _at_least_one(1 - current)
        found.append(np.abs(above - below).max(axis=0))
    return np.concatenate(found).astype(np.float64)


def variation(values: Sequence[Hashable], kept: Flags, sides: Sides) -> Distances:
    """Total variation: the share of rows that would have to change category for the sides to agree."""
    chosen = [value for value, keep in zip(values, kept, strict=True) if keep]
    numbers = {value: number for number, value in enumerate(dict.fromkeys(chosen))}
    codes = [numbers[value] for value in chosen]
    ones = np.ones(len(codes), np.float32)
    members = csr_matrix((ones, (codes, range(len(codes)))), shape=(len(numbers), len(codes)))
    found = []
    for block in sides.blocks(kept):
        current = block.astype(np.float32)
        shares = members @ current / _at_least_one(current)
        others = members @ (1 - current) / _at_least_one(1 - current)
        found.append(np.abs(shares - others).sum(axis=0) / 2)
    return np.concatenate(found).astype(np.float64)


def telling(texts: Sequence[str], kept: Flags, sides: Sides, embeddings: Floats | None = None) -> tuple[Distances, Floats]:
    """How well the words of a text tell the side it is from: the area under the ROC curve of a simple classifier.

    The classifier says how much more alike a text is to the current side than to the reference (mean cosine of weighted
    words, and of `embeddings`, unit rows, where there are any), and never looks at texts of the same unit: conversations
    repeat themselves, and would always be told apart. 0.5 is guessing, 1 is never wrong. Also returned: what it says of
    each row kept, (rows,).
    """
    chosen = [text for text, keep in zip(texts, kept, strict=True) if keep]
    units = sides.units[kept]
    alike = _alike(chosen, units)
    if embeddings is not None:
        alike += embeddings[kept] @ embeddings[kept].T
    alike[units[:, None] == units[None, :]] = 0
    owners, own = np.unique(units, return_inverse=True)
    sizes = np.bincount(own, minlength=len(owners)).astype(np.float32)[own]
    total = alike.sum(axis=1)
    found: list[Distances] = []
    said: Floats = np.zeros(0, np.float32)
    for block in sides.blocks(kept):
        current = block.astype(np.float32)
        near = alike @ current
        count = current.sum(axis=0)
        # A row's own unit is on its own side, and is left out there.
        to_current = near / np.maximum(count - sizes[:, None] * current, 1)
        to_reference = (total[:, None] - near) / np.maximum(len(chosen) - count - sizes[:, None] * (1 - current), 1)
        difference = to_current - to_reference
        said = said if found else difference[:, 0]
        found.append(_area(difference, block))
    return np.concatenate(found).astype(np.float64), said


def telling_words(
    texts: Sequence[str], kept: Flags, sides: Sides, limit: int = 5, least: int = 5
) -> tuple[list[str], list[str]]:
    """The words that more units use now, and those that fewer do, the most telling first: at most `limit` of each.

    By how far beyond chance, times rarity: else little words come first that every longer text has more of.
    Only words that at least `least` units use on a side: what fewer people wrote is not repeated in a report.
    """
    used: dict[bool, dict[str, set[int]]] = {True: {}, False: {}}
    units: dict[bool, set[int]] = {True: set(), False: set()}
    for text, keep, unit, side in zip(texts, kept, sides.units.tolist(), sides.current.tolist(), strict=True):
        if keep:
            units[side].add(unit)
            for word in _words(text):
                used[side].setdefault(word, set()).add(unit)
    n_now, n_then = max(len(units[True]), 1), max(len(units[False]), 1)
    scores = []
    for word in used[True].keys() | used[False].keys():
        now, then = len(used[True].get(word, ())), len(used[False].get(word, ()))
        if max(now, then) >= least and not _little(word):
            share = (now + then) / (n_now + n_then)
            spread = (share * (1 - share) * (1 / n_now + 1 / n_then)) ** 0.5
            if spread:
                z = (now / n_now - then / n_then) / spread
                scores.append((z, abs(z) * -math.log(share), word))
    scores.sort(key=lambda score: (-score[1], score[2]))
    more = [word for z, _, word in scores if z > 2]
    fewer = [word for z, _, word in scores if z < -2]
    return more[:limit], fewer[:limit]


def judged(columns: Mapping[str, Distances]) -> dict[str, Shift]:
    """The distances of all columns, over the same permutations → what is more than chance.

    Westfall and Young's smallest p: the smallest of all columns' p values is itself compared with the smallest of each
    permutation. So below `adjusted` < alpha the chance of any false alarm among all columns is alpha, exactly, and columns
    that say the same thing (characters, words, tokens) are not paid for three times, as with Holm or Bonferroni.
    """
    ps = {name: _ps(distances) for name, distances in columns.items()}
    smallest = np.min(list(ps.values()), axis=0) if ps else np.ones(1)
    return {
        name: Shift(round(float(columns[name][0]), 6), float(p[0]), float((smallest <= p[0]).mean()))
        for name, p in ps.items()
    }


def _little(word: str) -> bool:
    """Numbers, and words such as `is`, which tell a reader nothing."""
    return word.isdigit() or (word.isascii() and len(word) < 3)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _alike(texts: Sequence[str], units: Ints) -> Floats:
    """(n, n) cosines of binary word vectors weighted by rarity. Words that only one unit uses are not read."""
    documents = [_words(text) for text in texts]
    counts: Counter[str] = Counter()
    seen: set[tuple[int, str]] = set()
    for unit, words in zip(units.tolist(), documents, strict=True):
        fresh = {(unit, word) for word in words} - seen
        seen |= fresh
        counts.update(word for _, word in fresh)
    many = len(np.unique(units))
    shared = [word for word, count in counts.items() if count > 1]
    numbers = {word: number for number, word in enumerate(shared)}
    rarity = np.array([np.log(1 + many / counts[word]) for word in shared], np.float32)
    rows = [row for row, words in enumerate(documents) for word in words if word in numbers]
    columns = [numbers[word] for words in documents for word in words if word in numbers]
    vectors = csr_matrix((rarity[columns], (rows, columns)), shape=(len(texts), max(len(shared), 1)))
    lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
    vectors = csr_matrix(vectors.multiply(1 / np.maximum(lengths, 1e-9)[:, None]))
    alike: Floats = (vectors @ vectors.T).toarray().astype(np.float32)
    return alike


def _area(said: Floats, current: Flags) -> Distances:
    """The area under the ROC curve of each column: the share of (current, reference) pairs in the right order."""
    rows = said.shape[0]
    order = np.argsort(said, axis=0, kind="stable")
    ranked = np.take_along_axis(said, order, axis=0)
    starts = np.vstack([np.ones((1, said.shape[1]), np.bool_), ranked[1:] != ranked[:-1]])
    # Equal values share the middle of their ranks.
    places = np.arange(1, rows + 1)[:, None]
    first = np.maximum.accumulate(np.where(starts, places, 0), axis=0)
    ends = np.vstack([starts[1:], np.ones((1, said.shape[1]), np.bool_)])
    final = np.minimum.accumulate(np.where(ends, places, rows)[::-1], axis=0)[::-1]
    ranks = (first + final) / 2
    positive = np.take_along_axis(current, order, axis=0)
    n_current = current.sum(axis=0).astype(np.float64)
    pairs = np.maximum(n_current * (rows - n_current), 1)
    area: Distances = ((ranks * positive).sum(axis=0) - n_current * (n_current + 1) / 2) / pairs
    return area


def _at_least_one(side: Floats) -> Floats:
    count: Floats = np.maximum(side.sum(axis=0), 1)
    return count


def _ps(distances: Distances) -> Distances:
    """For each permutation (and the truth): the share of all of them with a distance as large."""
    ranked = np.sort(distances)
    ps: Distances = (len(ranked) - np.searchsorted(ranked, distances - _TIE)) / len(ranked)
    return ps
