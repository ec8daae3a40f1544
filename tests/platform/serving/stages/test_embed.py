"""What is embedded, and what is searched with: a short question leans on the one before it, in any script."""

import time
from typing import Any

import pytest

from watchkeeper.record import Message
from watchkeeper.release import BUILTIN
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.request import ChatRequest, Turn
from watchkeeper.serving.stages.embed import MOST, OVERLAP, WINDOW, searched, windows


def journey(*texts: str, **others: Any) -> Journey:
    turns = [Turn(("user", "assistant")[at % 2], text, {}) for at, text in enumerate(texts)]
    request = ChatRequest(model="watchkeeper", turns=tuple(turns))
    return Journey("0" * 32, 1, request, BUILTIN, time.perf_counter, 0.0, turns=turns, **others)


@pytest.mark.parametrize(
    ("earlier", "short", "long"),
    [
        ("How many days of leave are there?", "And for contractors?", "How many days of leave does a contractor have?"),
        ("我每年有多少天年假？", "兼职呢？", "兼职员工每年可以享受多少天带薪年假？"),
        ("有給休暇は何日ありますか？", "契約社員は？", "契約社員には年次有給休暇が何日ありますか？"),
        ("ฉันมีวันลากี่วันต่อปี", "แล้วพนักงาน", "พนักงานสัญญาจ้างมีวันลาพักร้อนกี่วันต่อปี"),
    ],
)
def test_a_short_question_is_searched_with_the_one_before_it_in_any_script(earlier: str, short: str, long: str) -> None:
    assert searched(journey(earlier, "27.", short)) == f"{earlier} {short}"
    assert searched(journey(earlier, "27.", long)) == long
    assert searched(journey(short)) == short
    history = (Message("user", earlier), Message("assistant", "27."))
    assert searched(journey(short, history=history)) == f"{earlier} {short}"


def test_the_copy_is_searched_with_where_there_is_one() -> None:
    assert searched(
        journey("How many days of le\u200bave are there here?", query="How many days of leave are there here?")
    ) == ("How many days of leave are there here?")


def test_windows_cover_a_text_with_overlap() -> None:
    text = "".join(chr(ord("a") + at % 26) for at in range(5_000))
    pieces = windows(text)
    assert pieces[0] + "".join(piece[OVERLAP:] for piece in pieces[1:]) == text
    assert windows("") == [""]
    assert len(windows("x" * WINDOW * MOST * 2)) == MOST
