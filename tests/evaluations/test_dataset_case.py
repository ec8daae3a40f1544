"""What a case can be, and what makes two of them the same."""

import hashlib

import pytest

from watchkeeper.record import Message
from watchkeeper_evaluations.dataset import Case
from watchkeeper_evaluations.dataset.case import digest

ASKED = (Message("user", "When?"),)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ((), "must end with one of the user's"),
        ((Message("user", "a"), Message("assistant", "b")), "must end with one of the user's"),
        ((Message("user", " \n"),), "the last message is empty"),
        ((Message("tool", "a"), Message("user", "b")), "message 1: role must be one of system, user, assistant"),
    ],
)
def test_what_no_release_could_be_asked_is_no_case(messages: tuple[Message, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Case(messages=messages)


def test_an_empty_reference_is_refused_because_every_answer_would_miss_it() -> None:
    with pytest.raises(ValueError, match="reference is empty"):
        Case(messages=ASKED, reference="")


def test_a_case_is_what_it_asks() -> None:
    plain = Case(messages=ASKED)
    assert plain.case_id == Case(messages=ASKED, reference="Now.", session="s", tags={"a": "b"}).case_id
    assert plain.case_id == hashlib.sha256(b'[{"role":"user","content":"When?"}]').hexdigest()[:16]
    assert plain.case_id != Case(messages=(Message("system", ""), *ASKED)).case_id


def test_the_digest_is_over_all_that_cases_hold_and_not_over_their_order() -> None:
    one, other = Case(messages=ASKED, tags={"a": "1", "b": "2"}), Case(messages=(Message("user", "Who?"),))
    assert digest([one, other]) == digest([other, one])
    assert digest([one]) == digest([Case(messages=ASKED, tags={"b": "2", "a": "1"})])
    changes: list[Case] = [
        Case(messages=ASKED),
        Case(messages=ASKED, tags={"a": "1", "b": "3"}),
        Case(messages=ASKED, tags={"a": "1", "b": "2"}, reference="x"),
        Case(messages=ASKED, tags={"a": "1", "b": "2"}, session="x"),
        Case(messages=ASKED, tags={"a": "1", "b": "2"}, request_id="x"),
    ]
    assert digest([one]) not in {digest([change]) for change in changes}
