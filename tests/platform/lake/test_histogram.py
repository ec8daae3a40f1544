"""Bins answer within 2%, thresholds mean what they say, and nested columns are laid flat and packed without loss."""

from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.lake.histogram import LARGEST, SMALLEST_MS, Entries, latency_bins, latency_of, score_bins
from watchkeeper.lake.tables import COUNT, HISTOGRAM


@given(st.lists(st.floats(0, 1e10), min_size=1))
def test_a_bin_stands_for_its_values_within_two_percent(values: list[float]) -> None:
    given_ms = np.array(values)
    told = latency_of(latency_bins(given_ms))
    small = given_ms < SMALLEST_MS
    assert np.all(np.abs(told - given_ms)[small] <= SMALLEST_MS / 2)
    assert np.all(np.abs(told - given_ms)[~small] <= 0.02 * given_ms[~small])


def test_bins_are_bounded_and_rise_with_the_value() -> None:
    bins = latency_bins(np.array([-1.0, 0.0, 0.00999, 0.01, 1.0, 1e3, 1e300]))
    assert bins.tolist() == sorted(bins.tolist())
    assert (bins[0], bins[-1]) == (0, LARGEST)


def test_a_threshold_on_an_edge_belongs_to_the_bin_above() -> None:
    edges = np.arange(50) / 50
    assert score_bins(edges).tolist() == list(range(50))
    assert score_bins(np.array([-0.5, 1.0, 1.5])).tolist() == [0, 49, 49]


entries = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["total", "ttft", "ground"]), st.integers(0, 9), st.integers(1, 99))
)


def tally(flat: Entries) -> Counter[tuple[int, str, int]]:
    found: Counter[tuple[int, str, int]] = Counter()
    for row, name, number, count in zip(flat.rows, flat.names, flat.bins, flat.counts, strict=True):
        found[int(row), flat.vocabulary[name], int(number)] += int(count)
    return found


@given(entries)
def test_histograms_come_back_as_they_were_packed(given_entries: list[tuple[int, str, int, int]]) -> None:
    rows, names, column = Entries.of(given_entries).histograms()
    assert column.type == pa.list_(HISTOGRAM)
    assert len(column) == len(rows) == len(names) == len(set(zip(rows.tolist(), names.to_pylist(), strict=True)))
    column.validate(full=True)
    wanted: Counter[tuple[int, str, int]] = Counter()
    for row, name, number, count in given_entries:
        wanted[row, name, number] += count
    back = Entries.unpack(pa.chunked_array([column.slice(0, 2), column.slice(2)])).regrouped(rows)
    assert tally(back) == wanted
    assert len(back.rows) == len(wanted), "each once"


@given(entries)
def test_counts_come_back_as_they_were_packed(given_entries: list[tuple[int, str, int, int]]) -> None:
    column = Entries.of((row, name, 0, n) for row, name, _, n in given_entries).pack_counts(5)
    assert column.type == pa.list_(COUNT)
    wanted: Counter[tuple[int, str, int]] = Counter()
    for row, name, _, count in given_entries:
        wanted[row, name, 0] += count
    assert tally(Entries.unpack(pa.chunked_array([column]))) == wanted


def test_a_null_row_has_no_entries() -> None:
    column = pa.chunked_array([pa.array([None, [{"name": "a", "bins": [3], "counts": [2]}]], pa.list_(HISTOGRAM))])
    assert tally(Entries.unpack(column)) == Counter({(1, "a", 3): 2})
