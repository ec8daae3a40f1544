"""Rows that are about the same thing, numbered: a *cell* is a 5-minute bucket and a value of each dimension.

All of it works on whole columns: a batch costs a few microseconds a row. Knows nothing of what is summed in a cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from watchkeeper.lake.histogram import Ints, codes

BUCKET_S: Final = 300
BUCKET: Final = BUCKET_S * 1_000_000
"""Microseconds of a bucket."""

LARGEST: Final = 2**62

DIMENSIONS: Final = ("tenant", "route", "model", "release", "source")


@dataclass(frozen=True)
class Cells:
    """`of`: each row's cell, a number from 0. `keys`: what each cell is about, columns `bucket` (µs) and the dimensions."""

    of: Ints
    keys: pa.Table

    @classmethod
    def group(cls, times: pa.ChunkedArray, dimensions: pa.Table) -> Self:
        """From the rows' times, and a table of as many rows that has the dimensions. Cells are numbered by route and
        time: a chart of one route finds its rows together."""
        at = times.cast(pa.int64()).to_numpy()
        keys = pa.table([pa.array(at - at % BUCKET), *dimensions.select(DIMENSIONS)], names=["bucket", *DIMENSIONS])
        numbers, span = np.zeros(len(at), np.int64), 1
        for name in ("route", "bucket", *(name for name in DIMENSIONS if name != "route")):
            if name == "bucket":
                more = np.unique(at - at % BUCKET, return_inverse=True)[1]
            else:
                more, _ = codes(keys.column(name))
            size = int(more.max(initial=0)) + 1
            if span * size > LARGEST:  # many dimensions of many values: what is left of them fits again
                numbers = np.unique(numbers, return_inverse=True)[1]
                span = int(numbers.max(initial=0)) + 1
            numbers, span = numbers * size + more, span * size
        numbers = np.unique(numbers, return_inverse=True)[1]
        some = np.zeros(numbers.max(initial=-1) + 1, np.int64)
        some[numbers] = np.arange(len(numbers))
        return cls(numbers.astype(np.int64), keys.take(pa.array(some)))

    @property
    def size(self) -> int:
        """How many cells there are."""
        return int(self.keys.num_rows)

    def sums(self, table: pa.Table, columns: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Each cell's sum of some columns of the rows, in their types; what is null adds nothing."""
        return {name: self._sum(table.column(name)) for name in columns}

    def _sum(self, column: pa.ChunkedArray) -> NDArray[Any]:
        values = column.fill_null(0).to_numpy()
        sums = np.zeros(self.size, values.dtype)
        np.add.at(sums, self.of, values)
        return sums
