"""How hard a prompt is: in (0, 1), in microseconds, and what asks for sums or programs comes before small talk."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.embedded.weights import encoder_model
from watchkeeper.encoder import heads
from watchkeeper.serving.calibration import UNCALIBRATED
from watchkeeper.serving.difficulty import COUNTED, FEATURES, READ, Difficulty, counted, difficulty, features
from watchkeeper.serving.words import size
from watchkeeper.settings import Settings
from watchkeeper_evaluations.training.head import Embedder

HARD = """
A train leaves at 9:40 and drives 180 km at 72 km per hour. How many minutes later does it arrive?
Write a Python function that returns the longest palindrome in a string.
If x + y = 12 and x * y = 35, what is the value of x - y?
Prove that there are infinitely many primes, step by step.
Fix this SQL query: SELECT name, count(*) FROM users WHERE age > 30 AND city = 'Bonn';
Tom has 3 times as many apples as Ann. Together they have 48. How many does Ann have?
"""
EASY = """
Hi there!
Write a short poem about the sea.
Thank my colleague for her help in a friendly mail.
Name a good film for tonight.
Summarise this paragraph in one sentence.
Who are you?
"""


def test_what_is_hard_comes_before_what_is_easy() -> None:
    hard, easy = ([counted(line) for line in lines.strip().splitlines()] for lines in (HARD, EASY))
    assert min(hard) > max(easy)
    assert min(hard) >= 0.3 > max(easy), "on the two sides of the default threshold"


@given(st.text(max_size=300))
def test_every_text_has_a_difficulty(prompt: str) -> None:
    assert 0 < counted(prompt) < 1
    values = features(prompt)
    assert len(values) == len(FEATURES)
    assert all(0 <= value <= 1 for value in values)


@given(piece=st.text(alphabet="aA1?!.,;{}()=+-*/ \n`\"'ıſ好？", min_size=1, max_size=60))
@settings(max_examples=40)
def test_a_long_text_takes_no_longer_than_a_page(bounded: Callable[..., None], piece: str) -> None:
    """Of four pages the words are counted; the rest takes four times what a quarter of a page takes: one page is read, and
    that in linear time."""
    text = (piece * 4 * READ)[: 4 * READ]
    bounded(lambda: counted(text), lambda: (size(text), counted(text[: READ // 4])))


def test_what_stands_at_the_end_of_a_long_prompt_is_read() -> None:
    report = "The harbour was quiet that day and nobody came. " * 400
    assert counted(report + "How many ships came per day in total? Calculate 12 * 7.") > counted(report) + 0.2


def test_without_an_embedding_it_is_counted() -> None:
    assert difficulty("Hi there!", None) == Difficulty(counted("Hi there!"), COUNTED)


@pytest.mark.models
def test_by_its_embedding_what_is_hard_comes_before_what_is_easy() -> None:
    """Through the real encoder."""
    folder = encoder_model(Settings().models)
    by_words = Embedder(folder)
    hard, easy = (
        [difficulty(line, row) for line, row in zip(lines, by_words(lines), strict=True)]
        for lines in (HARD.strip().splitlines(), EASY.strip().splitlines())
    )
    assert min(one.value for one in hard) > max(one.value for one in easy)
    assert min(one.value for one in hard) > UNCALIBRATED
    assert sum(one.value < UNCALIBRATED for one in easy) >= len(easy) - 1
    assert {one.by for one in (*hard, *easy)} == {heads.load("difficulty").version}
