"""Where sentences end, in whole texts and in growing ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.sentences import code_blocks, settled, split

MARKS = [
    ". ",
    ".",
    "!",
    "?",
    "...",
    "…",
    "।",
    "。",
    "！",
    "「",
    "」",
    '"',
    ")",
    "|",
    "`",
    "``",
    "```",
    "~~~",
    "- ",
    "# ",
    "1. ",
]
WORDS = [
    "Dr",
    "The ",
    "end",
    "a",
    "I",
    "U.S",
    "e.g",
    "3",
    ".5",
    "Inc",
    "No",
    "py",
    "東京",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "\r\n",
]
PIECES = st.sampled_from([*MARKS, *WORDS])
TEXTS = st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=200)


@given(TEXTS)
def test_the_sentences_joined_are_the_text(text: str) -> None:
    assert "".join(split(text)) == text
    assert all(split(text)) or text == ""


@given(TEXTS, TEXTS)
def test_what_is_settled_stays_so_whatever_follows(text: str, more: str) -> None:
    place = settled(text)
    starts, at = {0}, 0
    for piece in split(text + more):
        at += len(piece)
        starts.add(at)
    assert place in starts
    assert settled(text + more) >= place


@given(TEXTS)
def test_white_space_never_begins_a_sentence_but_the_first(text: str) -> None:
    assert not any(piece[0].isspace() for piece in split(text)[1:])


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Smith lives here.",
        "See Fig. 3 and No. 5 of vol. 2.",
        "J. K. Rowling wrote it.",
        "It costs 3.5 euros at www.example.com in v1.2.3.",
        "We use e.g. this one, i.e. that one etc. and more.",
        "At 5 p.m. we left.",
        'He said "Stop." and left.',
        "Wait... what?",
        "Use `foo. Bar` now.",
        "Apple Inc. was founded early.",
        "1. First thing.",
        "This line is broken by the width of the page on which it stood\nbefore its end.",
    ],
)
def test_these_are_one_sentence(text: str) -> None:
    assert split(text) == [text]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One. ", "Two! ", "Three?"]),
        ("He lives in the U.S. The weather is fine.", ["He lives in the U.S. ", "The weather is fine."]),
        ("I said no. Then I left.", ["I said no. ", "Then I left."]),
        ("i like cats. they are nice.", ["i like cats. ", "they are nice."]),
        ('"Really?" he asked. "Yes." She left.', ['"Really?" he asked. ', '"Yes." ', "She left."]),
        ("# Title\nText.\n- one\n- two", ["# Title\n", "Text.\n", "- one\n", "- two"]),
        ("Paris\nLondon", ["Paris\n", "London"]),
        ("one\n\ntwo", ["one\n\n", "two"]),
        ("東京は首都です。人口は多い！「本当？」", ["東京は首都です。", "人口は多い！", "「本当？」"]),
        ("यह एक वाक्य है। यह दूसरा है।", ["यह एक वाक्य है। ", "यह दूसरा है।"]),
        ("Run:\n```py\nx. Y\n\nz\n```\nDone. Good.", ["Run:\n", "```py\nx. Y\n\nz\n```\n", "Done. ", "Good."]),
    ],
)
def test_these_are_several(text: str, sentences: list[str]) -> None:
    assert split(text) == sentences


def test_a_fence_left_open_runs_to_the_end_and_inline_backticks_are_no_fence() -> None:
    assert code_blocks("a\n```\nx\n") == [(2, 8)]
    assert code_blocks("```x``` is code. It is.") == []
    assert code_blocks("````\n```\n````\nb") == [(0, 14)]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["." * 200_000, "\n" * 200_000, "`. " * 60_000, "。" * 200_000, '."' * 100_000, "```\n" * 50_000]
)
def test_time_is_linear(text: str) -> None:
    assert "".join(split(text)) == text
