"""Feedback as clients send it: taken strictly, what is wrong names the field, and nothing personal is left in it."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.feedback import Feedback
from watchkeeper.serving.opinion import COMMENT, LABEL, USER, opinion
from watchkeeper.serving.redact import Redactor
from watchkeeper.serving.request import Refused

ID = "0123456789abcdef" * 2
REDACT = Redactor()


def parse(body: bytes) -> Feedback:
    return opinion(body, REDACT, feedback_id="f" * 32, received_at=5)


def body(**fields: Any) -> bytes:
    return json.dumps({"request_id": ID} | fields).encode()


def test_the_least_that_can_be_said() -> None:
    assert parse(body(score=1)) == Feedback(feedback_id="f" * 32, request_id=ID, received_at=5, score=1.0)
    assert parse(body(label="wrong")).label == "wrong"


def test_all_that_can_be_said() -> None:
    said = parse(body(score=0.25, comment=" Too long. ", name="helpful.v2", user="u-17", label=None))
    assert (said.score, said.comment, said.name, said.user, said.label) == (0.25, "Too long.", "helpful.v2", "u-17", None)


@pytest.mark.parametrize("given_id", [ID, f"tr-{ID}", ID.upper(), f"tr-{ID.upper()}"])
def test_the_id_may_come_as_mlflow_writes_it(given_id: str) -> None:
    assert parse(body(request_id=given_id, score=0)).request_id == ID


def test_comment_label_and_user_are_redacted() -> None:
    said = parse(body(label="ask bob@example.com", comment="call me: +1 415 555 0132", user="bob@example.com"))
    assert said.label == "ask [EMAIL]"
    assert said.user == REDACT.name("bob@example.com")
    assert "555" not in (said.comment or "")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "score"),
        ({"score": 1, "label": "good"}, "score"),
        ({"score": True}, "score"),
        ({"score": "1"}, "score"),
        ({"score": 1.0001}, "score"),
        ({"score": -0.1}, "score"),
        ({"score": math.nan}, None),
        ({"score": math.inf}, None),
        ({"score": 10**400}, "score"),
        ({"label": ""}, "label"),
        ({"label": " \n"}, "label"),
        ({"label": "x" * (LABEL + 1)}, "label"),
        ({"label": 7}, "label"),
        ({"score": 1, "comment": "x" * (COMMENT + 1)}, "comment"),
        ({"score": 1, "comment": ["x"]}, "comment"),
        ({"score": 1, "user": "x" * (USER + 1)}, "user"),
        ({"score": 1, "name": ""}, "name"),
        ({"score": 1, "name": "two words"}, "name"),
        ({"score": 1, "name": "bob@example.com"}, "name"),
        ({"score": 1, "name": "AKIAIOSFODNN7EXAMPLE"}, "name"),
        ({"score": 1, "name": "x" * 65}, "name"),
        ({"score": 1, "request_id": ID[:-1]}, "request_id"),
        ({"score": 1, "request_id": ID + "\n"}, "request_id"),
        ({"score": 1, "request_id": "tr-tr-" + ID}, "request_id"),
        ({"score": 1, "request_id": "٠" * 32}, "request_id"),
        ({"score": 1, "request_id": None}, "request_id"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str | None) -> None:
    with pytest.raises(Refused) as refused:
        parse(body(**fields))
    assert (refused.value.status, refused.value.param) == (400, param)
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'{"score": 1}', b"[" * 100_000, b"\xff", body(score=1, trace_id="x"), body(Score=1)]
)
def test_what_is_no_feedback_at_all_is_one_line(raw: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse(raw)
    assert refused.value.status == 400
    assert "\n" not in refused.value.message


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
FIELDS = ("request_id", "score", "label", "comment", "name", "user")


@given(st.dictionaries(st.sampled_from((*FIELDS, "other")), anything) | anything, st.booleans())
def test_whatever_comes_is_taken_within_bounds_or_refused(plain: Any, with_id: bool) -> None:
    if with_id and isinstance(plain, dict):
        plain = plain | {"request_id": ID}
    try:
        said = parse(json.dumps(plain).encode())
    except Refused:
        return
    assert said.request_id == ID
    assert (said.score is None) != (said.label is None)
    assert said.score is None or 0 <= said.score <= 1
    assert set(plain) <= set(FIELDS)
    assert not isinstance(plain.get("score"), bool)


@given(st.floats(0, 1), st.none() | st.text(max_size=COMMENT))
def test_every_score_in_range_is_kept_as_it_is(score: float, comment: str | None) -> None:
    said = parse(body(score=score, comment=comment))
    assert said.score == score
    assert said.comment is None or said.comment == REDACT((comment or "").strip())[0]
