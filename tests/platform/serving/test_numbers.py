"""Numbers that are written differently and mean the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving import numbers


def readings(text: str) -> set[numbers.Reading]:
    return {reading for number in numbers.find(text) for reading in number.readings}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,000", "1000"),
        ("1.000 EUR", "1000 euros"),
        ("25%", "25 percent"),
        ("five days", "5 days"),
        ("twenty-five", "25"),
        ("one hundred and fifty", "150"),
        ("1.5 million", "1,500,000"),
        ("10k", "10000"),
        ("3,5 kg", "3.5 kg"),
        ("9 am", "9:00"),
        ("5:30 pm", "17:30"),
        ("2024-03-05", "5.3.2024"),
        ("1400万人", "1400"),
    ],
)
def test_both_mean_the_same(one: str, other: str) -> None:
    assert readings(one) & readings(other)


@pytest.mark.parametrize(("one", "other"), [("25", "2.5"), ("9 am", "9:30 pm"), ("five", "fifty"), ("1.5", "15")])
def test_these_differ(one: str, other: str) -> None:
    assert not readings(one) & readings(other)


@pytest.mark.parametrize("text", ["1,000 am", "0,0 pm", "12 345 am", "9" * 5_000 + " pm"])
def test_what_is_no_hour_is_a_number(text: str) -> None:
    assert all(isinstance(reading, float) for reading in readings(text))


@pytest.mark.parametrize("text", ["E1042", "v2", "iPhone4", "everyone", "tense"])
def test_identifiers_and_words_are_no_numbers(text: str) -> None:
    assert numbers.find(text) == []


@pytest.mark.parametrize(
    ("text", "unit"),
    [("25 days", "dai"), ("$5", "$"), ("5 dollars", "$"), ("25%", "%"), ("25 per cent", "%"), ("5 of them", "")],
)
def test_the_unit_is_the_word_or_sign_beside_it(text: str, unit: str) -> None:
    assert numbers.find(text)[0].unit == unit


def test_ranges() -> None:
    found = numbers.ranges("2 to 5 years, between 7 and 9, more than 10, up to 1,500 euros")
    assert found == [(2.0, 5.0, "year"), (7.0, 9.0, ""), (10.0, float("inf"), ""), (0.0, 1500.0, "€")]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["9" * 200_000, "1," * 50_000, "111 " * 25_000, "one " * 25_000, "1:11 " * 20_000])
def test_long_runs_take_no_long_time(text: str) -> None:
    numbers.find(text)
    numbers.ranges(text)


@given(st.text(alphabet="0123456789 .,:-/kmM%$€apone", max_size=60))
def test_any_digits_can_be_read(text: str) -> None:
    numbers.find(text)
    numbers.ranges(text)
