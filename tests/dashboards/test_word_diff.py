"""What differs between two answers: nothing lost, nothing interpreted, and quick whatever the texts are."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper_dashboards.word_diff import MOST, differing, marked

HOSTILE = "<script>alert(1)</script> **bold**"
FEW = " ".join(chr(ord("一") + n**3 // 7 % 149) for n in range(20_000))
"""Words that come again and again, each just too rare to be passed over as one that says nothing."""


def test_words_that_differ_are_marked_on_both_sides() -> None:
    ours, theirs = differing("Send it back within a fortnight.", "Send it back within 30 days.")
    assert ours == [(False, "Send it back within "), (True, "a fortnight.")]
    assert theirs == [(False, "Send it back within "), (True, "30 days.")]


def test_blanks_around_a_word_are_no_difference() -> None:
    ours, theirs = differing("one\n\ntwo", "one two")
    assert not any(differs for differs, _ in (*ours, *theirs))


@given(st.text(), st.text())
def test_the_pieces_are_the_texts(base: str, candidate: str) -> None:
    ours, theirs = differing(base, candidate)
    assert "".join(text for _, text in ours) == base
    assert "".join(text for _, text in theirs) == candidate


@pytest.mark.parametrize("text", ["a " * 50_000, " ".join(str(n) for n in range(50_000)), FEW, "x" * 500_000])
def test_long_and_repeating_texts_take_linear_time_and_lose_nothing(bounded: Callable[..., None], text: str) -> None:
    short = text[: len(text) // 4]
    bounded(lambda: differing(text, text[::-1]), lambda: differing(short, short[::-1]))
    ours, theirs = differing(text, text[::-1])
    assert "".join(piece for _, piece in ours) == text
    assert "".join(piece for _, piece in theirs) == text[::-1]
    assert MOST < 20_000


def test_markup_in_a_text_stays_text() -> None:
    whole: Any = marked(differing(HOSTILE, "")[0], missing_there=True)
    (piece,) = whole.children
    assert type(piece).__name__ == "Del"
    assert piece.children == HOSTILE
