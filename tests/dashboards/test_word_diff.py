"""What differs between two answers: nothing lost, nothing interpreted, and quick whatever the texts are."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper_dashboards.word_diff import MOST, differing, marked

HOSTILE = "<script>alert(1)</script> **bold**"


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


@pytest.mark.parametrize("text", ["a " * 50_000, " ".join(str(n) for n in range(50_000)), "x" * 500_000])
def test_long_and_repeating_texts_take_no_time_and_lose_nothing(text: str) -> None:
    began = time.process_time()
    ours, theirs = differing(text, text[::-1])
    assert time.process_time() - began < 3
    assert "".join(piece for _, piece in ours) == text
    assert "".join(piece for _, piece in theirs) == text[::-1]
    assert MOST < 50_000


def test_markup_in_a_text_stays_text() -> None:
    whole: Any = marked(differing(HOSTILE, "")[0], missing_there=True)
    (piece,) = whole.children
    assert type(piece).__name__ == "Del"
    assert piece.children == HOSTILE
