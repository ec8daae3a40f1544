"""Rows about the same 5 minutes and slice share a cell, whatever else there is."""

import pyarrow as pa
import pytest

from watchkeeper.lake.cells import BUCKET, DIMENSIONS, Cells
from watchkeeper.lake.tables import TIME


def group(rows: list[tuple[int, str | None]]) -> Cells:
    """Of (time in µs, route) each; all else is alike."""
    same = {name: ["x"] * len(rows) for name in DIMENSIONS}
    dimensions = pa.table(same | {"route": pa.array([route for _, route in rows], pa.string())})
    return Cells.group(pa.chunked_array([pa.array([at for at, _ in rows], TIME)]), dimensions)


def test_rows_share_a_cell_when_bucket_and_slice_are_the_same() -> None:
    cells = group([(0, "a"), (BUCKET - 1, "a"), (BUCKET, "a"), (5, "b"), (7, None), (9, None)])
    of = cells.of.tolist()
    assert of[0] == of[1]
    assert of[4] == of[5], "null is a value"
    assert len(set(of)) == cells.size == 4
    keys = cells.keys.select(["bucket", "route"]).to_pylist()
    assert [keys[number] for number in of] == [
        *[{"bucket": 0, "route": "a"}] * 2,
        {"bucket": BUCKET, "route": "a"},
        {"bucket": 0, "route": "b"},
        *[{"bucket": 0, "route": None}] * 2,
    ]


def test_no_rows_are_no_cells() -> None:
    assert group([]).size == 0


def test_a_route_and_then_its_time_lie_together() -> None:
    cells = group([(at * BUCKET, route) for at in (2, 0, 1) for route in "ba"])
    keys = [(key["route"], key["bucket"] // BUCKET) for key in cells.keys.to_pylist()]
    assert keys == [("b", 0), ("b", 1), ("b", 2), ("a", 0), ("a", 1), ("a", 2)]


@pytest.mark.parametrize("values", [2, 5000])
def test_dimensions_of_many_values_do_not_overflow(values: int) -> None:
    """5,000 values in each of five dimensions and times: their product is beyond 64 bits."""
    numbers = [str(number % values) for number in range(10_000)]
    dimensions = pa.table(dict.fromkeys(DIMENSIONS, numbers))
    times = pa.chunked_array([pa.array([number % values * BUCKET for number in range(10_000)], TIME)])
    cells = Cells.group(times, dimensions)
    assert cells.size == values
    assert cells.sums(pa.table({"n": pa.array([1] * 9_999 + [None], pa.int64())}), ["n"])["n"].sum() == 9_999
    assert [int(key["route"]) for key in cells.keys.take(pa.array(cells.of)).to_pylist()] == list(map(int, numbers))
