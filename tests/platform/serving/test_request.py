"""Requests: what clients send is taken as OpenAI's API takes it, and what is wrong names the parameter."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.request import Refused, needs, parse

USER = {"role": "user", "content": "Hello"}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "watchkeeper", "messages": [USER]} | fields).encode()


def test_the_least_a_client_sends() -> None:
    request = parse(body())
    assert (request.model, request.turns[0].text, request.stream) == ("watchkeeper", "Hello", False)


def test_unknown_parameters_are_forwarded_and_known_ones_are_not() -> None:
    request = parse(body(seed=7, tools=[{"type": "function"}], temperature=0.5))
    assert request.forwarded == {"seed": 7, "tools": [{"type": "function"}]}


def test_content_parts_are_joined_and_images_are_hashed() -> None:
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "this?"},
             {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]  # fmt: skip
    turn = parse(body(messages=[{"role": "user", "content": parts}])).turns[0]
    assert turn.text == "What is\nthis?"
    assert len(turn.images[0]) == 64


def test_the_newer_name_of_the_token_limit_wins() -> None:
    assert parse(body(max_tokens=5, max_completion_tokens=9)).max_tokens == 9


def test_openais_user_field_is_the_user() -> None:
    assert parse(body(user="u1")).extension.user == "u1"
    assert parse(body(user="u1", watchkeeper={"user": "u2"})).extension.user == "u2"


@pytest.mark.parametrize(("stop", "stops"), [(None, ()), ("", ()), ("END", ("END",)), (["a", "", "b"], ("a", "b"))])
def test_stop_is_one_sequence_or_several(stop: Any, stops: tuple[str, ...]) -> None:
    assert parse(body(stop=stop)).stops == stops


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({}, set()),
        ({"tools": [], "n": 1, "response_format": {"type": "text"}, "logprobs": False}, set()),
        ({"tools": [{"type": "function"}]}, {"tools"}),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "x"}]}]}, {"tools"}),
        ({"response_format": {"type": "json_object"}, "n": 2}, {"json", "n"}),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, {"vision"}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs"}),
    ],
)
def test_what_a_request_needs_of_an_upstream(fields: dict[str, Any], needed: set[str]) -> None:
    assert needs(parse(body(**fields))) == needed


def test_lone_surrogates_are_taken() -> None:
    raw = b'{"model": "watchkeeper", "messages": [{"role": "user", "content": "a\\ud800b"}]}'
    assert parse(raw).turns[0].text == "a\ud800b"


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"null", None),
        (b"[" * 100_000, None),
        (b"\xff\xfe", None),
        (body(model=None), "model"),
        (body(messages=[]), "messages"),
        (body(messages="Hello"), "messages"),
        (body(messages=["Hello"]), "messages[0]"),
        (body(messages=[{"role": "wizard", "content": "x"}]), "messages[0].role"),
        (body(messages=[{"role": "user"}]), "messages[0].content"),
        (body(messages=[USER, {"role": "user", "content": [{"type": "video"}]}]), "messages[1].content[0].type"),
        (body(n=0), "n"),
        (body(n=17), "n"),
        (body(stop=["."] * 17), "stop"),
        (body(stop=3), "stop"),
        (body(response_format={"type": "json_schema"}), "response_format"),
        (body(response_format={"type": "json_schema", "json_schema": {"schema": {"type": 5}}}), "response_format"),
        (body(max_tokens=0), "max_tokens"),
        (body(temperature=3), "temperature"),
        (body(top_p=0), "top_p"),
        (body(stream="yes"), "stream"),
        (body(watchkeeper={"colour": "red"}), "watchkeeper"),
        (body(watchkeeper={"tags": {"a": 1}}), "watchkeeper.tags[...]"),
    ],
)
def test_what_is_wrong_names_the_parameter(raw: bytes, param: str | None) -> None:
    with pytest.raises(Refused) as refused:
        parse(raw)
    assert refused.value.status == 400
    assert refused.value.param == param
    assert "\n" not in refused.value.message


KEYS = st.sampled_from(["model", "messages", "role", "content", "stream", "watchkeeper", "n", "x"])
LEAVES = st.none() | st.booleans() | st.floats() | st.text()
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20)


@given(JSON)
def test_no_json_whatsoever_does_more_than_be_refused(plain: Any) -> None:
    with contextlib.suppress(Refused):
        parse(json.dumps(plain).encode("utf-8", "surrogatepass"))


def test_lone_surrogates_are_made_sound_wherever_they_stand_but_in_texts_that_preprocessing_reads() -> None:
    bad = "\\ud800"
    call = '{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\\"a\\": \\"' + bad + '\\"}"}}'
    body = (
        '{"model": "watchkeeper", "metadata": {"a' + bad + '": ["' + bad + '"]}, "user": "u' + bad + '", "messages": ['
        '{"role": "user", "content": "hi ' + bad + ' \\ud83d\\ude00", "name": "n' + bad + '"},'
        '{"role": "assistant", "content": null, "tool_calls": [' + call + "]}]}"
    )
    request = parse(body.encode())
    assert request.turns[0].text == "hi \ud800 😀"
    assert request.extension.user == "u\ufffd"
    assert request.forwarded["metadata"] == {"a\ufffd": ["\ufffd"]}
    sent = [{key: value for key, value in turn.body.items() if key != "content"} for turn in request.turns]
    assert "\\ud800" not in json.dumps(sent)
    assert "\\ufffd" in json.dumps(sent)
