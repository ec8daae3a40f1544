"""Sparklines are small pictures that survive whatever the numbers are."""

import math
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from watchkeeper_dashboards.sparkline import HEIGHT, WIDTH, shape

NUMBERS = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32))


@given(st.lists(NUMBERS, max_size=80))
def test_any_series_is_a_picture(series: list[float | None]) -> None:
    picture = ElementTree.fromstring(shape(series))
    known = [value for value in series if value is not None and math.isfinite(value)]
    assert picture.attrib["viewBox"] == f"0 0 {WIDTH} {HEIGHT}"
    assert (len(list(picture)) > 0) == bool(known)
    assert "nan" not in shape(series)


def test_few_points_are_bars_and_many_a_line() -> None:
    assert shape([1.0, 5.0, 2.0]).count("<rect") == 3
    assert "<path" in shape([1.0, 5.0, 2.0, 4.0])


def test_a_bucket_without_data_is_a_gap() -> None:
    assert shape([1.0, 2.0, None, 3.0, 4.0]).count("<path") == 2 * shape([1.0, 2.0, 3.0, 4.0]).count("<path")
