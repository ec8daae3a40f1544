"""The redactor: what was found is nowhere left, and a stream lets nothing through at any place where it may be cut."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from watchkeeper.serving.labels import Labels
from watchkeeper.serving.redact import LONGEST_SECRET, Redactor, redact, releasable

REDACT = Redactor()
KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n" + "MIIEpAIBAAKCAQEA1c7+9z5Pad7OejecsQ0bu3aozN3tihP\n" * 9
)
SECRETS = [
    "jane.doe@example.com", "+1 (415) 555-2671", "415-555-2671", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00",
    "078-05-1120", "221B Baker Street, London NW1 6XE", "Musterstraße 12, 10115 Berlin", "Calle Mayor de la Paz 15",
    "12 rue de la Paix, 75002 Paris", "P.O. Box 1234", "2001:db8:85a3::8a2e:370:7334", "john [at] example [dot] com",
    "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1B2" * 9, "password = 'hunter2x'", "my password is hunter2x",
    "date of birth: March 4, 1985",
    "postgres://admin:s3cr3tpassw0rd@db.example.com/x", "Authorization: Bearer abcdef1234567890abcdef",
    "eyJhbGciOiJIUzI1NiIsIng1YyI6" + "QUJD" * 120 + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    KEY + "-----END RSA PRIVATE KEY-----", "passport number X1234567", "邮箱是zhang@example.com，谢谢",
]  # fmt: skip
PROSE = st.text("abc déf.,;:!?\n\u200b日本()[]", max_size=12)
TEXTS = st.lists(st.one_of(PROSE, st.sampled_from(SECRETS)), max_size=6).map(" ".join)


@pytest.mark.parametrize(
    ("spans", "expected", "counts"),
    [
        ([], "0123456789", {}),
        ([(2, 4, "A")], "01[A]456789", {"A": 1}),
        ([(4, 8, "B"), (2, 5, "A")], "01[B]89", {"B": 1}),  # overlapping: the longest names them all
        ([(0, 10, "A"), (3, 5, "B")], "[A]", {"A": 1}),
        ([(0, 2, "A"), (2, 4, "A")], "[A][A]456789", {"A": 2}),
        ([(3, 3, "A")], "0123456789", {}),
    ],
)
def test_spans_become_their_categories(spans: list[tuple[int, int, str]], expected: str, counts: dict[str, int]) -> None:
    assert redact("0123456789", spans) == (expected, counts)


def test_personal_data_and_secrets_are_counted_by_category() -> None:
    text = "Mail a@b.io or c@d.io, password = 'hunter2x', call 415-555-2671."
    clean, counts = REDACT(text)
    assert clean == "Mail [EMAIL] or [EMAIL], password = '[PASSWORD]', call [PHONE]."
    assert counts == {"EMAIL": 2, "PASSWORD": 1, "PHONE": 1}


def test_what_was_found_once_is_taken_out_wherever_it_stands() -> None:
    clean, _ = REDACT("My password is hunter2x. Then I typed hunter2x, and hunter2x again; 1234567 stays.")
    assert "hunter2x" not in clean
    assert "1234567 stays" in clean


def test_a_text_without_any_stays_as_it_is() -> None:
    text = "Order 12345 of 2024-05-06: 3 items, version 1.2.3."
    assert REDACT(text) == (text, {})


@given(TEXTS)
@example("4111 1111 1111 1111415-555-2671")
@example("password='a@b.io1'a@b.io")
def test_no_found_value_survives(text: str) -> None:
    values = [text[start:end] for start, end, _ in REDACT.spans(text)]
    clean, counts = REDACT(text)
    assert not [value for value in values if len(value) > 7 and value in clean]
    assert bool(counts) == bool(values)


STYLES = st.fixed_dictionaries(
    {},
    optional={
        name: st.sampled_from(("mask", "hash", "keep")) for name in ("EMAIL", "PHONE", "PASSWORD", "API_KEY", "CARD")
    },
)


@given(TEXTS)
def test_redacting_twice_changes_nothing(text: str) -> None:
    clean, _ = REDACT(text)
    assert REDACT(clean) == (clean, {})


@given(TEXTS, st.sampled_from(("mask", "hash", "keep")), STYLES)
@example("[PASSWORD:abcdefghijklmnop]@host and [TOKEN:abcdefghijklmnop]5zzzz", "hash", {})
@example("password = jane.doe@example.com, password = jane.doe@example.com", "hash", {"PASSWORD": "keep"})
def test_nor_does_it_with_any_policy(text: str, default: Any, styles: dict[str, Any]) -> None:
    redact = Redactor(Labels(default, styles, [b"k" * 32]))
    clean, counts = redact(text)
    assert redact(clean) == (clean, {})
    assert redact(text) == (clean, counts)
    assert redact.name(redact.name(text)) == redact.name(text)


@given(st.text(st.characters(codec=None), max_size=60))
def test_no_text_breaks_it(text: str) -> None:
    clean, _ = REDACT(text)
    assert REDACT(clean)[0] == clean
    assert 0 <= releasable(text) <= len(text)


def released(text: str) -> Iterator[tuple[int, int, list[tuple[int, int, str]]]]:
    """What a stream that is cut after each character lets out: (start, end, spans known then)."""
    emitted = 0
    for length in range(1, len(text) + 1):
        spans = REDACT.spans(text[:length])
        cut = releasable(text[:length]) if length < len(text) else length
        for start, end, _ in sorted(spans, reverse=True):
            if start < cut < end:
                cut = start
        if cut > emitted:
            yield emitted, cut, spans
            emitted = cut


def leaks(text: str) -> list[str]:
    """Values of the whole text that a stream lets out in part or whole before it knows them."""
    values = REDACT.spans(text)
    return [
        text[start:end]
        for out, cut, known in released(text)
        for start, end, _ in values
        if start < cut and end > out and not any(a <= start and end <= b for a, b, _ in known)
    ]


@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_a_stream_lets_nothing_through_at_any_cut(secret: str) -> None:
    assert leaks(f"Here it is, as you asked: {secret} and that was all of it.") == []


@given(TEXTS)
@settings(max_examples=15, deadline=None)
def test_nor_do_several_of_them(text: str) -> None:
    assert leaks(text[:600]) == []


def test_prose_is_hardly_held_back() -> None:
    text = "The capital of France is Paris. It is known for its museums and for its food. " * 5
    assert len(text) - releasable(text) <= len("its food. ")


def test_no_more_is_held_back_than_needed() -> None:
    text = "a1 " * 1000
    assert len(text) - releasable(text) <= LONGEST_SECRET + 3
    assert len("日本語" * 1000) - releasable("日本語" * 1000) <= LONGEST_SECRET


@pytest.mark.parametrize("text", ["", "hi", " "])
def test_the_beginning_of_a_stream_waits(text: str) -> None:
    assert releasable(text) in {0, len(text)}
