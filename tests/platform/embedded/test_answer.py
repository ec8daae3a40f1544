"""Answers that grow: pieces that are sent are whole characters and hold no stop sequence."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.embedded.answer import BROKEN, Answer

texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters=BROKEN), max_size=40)
cuts = st.lists(st.integers(1, 5), min_size=1, max_size=20)


def pieces(tokens: Sequence[bytes], stops: Sequence[str] = ()) -> tuple[list[str], bool]:
    """What an answer of these tokens sends, and whether a stop sequence ended it."""
    answer = Answer(lambda ids: b"".join(tokens[index] for index in ids).decode(errors="replace"), stops)
    sent = []
    for index in range(len(tokens)):
        sent.append(answer.add(index))
        if answer.stopped:
            break
    sent.append(answer.finish())
    return sent, answer.stopped


def cut(data: bytes, lengths: Sequence[int]) -> list[bytes]:
    """The bytes in tokens of the given lengths, again and again."""
    tokens: list[bytes] = []
    start = 0
    while start < len(data):
        length = lengths[len(tokens) % len(lengths)]
        tokens.append(data[start : start + length])
        start += length
    return tokens


@given(texts, cuts)
def test_the_pieces_are_the_text_and_never_half_a_character(text: str, lengths: list[int]) -> None:
    sent, stopped = pieces(cut(text.encode(), lengths))
    assert "".join(sent) == text
    assert not stopped
    assert not any(BROKEN in piece for piece in sent)


@given(st.binary(max_size=30), cuts)
def test_bytes_that_are_no_text_lose_only_what_is_broken_at_the_end(data: bytes, lengths: list[int]) -> None:
    sent, _ = pieces(cut(data, lengths))
    assert "".join(sent).rstrip(BROKEN) == data.decode(errors="replace").rstrip(BROKEN)


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3), cuts)
def test_nothing_of_a_stop_sequence_is_sent(text: str, stops: list[str], lengths: list[int]) -> None:
    sent, stopped = pieces(cut(text.encode(), lengths), stops)
    assert stopped == any(stop in text for stop in stops)
    answered = "".join(sent)
    assert text.startswith(answered)
    assert not any(stop in answered for stop in stops)
    if not stopped:
        assert answered == text


def test_what_may_become_a_stop_sequence_waits_for_the_next_token() -> None:
    sent, stopped = pieces([b"one ", b"EN", b"T", b" END", b" two"], ["END"])
    assert sent == ["one ", "", "ENT", " ", ""]
    assert stopped


def test_the_earliest_of_several_stop_sequences_ends_the_answer() -> None:
    assert pieces([b"a b c d"], ["c", "b"]) == (["a ", ""], True)


def test_a_character_of_four_tokens_is_sent_when_it_is_whole() -> None:
    assert pieces([bytes([byte]) for byte in "⚓🚢".encode()])[0] == ["", "", "⚓", "", "", "", "🚢", ""]


def test_a_character_that_was_cut_off_is_left_out() -> None:
    assert "".join(pieces([b"ship ", "🚢".encode()[:3]])[0]) == "ship "
