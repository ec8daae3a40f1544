"""Near questions share a form; a question and its reversal never do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.nearness import canonical

ALIKE = [
    ("How many days of leave do I have?", "how many days of leave do i have"),
    ("How many days of leave do I have?", "Hello, can you tell me how many days of leave do I have? Thanks!"),
    ("What is the capital of France?", "Please tell me: what is capital of France?"),
    ("Why doesn't the printer print?", "Why does not the printer print"),
    ("Why can’t I log in?", "why cannot I log in?"),
    ("Where is the café?", "where is the cafe?"),
    ("It costs 1,000 euros, right?", "it costs 1000 euros, right?"),
]
REVERSED = [
    ("Is A better than B?", "Is B better than A?"),
    ("Does the dog bite the man?", "Does the man bite the dog?"),
    ("Flights from Paris to Rome", "Flights from Rome to Paris"),
    ("Flights from Paris to Rome", "Flights to Paris from Rome"),
    ("Is it safe to mix bleach and ammonia?", "Is it not safe to mix bleach and ammonia?"),
    ("May I carry leave over?", "May I never carry leave over?"),
    ("Can I take it with food?", "Can I take it without food?"),
    ("Should I take it before meals?", "Should I take it after meals?"),
    ("How do I enable the firewall?", "How do I disable the firewall?"),
    ("Who can see my files?", "Whose files can I see?"),
    ("What is 12 divided by 4?", "What is 4 divided by 12?"),
    ("What is 12 divided by 4?", "What is 12 divided by 5?"),
    ("What is 5 - 3?", "What is 5 + 3?"),
    ("Is it more than 100?", "Is it less than 100?"),
    ("Convert $5 to euros", "Convert €5 to euros"),
    ("Is it 5%?", "Is it 5?"),
    ("What is 1.5 times 2?", "What is 15 times 2?"),
    ("Does it apply to all employees?", "Does it apply to some employees?"),
    ("Was the office open?", "Is the office open?"),
    ("Who taught Plato?", "Whom did Plato teach?"),
    ("When must I pay?", "Why must I pay?"),
    ("What is the US policy?", "What is the us policy?"),
    ("Does vitamin A help?", "Does a vitamin help?"),
    ("The office is open.", "The office is open?"),
    ("Do I need a visa only for work?", "Do only I need a visa for work?"),
    ("If it rains, do we go?", "If we go, does it rain?"),
    ("My manager owes me leave", "I owe my manager leave"),
    ("Translate cat", "Translate cats"),
    ("我比你高吗", "你比我高吗"),
    ("犬は猫より速いですか", "猫は犬より速いですか"),
    ("Darf ich das?", "Darf ich das nicht?"),
    ("Puis-je le faire ?", "Puis-je ne pas le faire ?"),
]
WORDS = [
    "leave",
    "days",
    "manager",
    "before",
    "after",
    "not",
    "with",
    "without",
    "5",
    "7",
    "Paris",
    "Rome",
    "can",
    "pay",
    "who",
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_dress_makes_no_difference(one: str, other: str) -> None:
    assert canonical(one) is not None
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(("one", "other"), REVERSED)
def test_a_question_and_its_reversal_differ(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize(
    "text",
    ["Say `x`", 'Translate "the cat"', "Translate „die Katze“", "One line\nand another", "word " * 200, "", "hello", "the"],
)
def test_what_is_no_plain_question_is_like_nothing(text: str) -> None:
    assert canonical(text) is None


@given(st.lists(st.sampled_from(WORDS), min_size=2, max_size=8), st.data())
def test_words_that_change_places_make_another_question(said: list[str], data: st.DataObject) -> None:
    first, second = sorted(data.draw(st.tuples(*[st.integers(0, len(said) - 1)] * 2)))
    moved = list(said)
    moved[first], moved[second] = moved[second], moved[first]
    assert (canonical(" ".join(said)) == canonical(" ".join(moved))) == (said == moved)


@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=8),
    st.integers(0, 8),
    st.sampled_from(["not", "never", "no", "9"]),
)
def test_a_word_more_makes_another_question(said: list[str], at: int, word: str) -> None:
    assert canonical(" ".join(said)) != canonical(" ".join([*said[:at], word, *said[at:]]))


@given(st.text(max_size=80))
def test_any_text_has_a_form_or_none(text: str) -> None:
    form = canonical(text)
    assert form is None or form == canonical(f"  {text} ")
