"""Misspelt words of a question find what the base has for them; words that are right, names and code are left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving import words
from watchkeeper.serving.index import Index
from watchkeeper.serving.passages import Passage
from watchkeeper.serving.spelling import Spelling

KNOWN = [
    "annual",
    "holiday",
    "employee",
    "contractor",
    "reimbursement",
    "expenses",
    "laptop",
    "encryption",
    "hours",
    "angle",
]
SPELLING = Spelling({words.stem(word) for word in KNOWN}, ["en"])


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ("How many hollidays do I have?", {"hollidays": "holiday"}),
        ("Is a contarctor paid for expnses?", {"contarctor": "contractor", "expnses": "expenses"}),
        ("when do I get my rembursement, (expnses)", {"rembursement": "reimbursement", "expnses": "expenses"}),
        ("HOLLIDAYS WITH MY LAPTPO", {"hollidays": "holiday", "laptpo": "laptop"}),
        ("Hollidays?", {"hollidays": "holiday"}),
    ],
)
def test_what_was_meant_is_found(query: str, meant: dict[str, str]) -> None:
    assert dict(SPELLING.meant(query)) == {word: words.stem(stem) for word, stem in meant.items()}


@pytest.mark.parametrize(
    "query",
    [
        "How many holidays does an employee have?",  # known
        "Tell me about angels and houses",  # right, and near to words of the base
        "holiday-hollidays",
        "What does `hollidays` do?",
        "See /srv/hollidays or hollidays_list or a.hollidays",
        "Ask Mr Hollidays about it",
        "hour",
        "Wie viele Ferientage habe ich als Angestellter im ersten Jahr, und wann verfallen sie?",
        "我有多少天年假",
        "",
    ],
)
def test_what_is_right_or_none_of_our_business_is_left_alone(query: str) -> None:
    assert SPELLING.meant(query) == ()


def test_between_two_words_there_is_no_choice() -> None:
    assert Spelling({"planting", "plantings", "planning"}, ["en"]).meant("planhing") == ()


def test_without_a_dictionary_of_the_bases_language_nothing_is_mended() -> None:
    assert Spelling({"holiday"}, ["ja"]).meant("hollidays") == ()
    assert Spelling({"holiday"}, []).meant("hollidays") == ()


@given(st.text(max_size=120))
def test_any_question_is_read_and_only_towards_words_of_the_base(query: str) -> None:
    known = {words.stem(word) for word in KNOWN}
    for word, stem in SPELLING.meant(query):
        assert stem in known
        assert words.stem(word) not in known


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["a" * 200_000, "aaaaab " * 30_000, "a/" * 100_000, "`" * 200_000, "hollidays " * 20_000])
def test_time_is_linear(text: str) -> None:
    SPELLING.meant(text)


def test_a_search_finds_by_what_was_meant_and_says_so() -> None:
    index = Index(
        [
            Passage("leave.md#1", "Leave", "Every employee has twenty holidays in each year that they work with us."),
            Passage("travel.md#1", "Travel", "Trains are booked in second class by the people of the office."),
        ]
    )
    right = index.search("How many holidays are there?", None, 1, 0.0)
    wrong = index.search("How many hollidays are there?", None, 1, 0.0)
    assert right.spelling == ()
    assert wrong.spelling == (("hollidays", words.stem("holiday")),)
    assert right.sources == wrong.sources
    assert index.search("How many houses are there?", None, 1, 0.3).sources == ()
