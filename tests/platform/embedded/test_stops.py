"""Stop sequences: however an answer is cut into pieces, it ends where the whole text would."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.embedded.stops import Stops

TEXTS = st.text("ab\n.", max_size=40)


@given(TEXTS, st.lists(st.text("ab\n.", min_size=1, max_size=4), max_size=3), st.sets(st.integers(0, 40)))
def test_an_answer_ends_before_the_first_of_them(text: str, given_stops: list[str], places: set[int]) -> None:
    ends = sorted({min(place, len(text)) for place in places} | {0, len(text)})
    stops, said = Stops(given_stops), ""
    for start, end in itertools.pairwise(ends):
        said += stops.add(text[start:end])
    said += stops.finish()
    completed = [(at + len(stop), at) for stop in given_stops if (at := text.find(stop)) >= 0]
    assert text.startswith(said)
    assert stops.stopped == bool(completed)
    assert not [stop for stop in given_stops if stop in said]
    if not completed:
        assert said == text


@pytest.mark.parametrize("pieces", [["one END two"], ["one E", "ND two"], list("one END two")])
def test_a_stop_sequence_in_pieces_is_one(pieces: list[str]) -> None:
    stops = Stops(["END"])
    assert "".join(map(stops.add, pieces)) + stops.finish() == "one "
    assert stops.stopped


def test_what_only_looks_like_the_beginning_of_one_is_said() -> None:
    stops = Stops(["END"])
    assert stops.add("so E") == "so "
    assert stops.add("N") == ""
    assert stops.finish() == "EN"
