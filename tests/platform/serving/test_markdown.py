"""Markdown that was cut off: closed where it was opened, and nothing else changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.markdown import closed

PIECES = st.sampled_from(
    [
        "**",
        "*",
        "`",
        "``",
        "```\n",
        "~~~\n",
        "| a | b |\n",
        "|---|---|\n",
        "| c",
        "- ",
        "# ",
        "\n",
        "\n\n",
        "word ",
        "word",
        "2**3",
        "\\",
    ]
)
TEXTS = st.lists(PIECES, max_size=25).map("".join)


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("This is **very imp", "This is **very imp**"),
        ("Call `os.pa", "Call `os.pa`"),
        ("Call ``a`b", "Call ``a`b``"),
        ("One.\n\n- **First**: done\n- **Sec", "One.\n\n- **First**: done\n- **Sec**"),
        ("| a | b |\n|---|---|\n| 1 | 2", "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("| a | b | c |\n|---|---|---|\n| 1", "| a | b | c |\n|---|---|---|\n| 1 | | |"),
        ("| a | b |\n|---", "| a | b |\n|------|---|"),
    ],
)
def test_what_was_opened_is_closed(text: str, done: str) -> None:
    assert closed(text) == done
    assert closed(done) == done


@pytest.mark.parametrize(
    "text",
    [
        "Plain words without an end",
        "**Done**, and `done`.",
        "2**3 is 8",
        "Take *args and",
        "```py\nx = '**",
        "```py\nx = 1\n```",
        "A | b is no table",
        "3.",
        "",
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert closed(text) == text


@given(TEXTS)
def test_only_marks_are_added_and_twice_is_once(text: str) -> None:
    done = closed(text)
    assert closed(done) == done
    assert done.startswith(text)
    assert set(done[len(text) :]) <= set("*`| -")
