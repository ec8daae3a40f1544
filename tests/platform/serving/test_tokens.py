"""How many tokens a conversation has."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from watchkeeper.serving.tokens import EXACT_CHARACTERS, MESSAGE_TOKENS, REPLY_TOKENS, TokenCounter


@pytest.fixture
def exact(tmp_path: Path) -> TokenCounter:
    """A tokenizer of words: one token each."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "hello": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return TokenCounter.open(tmp_path)


def test_a_models_own_tokenizer_counts(exact: TokenCounter) -> None:
    assert exact.exact
    assert exact.text("hello big world") == 3
    assert exact.text("") == 0


def test_a_conversation_has_the_templates_tokens_too(exact: TokenCounter) -> None:
    assert exact.count(["be nice", "hello world again"]) == 5 + 2 * MESSAGE_TOKENS + REPLY_TOKENS
    assert exact.count([]) == REPLY_TOKENS


def test_a_long_text_is_counted_by_samples(exact: TokenCounter) -> None:
    text = "hello " * (EXACT_CHARACTERS * 4)
    assert exact.text(text) == pytest.approx(len(text) / 6, rel=0.01)


def test_a_lone_surrogate_is_counted_too(exact: TokenCounter) -> None:
    assert exact.text("bad \ud800") == 2
    assert TokenCounter().text("bad \ud800") > 0


@pytest.mark.parametrize("content", [None, b"", b"{}", b"not json"])
def test_without_a_tokenizer_that_can_be_read_it_is_an_estimate(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    counter = TokenCounter.open(tmp_path)
    assert not counter.exact
    assert counter.text("four") == 2
    assert not TokenCounter.open(None).exact


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [  # what six public tokenizers made of it: GPT-4's and GPT-4o's, Qwen's, Mistral's two, Claude's
        ("All human beings are born free and equal in dignity and rights. They are endowed with reason.", 19, 20),
        ("Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft begabt.", 22, 29),
        ("Все люди рождаются свободными и равными в своем достоинстве и правах.", 17, 40),
        ("人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心。", 19, 34),
        ("すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等である。", 25, 46),
        ("มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ", 32, 117),
        ("2024-01-15 13:45:22.123 4111 1111 1111 1111 3.14159265358979", 28, 61),
        ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", 43, 60),
    ],
)
def test_the_estimate_is_on_the_safe_side_of_what_common_tokenizers_count(text: str, least: int, most: int) -> None:
    assert 0.95 * least <= TokenCounter().text(text) <= 1.75 * most


@example("\x7f", "")
@given(st.text(max_size=100), st.text(max_size=100))
def test_the_estimate_grows_with_the_text(one: str, other: str) -> None:
    counter = TokenCounter()
    assert counter.text(one + other) >= max(counter.text(one), counter.text(other))
    assert (counter.text(one) == 0) == (one == "")
