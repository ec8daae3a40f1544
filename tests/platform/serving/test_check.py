"""What an answer may say, given its sources."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.record import Source
from watchkeeper.serving.check import support

LEAVE = Source(
    "leave.md#1",
    "Leave > Annual leave",
    0.7,
    "Full-time employees have 28 days of paid annual leave a year. The leave year runs from 1 April to 31 March. "
    "Up to five days may be carried over into the next leave year. Unused days are not paid out.",
)
TRAVEL = Source(
    "travel.md#2",
    "Business travel > Hotels",
    0.5,
    "A night may cost up to 140 euros, and 190 euros in London. The Travel Desk books flights within the European Union. "
    "Offices open from 7:00 to 20:00. Employees with 2 to 5 years of service get three weeks of notice.",
)
SOURCES = (LEAVE, TRAVEL)


@pytest.mark.parametrize(
    "answer",
    [
        "You have 28 days of paid annual leave.",
        "Employees get twenty-eight days of paid leave a year.",
        "Yes, 5 days may be carried over into the next year.",
        "A hotel night in London may cost up to €190.",
        "Unused days are not paid out [1].",
        "- The leave year runs from 1 April to 31 March.",
        "The Travel Desk books flights within the EU.",
        "Offices open from 7 am to 8 pm.",
    ],
)
def test_what_a_source_says_is_supported(answer: str) -> None:
    found = support(answer, SOURCES)
    assert found.overall == 1.0, found.sentences


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("You have 30 days of paid annual leave a year.", "number not in the sources: 30"),
        ("A hotel night in London may cost up to 90 euros.", "number not in the sources: 90"),
        ("The Travel Desk books flights with Lufthansa within the European Union.", "name not in the sources: Lufthansa"),
        ("Unused days are paid out.", "says the opposite of a source"),
        ("Up to five days may not be carried over into the next leave year.", "says the opposite of a source"),
        ("The company was founded by two sisters who sold fish.", "words that are not in the sources"),
    ],
)
def test_what_no_source_says_is_not(answer: str, reason: str) -> None:
    found = support(answer, SOURCES)
    assert found.overall == 0.0
    assert found.sentences[0].reason == reason


@pytest.mark.parametrize(
    "answer",
    [
        "I don't know.",
        "The sources do not say how much a taxi may cost.",
        "I'm sorry, but I have no information about stock options.",
        "Hello Anna! Thanks for your question.",
        "Let me know if you need anything else.",
        "Do you mean annual leave or sick leave?",
        "Yes, you can.",
        "```python\nprint(30)\n```",
        "## Annual leave",
        "",
        "知りません。",
    ],
)
def test_what_claims_nothing_is_not_checked(answer: str) -> None:
    found = support(answer, SOURCES)
    assert found.overall is None
    assert all(sentence.score is None and sentence.reason for sentence in found.sentences)


def test_a_claim_after_a_refusal_is_checked() -> None:
    found = support("I am not sure, but the pension is paid by the state of Nevada.", SOURCES)
    assert found.overall == 0.0


def test_a_short_denial_is_a_claim_and_not_a_courtesy() -> None:
    assert support("No refunds are given.", SOURCES).overall == 0.0


def test_overall_is_the_share_of_the_claims() -> None:
    found = support("Hello! You have 28 days of paid annual leave. The canteen serves lobster on Mondays.", SOURCES)
    assert found.overall == 0.5
    assert [sentence.supported for sentence in found.sentences] == [None, True, False]
    assert found.score is not None
    assert 0.0 < found.score < 1.0


def test_without_a_source_there_is_nothing_to_say() -> None:
    assert support("You have 28 days.", ()).overall is None
    assert support("You have 28 days.", (Source("x#1", "x", 0.5, " "),)).overall is None


def test_a_number_of_the_prompt_needs_a_source_only_where_one_speaks_of_its_unit() -> None:
    answer = "With 4 years of service you get three weeks of notice."
    assert support(answer, SOURCES, "I have 4 years of service, what is my notice?").overall == 1.0
    assert support(answer, SOURCES).overall == 0.0
    assert support("You have 60 days of paid annual leave.", SOURCES, "Do I have 60 days?").overall == 0.0


def test_a_name_of_the_prompt_needs_no_source() -> None:
    answer = "Unused days are not paid out, Benedikt."
    assert support(answer, SOURCES, "My name is Benedikt. Are unused days paid out?").overall == 1.0


def test_chinese_is_compared_by_pairs_of_characters() -> None:
    source = (Source("zh.md#1", "休假", 0.6, "全职员工每年有28天带薪年假。年假不能折算成工资。"),)
    assert support("全职员工每年有28天带薪年假。", source).overall == 1.0
    assert support("公司总部设在东京的一座高楼里。", source).overall == 0.0
    assert support("全职员工每年有30天带薪年假。", source).overall == 0.0


def test_german_nouns_are_no_unknown_names() -> None:
    source = (Source("de.md#1", "Urlaub", 0.6, "Vollzeitkräfte haben 28 Tage Urlaub im Jahr."),)
    found = support("Im Jahr haben Vollzeitkräfte 28 Tage Urlaub.", source)
    assert found.overall == 1.0


@given(st.text(max_size=300), st.text(max_size=200), st.text(max_size=100))
def test_any_texts_can_be_compared(answer: str, source: str, prompt: str) -> None:
    found = support(answer, (Source("x#1", "t", 0.5, source),), prompt)
    assert found.overall is None or 0.0 <= found.overall <= 1.0
    assert all(sentence.score is None or 0.0 <= sentence.score <= 1.0 for sentence in found.sentences)


def test_an_answer_that_copies_its_source_is_supported_whatever_it_is() -> None:
    assert support(LEAVE.text, SOURCES).overall == 1.0


def test_a_long_answer_is_checked_in_linear_time(bounded: Callable[..., None]) -> None:
    short, long = (
        "".join(f"You have {days} days of paid annual leave a year. " for days in range(count)) for count in (200, 800)
    )
    bounded(lambda: support(long, SOURCES), lambda: support(short, SOURCES))
