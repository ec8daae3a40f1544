"""Repetition: loops go towards 1, ordinary texts stay near 0, in any script."""

import pytest

from watchkeeper_evaluations.scorers.repetition import repetition

ORDINARY = (
    "Leave is thirty days a year. It is booked in the portal, and the team lead approves it within three days. "
    "What is left at the end of March expires, unless it could not be taken because of illness."
)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        (ORDINARY, 0.0, 0.0),
        ("The answer is yes. " * 20, 0.9, 1.0),
        ("no " * 50, 0.95, 1.0),
        ("a" * 500, 0.95, 1.0),
        ("! " * 100, 0.95, 1.0),
        ("我不知道。" * 30, 0.8, 1.0),
        (ORDINARY + " " + ORDINARY, 0.4, 0.55),
        ("Paris.", 0.0, 0.0),
        ("one two three four", 0.0, 0.0),
    ],
)
def test_how_much_is_said_again(text: str, low: float, high: float) -> None:
    assert low <= repetition(text) <= high


def test_the_more_rounds_the_nearer_to_one() -> None:
    rounds = [repetition("The quick brown fox jumps over the lazy dog. " * times) for times in (1, 2, 4, 16)]
    assert rounds == sorted(rounds)
    assert rounds[0] == 0
    assert rounds[-1] > 0.9
