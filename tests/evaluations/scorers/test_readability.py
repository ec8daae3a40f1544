"""Flesch's reading ease: children's books above manuals, English only, and syllables as they are spoken."""

import pytest

from watchkeeper_evaluations.scorers.readability import readability, syllables

EASY = "The cat sat on the mat. The dog ran to the cat. The cat did not like the dog. So the cat ran up a big tree."
HARD = (
    "Organizational interoperability necessitates comprehensive harmonization of heterogeneous authentication "
    "infrastructures, notwithstanding considerable administrative difficulties regarding accountability, "
    "confidentiality and institutional responsibility, particularly considering international organizations."
)


def test_short_words_and_sentences_read_easily() -> None:
    easy, hard = readability(EASY), readability(HARD)
    assert easy == 1.0
    assert hard == 0.0


def test_a_known_text_has_its_known_ease() -> None:
    """Lincoln's first sentence by hand: 30 words, 1 sentence, 48 syllables → 206.835 - 30.45 - 135.36 = 41.0."""
    text = (
        "Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in "
        "Liberty, and dedicated to the proposition that all men are created equal."
    )
    assert readability(text) == pytest.approx(0.41, abs=0.001)


@pytest.mark.parametrize(
    "text",
    [
        "Too short to say.",
        "Die Mitarbeiter haben dreißig Tage Urlaub im Jahr, die sie bis März nehmen müssen, sonst verfallen sie leider.",
        "```\n" + EASY + "\n```",
        "12 34 56 78 " * 20,
    ],
)
def test_what_is_short_foreign_or_code_has_none(text: str) -> None:
    assert readability(text) is None


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("the", 1), ("cat", 1), ("make", 1), ("makes", 1), ("table", 2), ("tables", 2), ("wanted", 2), ("walked", 1),
        ("houses", 2), ("information", 4), ("something", 2), ("create", 2), ("quiet", 2),
        ("language", 2), ("beautiful", 3), ("strengths", 1), ("don't", 1), ("organization", 5),
    ],
)  # fmt: skip
def test_syllables(word: str, count: int) -> None:
    assert syllables(word) == count
