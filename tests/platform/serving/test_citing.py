"""Marks stand at the sentences that a passage carries, and change nothing else of an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.record import Source
from watchkeeper.serving.check import Checker
from watchkeeper.serving.citing import LONG, Citing, unmarked

SOURCES = (
    Source("leave.md#1", "Leave", 0.9, "Annual leave is 28 days. It grows to 30 days after five years."),
    Source("dogs.md#1", "Dogs", 0.5, "Dogs are welcome in the office on Fridays. 年假为二十八天。"),
)


BOTH = "Annual leave is 28 days [1]. Dogs are welcome on Fridays [2]."


def citing(*, marked: bool = True) -> Citing:
    return Citing(Checker(SOURCES, "How much leave?"), tuple(source.id for source in SOURCES), marked=marked)


@pytest.mark.parametrize(
    ("answer", "marked"),
    [
        ("Annual leave is 28 days. Dogs are welcome on Fridays.", BOTH),
        ("Annual leave is 28 days", "Annual leave is 28 days [1]"),
        ("Annual leave is 99 days.", "Annual leave is 99 days."),
        ("Annual leave is 28 days [2].", "Annual leave is 28 days [1]."),
        ("Annual leave is 28 days.[2] Dogs are welcome on Fridays[1].", BOTH),
        ("Annual leave is 28 days. [2] Dogs are welcome on Fridays. [1]", BOTH + " "),
        ("Cats rule the office [1]. Sure!", "Cats rule the office. Sure!"),
        ("- Leave: 28 days\n- Dogs: welcome on Fridays\n", "- Leave: 28 days [1]\n- Dogs: welcome on Fridays [2]\n"),
        ("# Annual leave\n\nAnnual leave is 28 days!", "# Annual leave\n\nAnnual leave is 28 days [1]!"),
        ('"Annual leave is 28 days." It is.', '"Annual leave is 28 days." [1] It is.'),
        ("| annual leave | 28 days |\n", "| annual leave | 28 days |\n"),
        ("```\nannual leave is 28 days.\n```\n", "```\nannual leave is 28 days.\n```\n"),
        ("Annual leave is `28 days.`", "Annual leave is `28 days.` [1]"),
        ("Use `leave[1]` and see [1](http://x) there.", "Use `leave[1]` and see [1](http://x) there."),
        ("年假为二十八天。", "年假为二十八天[2]。"),
        ("", ""),
    ],
)
def test_marks(answer: str, marked: str) -> None:
    assert citing().add(answer) == marked


def test_spans_are_of_what_was_delivered_and_name_the_passages() -> None:
    one = citing()
    text = one.add("Annual leave is 28 days. It is warm. ") + one.add("Dogs are welcome on Fridays.")
    found = [(text[each.start : each.end], each.sources) for each in one.found]
    assert found == [
        ("Annual leave is 28 days [1].", ("leave.md#1",)),
        ("Dogs are welcome on Fridays [2].", ("dogs.md#1",)),
    ]


def test_without_marks_the_text_stays_and_the_spans_are_there() -> None:
    one, answer = citing(marked=False), "Annual leave is 28 days [2]. It is warm."
    assert one.add(answer) == answer
    assert [(answer[each.start : each.end], each.sources) for each in one.found] == [
        ("Annual leave is 28 days [2].", ("leave.md#1",))
    ]


def test_a_number_decides_which_of_two_like_passages_is_named() -> None:
    sources = (
        Source("a", "Leave in Spain", 0.9, "Annual leave is 30 days in total for everyone."),
        Source("b", "Leave in Wales", 0.9, "Annual leave is 28 days in total for everyone."),
    )
    one = Citing(Checker(sources), ("a", "b"), marked=True)
    assert one.add("Annual leave is 28 days in total.") == "Annual leave is 28 days in total [2]."


def streamed(answer: str, sizes: list[int]) -> str:
    """The answer as it leaves when it comes in pieces of these sizes, cut as the guard's windows cut it."""
    one, emitted, received, out = citing(), 0, 0, ""
    for size in sizes:
        received = min(len(answer), received + size)
        cut, whole = one.ready(answer[:received], emitted, received)
        if cut > emitted:
            out += one.add(answer[emitted:cut], whole=whole)
            emitted = cut
    return out + one.add(answer[emitted:])


SENTENCES = st.sampled_from(
    ["Annual leave is 28 days. ", "Dogs are welcome on Fridays! ", "It is warm. ", "- Annual leave: 28 days\n", "Is it? ",
     "e.g. leave of 28 days etc. ", "\n```\ncode. Annual leave.\n```\n", "年假为二十八天。", "Leave is 28 days [1]. ",
     "\n\n", "3.5 "]
)  # fmt: skip


@given(st.lists(SENTENCES, max_size=8).map("".join), st.lists(st.integers(1, 60), max_size=40))
def test_a_growing_answer_is_marked_as_the_whole_would_be(answer: str, sizes: list[int]) -> None:
    assert streamed(answer, sizes) == citing().add(answer)


@given(st.lists(SENTENCES, max_size=8).map("".join))
def test_marks_change_nothing_but_marks(answer: str) -> None:
    marked = citing().add(answer)
    assert unmarked(marked, 2) == unmarked(answer, 2)


def test_a_sentence_without_end_is_not_waited_for() -> None:
    words = "word " * LONG
    text = streamed(words + "annual leave is 28 days. Annual leave is 28 days.", [50] * len(words))
    assert text.endswith("annual leave is 28 days. Annual leave is 28 days [1].")
    one = citing()
    assert one.ready(words[: LONG + 10], 0, LONG + 10) == (LONG + 10, False)
    assert one.ready(words[:100], 0, 100) == (0, True)
