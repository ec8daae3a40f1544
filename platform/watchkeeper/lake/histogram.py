"""Sparse histograms and counts: values → bins, and the nested columns of `rollups` that hold them.

Latencies have log bins: bin 0 holds what is below 0.01 ms, bin b the values from 0.01·1.04^(b-1) to 0.01·1.04^b ms; a
bin stands for its geometric middle, at most 2% from any value in it. Scores in [0, 1] have 50 equal bins. A nested column
is handled flat: entry i says that `counts[i]` things called `names[i]` fell into `bins[i]` in row `rows[i]`; adding
histograms is putting such entries one after the other. Knows nothing of what is counted.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from watchkeeper.lake.tables import COUNT, HISTOGRAM

SMALLEST_MS: Final = 0.01
RATIO: Final = 1.04
LARGEST: Final = 720
"""The last log bin: 5 months. What is longer counts there, so that no value makes a histogram wide."""

SCORE_BINS: Final = 50

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def latency_bins(values: Floats) -> Ints:
    """Milliseconds (finite) → bin numbers."""
    above = np.maximum(values, SMALLEST_MS) / SMALLEST_MS
    bins = np.floor(np.log(above) / np.log(RATIO)).astype(np.int64) + 1
    return np.where(values < SMALLEST_MS, 0, np.minimum(bins, LARGEST))


def latency_of(bins: Ints) -> Floats:
    """Bin numbers → the milliseconds they stand for."""
    return np.where(bins == 0, SMALLEST_MS / 2, SMALLEST_MS * RATIO ** (bins - 0.5))


def score_bins(values: Floats) -> Ints:
    """Scores (finite) → bin numbers 0 to 49; what lies outside [0, 1] counts at the nearer end."""
    # The nudge puts 0.58 = 28.999…/50 into the bin that starts at it, so a threshold on an edge means what it says.
    return np.clip(np.floor(values * SCORE_BINS + 1e-9), 0, SCORE_BINS - 1).astype(np.int64)


@dataclass(frozen=True)
class Entries:
    """A nested column laid flat. `names` are indices into `vocabulary`; counts without bins have 0 there."""

    rows: Ints
    names: Ints
    bins: NDArray[np.integer[Any]]
    counts: Ints
    vocabulary: tuple[str, ...]

    @classmethod
    def of(cls, entries: Iterable[tuple[int, str, int, int]]) -> Self:
        """From (row, name, bin, count) one by one."""
        rows, names, bins, counts = [list(column) for column in zip(*entries, strict=True)] or [[], [], [], []]
        vocabulary = tuple(dict.fromkeys(names))
        index = {name: number for number, name in enumerate(vocabulary)}
        return cls(_ints(rows), _ints([index[name] for name in names]), _ints(bins), _ints(counts), vocabulary)

    @classmethod
    def counted(cls, rows: Ints, names: pa.Array | pa.ChunkedArray) -> Self:
        """Each of `names`, which belongs to the row beside it, counts once."""
        return cls._each(rows, names, np.zeros_like(rows))

    @classmethod
    def binned(
        cls,
        rows: Ints,
        names: pa.Array | pa.ChunkedArray,
        values: pa.Array | pa.ChunkedArray,
        bins_of: Callable[[Floats], Ints],
    ) -> Self:
        """Each of `values` counts once, under the name and in the row beside it. What is null or not finite is left out."""
        numbers = values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.to_numpy()
        finite = np.isfinite(numbers)
        return cls._each(rows[finite], names.filter(pa.array(finite)), bins_of(numbers[finite]))

    @classmethod
    def _each(cls, rows: Ints, names: pa.Array | pa.ChunkedArray, bins: Ints) -> Self:
        numbers, vocabulary = codes(names)
        return cls(rows, numbers, bins, np.ones_like(rows), vocabulary)

    @classmethod
    def unpack(cls, column: pa.ChunkedArray) -> Self:
        """From a column of list<HISTOGRAM> or list<COUNT>; a null row has no entries."""
        rows, items = owned(column)
        names, vocabulary = codes(items.field("name"))
        sizes, bins, counts = _flat(items)
        return cls(np.repeat(rows, sizes), np.repeat(names, sizes), bins, counts, vocabulary)

    def regrouped(self, groups: Ints) -> Self:
        """The same entries, row r renamed to `groups[r]`."""
        return type(self)(groups[self.rows], self.names, self.bins, self.counts, self.vocabulary)

    def histograms(self) -> tuple[Ints, pa.Array, pa.Array]:
        """The histogram of each name and row that has entries, by name and row: its row, its name, and a list that holds
        it alone (list<HISTOGRAM>). Entries of the same row, name and bin are summed."""
        span = int(self.rows.max(initial=0)) + 1
        flat = Entries(self.names * span + self.rows, np.zeros_like(self.names), self.bins, self.counts, ("",)).summed()
        _, starts = np.unique(flat.rows, return_index=True)
        inner = pa.array(np.append(starts, len(flat.rows)), pa.int32())
        bins = pa.ListArray.from_arrays(inner, pa.array(flat.bins, pa.int32()))
        counts = pa.ListArray.from_arrays(inner, pa.array(flat.counts, pa.int64()))
        numbers, rows = np.divmod(flat.rows[starts], span)
        names = self._spelled(numbers)
        items = pa.StructArray.from_arrays([names, bins, counts], fields=list(HISTOGRAM))
        return rows, names, _listed(items, np.arange(len(rows)), len(rows))

    def pack_counts(self, rows: int) -> pa.Array:
        """The column of `rows` list<COUNT>: entries of the same row and name are summed."""
        summed = self.summed()
        items = [self._spelled(summed.names), pa.array(summed.counts, pa.int64())]
        return _listed(pa.StructArray.from_arrays(items, fields=list(COUNT)), summed.rows, rows)

    def _spelled(self, names: Ints) -> pa.Array:
        return pa.array(self.vocabulary, pa.string()).take(pa.array(names))

    def summed(self) -> Self:
        """Sorted by row, name and bin, each once."""
        span = int(self.bins.max(initial=0)) + 1
        key = (self.rows * max(1, len(self.vocabulary)) + self.names) * span + self.bins
        counts = self.counts
        if not np.all(key[1:] > key[:-1]):
            order = np.argsort(key, kind="stable")  # quick where most is sorted, as what was merged before is
            key, counts = key[order], counts[order]
            starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
            key, counts = key[starts], np.add.reduceat(counts, starts)
        owner, bins = np.divmod(key, span)
        rows, names = np.divmod(owner, max(1, len(self.vocabulary)))
        return type(self)(rows, names, bins, counts, self.vocabulary)


def tally(column: pa.ChunkedArray, name: str, groups: Ints, length: int) -> Ints:
    """The histograms (or counts) called `name` of a column of list<HISTOGRAM> or list<COUNT>, summed by the group of their
    row: shape (length, bins), as many bins as are needed and at least one. Every chart does it: quicker than `Entries`.
    """
    rows, items = owned(column)
    wanted = pc.equal(items.field("name"), name).fill_null(False)
    if not pc.all(wanted).as_py():
        rows, items = rows[wanted.to_numpy(zero_copy_only=False)], items.filter(wanted)
    sizes, bins, counts = _flat(items)
    width = int(bins.max(initial=0)) + 1
    cells = np.repeat(groups[rows] * width, sizes) + bins
    return np.bincount(cells, weights=counts, minlength=length * width).astype(np.int64).reshape(length, width)


def _flat(items: pa.StructArray) -> tuple[Ints, NDArray[np.integer[Any]], Ints]:
    """How many bins each histogram has, and the bins and counts of all, one after the other. A COUNT has bin 0."""
    if items.type.get_field_index("bins") < 0:
        counts = items.field("n").to_numpy(zero_copy_only=False)
        return np.ones_like(counts), np.zeros_like(counts), counts
    bins, counts = items.field("bins"), items.field("counts").flatten().to_numpy(zero_copy_only=False)
    sizes = bins.value_lengths().to_numpy(zero_copy_only=False)
    return sizes, bins.flatten().to_numpy(zero_copy_only=False), counts


def owned(column: pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """A column of lists, flat: the row of each item, and the items. A null row has none."""
    lists = column.combine_chunks()
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.repeat(np.arange(len(lists)), lengths), lists.flatten()


def codes(column: pa.Array | pa.ChunkedArray) -> tuple[Ints, tuple[Any, ...]]:
    """Strings as indices into the strings there are; null is one of them."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = whole.dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), tuple(encoded.dictionary.to_pylist())


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, np.int64)


def _listed(items: pa.StructArray, owners: Ints, rows: int) -> pa.Array:
    """Items, sorted by the row that owns them → lists, one a row."""
    offsets = np.searchsorted(owners, np.arange(rows + 1))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items)
