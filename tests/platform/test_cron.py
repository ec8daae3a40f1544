"""Cron's fields as people write them; when they tick is APScheduler's, and tested with the schedule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.cron import Cron, parse

ALWAYS = Cron(*(tuple(range(low, high + 1)) for low, high in ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("* * * * *", ALWAYS),
        ("*/15 * * * *", ALWAYS._replace(minute=(0, 15, 30, 45))),
        ("5,10-12 3 * * *", ALWAYS._replace(minute=(5, 10, 11, 12), hour=(3,))),
        ("50/5 0-23/6 * * *", ALWAYS._replace(minute=(50, 55), hour=(0, 6, 12, 18))),
        ("0 0 1 jan,JUL *", ALWAYS._replace(minute=(0,), hour=(0,), day=(1,), month=(1, 7))),
        ("0 0 * * 0", ALWAYS._replace(minute=(0,), hour=(0,), weekday=(0,))),
        ("0 0 * * 7", ALWAYS._replace(minute=(0,), hour=(0,), weekday=(0,))),
        ("0 0 * * mon-fri", ALWAYS._replace(minute=(0,), hour=(0,), weekday=(1, 2, 3, 4, 5))),
    ],
)
def test_what_the_fields_name(text: str, expected: Cron) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("* * * *", "five fields"),
        ("@daily", "five fields"),
        ("60 * * * *", "minute goes from 0 to 59, not '60'"),
        ("* * 0 * *", "day of month goes from 1 to 31"),
        ("* * * foo *", "month goes from 1 to 12, not 'foo'"),
        ("30-10 * * * *", "minute cannot be '30-10'"),
        ("*/0 * * * *", "minute cannot be"),
        ("1, * * * *", "minute cannot be '1,'"),
        ("0 0 1 * mon", "not both"),
    ],
)
def test_what_is_no_cron_says_so(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(text)


@given(st.text("0123456789*/-, monjan", max_size=20))
def test_anything_is_values_in_range_or_one_line(text: str) -> None:
    says, found = "", ALWAYS
    try:
        found = parse(text)
    except ValueError as error:
        says = str(error)
    assert len(says.splitlines()) <= 1
    for values, most in zip(found, ALWAYS, strict=True):
        assert values
        assert set(values) <= set(most)
