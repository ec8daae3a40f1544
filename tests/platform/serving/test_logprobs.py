"""Log-probabilities leave with the text of their tokens, never before it, and never beside a text that was changed."""

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.logprobs import Logprobs

TEXTS = st.lists(st.text("ab é🙂", min_size=1, max_size=5), max_size=10)


def tokens(text: str, size: int) -> list[dict[str, Any]]:
    """Tokens of so many bytes: characters may be cut in two."""
    raw = text.encode()
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    return [{"token": piece.decode("utf-8", "replace"), "logprob": -0.1, "bytes": list(piece)} for piece in pieces]


@given(TEXTS, st.integers(1, 4), st.sets(st.integers(0, 50)))
def test_all_leave_in_order_and_none_before_its_text(texts: list[str], size: int, places: set[int]) -> None:
    text = "".join(texts)
    given_tokens = tokens(text, size)
    logprobs = Logprobs()
    logprobs.add(given_tokens)
    ends = sorted({min(place, len(text)) for place in places} | {0, len(text)})
    left: list[dict[str, Any]] = []
    for start, end in itertools.pairwise(ends):
        left += logprobs.beside(text[start:end])
        assert sum(len(token["bytes"]) for token in left) <= len(text[:end].encode())
    assert left == given_tokens
    assert not logprobs.lost


def test_once_the_text_was_changed_none_leaves_any_more() -> None:
    logprobs = Logprobs()
    logprobs.add([{"token": token} for token in ("Write ", "to ", "hugo", "@x.de ", "now")])
    assert [token["token"] for token in logprobs.beside("Write to ")] == ["Write ", "to "]
    assert logprobs.beside("[EMAIL] ") == []
    assert logprobs.beside("now") == []
    assert logprobs.lost


def test_where_none_are_given_nothing_is_lost() -> None:
    logprobs = Logprobs()
    assert logprobs.beside("text") == []
    assert not logprobs.lost


def test_tokens_that_are_none_are_left_out() -> None:
    logprobs = Logprobs()
    logprobs.add([{"token": 7}, {"bytes": ["x"]}])
    assert logprobs.beside("text") == []
    assert logprobs.lost
