"""Words in the form in which texts are compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving import words


@pytest.mark.parametrize(
    "forms",
    [
        "policy policies",
        "carry carries carried carrying",
        "use uses used using",
        "run runs running",
        "agree agreed agreement",
        "reimburse reimbursed reimbursement",
        "approve approved approval",
        "add adds added adding",
    ],
)
def test_forms_of_one_word_come_out_alike(forms: str) -> None:
    assert len({words.stem(form) for form in forms.split()}) == 1


@pytest.mark.parametrize(("one", "other"), [("need", "new"), ("bus", "business"), ("thing", "think"), ("paid", "unpaid")])
def test_different_words_stay_different(one: str, other: str) -> None:
    assert words.stem(one) != words.stem(other)


def test_a_word_is_the_same_with_other_case_accents_and_quotes() -> None:
    assert words.tokens("CAFÉ don’t ﬁne İstanbul") == words.tokens("cafe don't fine istanbul")


def test_numbers_keep_their_decimals_and_lose_their_thousands_commas() -> None:
    assert words.tokens("1,000.50 and 3.14 at 9:30") == ["1000.50", "and", "3.14", "at", "9:30"]


@pytest.mark.parametrize("text", ["東京タワー", "ภาษาไทย", "한국어를"])
def test_scripts_without_spaces_give_overlapping_pairs(text: str) -> None:
    pairs = words.tokens(text)
    assert all(len(pair) == 2 for pair in pairs)
    assert pairs[0] + "".join(pair[1] for pair in pairs[1:]) == text
    assert words.unspaced(text)


def test_vowel_signs_do_not_cut_a_hindi_word() -> None:
    assert words.tokens("हिन्दी में।") == ["हिन्दी", "में"]


def test_content_leaves_function_words_out_but_no_english_noun_that_another_language_uses() -> None:
    assert words.content("Did he die in the war with his son?") == ["di", "war", "son"]


def test_size_counts_words_and_half_the_characters_of_unspaced_scripts() -> None:
    assert words.size("one two three") == 3
    assert words.size("東京タワー and more") == 5


@given(st.text())
def test_any_text_gives_words_without_white_space(text: str) -> None:
    assert all(word and not any(char.isspace() for char in word) for word in words.content(text))


def test_terms_are_content_and_each_ideograph() -> None:
    assert words.terms("annual leave, of 2025") == words.content("annual leave, of 2025")
    assert words.terms("年假") == ["年假", "年", "假"]
    assert words.terms("かな") == words.content("かな")
