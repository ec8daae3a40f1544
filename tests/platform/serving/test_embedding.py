"""What is asked of /v1/embeddings: texts, as the official client sends them, or one clear refusal."""

import json
from typing import Any

import pytest

from watchkeeper.serving.embedding import wanted
from watchkeeper.serving.request import Refused


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": "text"} | fields).encode()


@pytest.mark.parametrize(
    ("raw", "texts", "packed"),
    [
        (body(), ["text"], False),
        (body(input=["a", "b"], encoding_format="base64", dimensions=384, user="u"), ["a", "b"], True),
        (b'{"input": "a"}', ["a"], False),
    ],
)
def test_texts_are_taken(raw: bytes, texts: list[str], packed: bool) -> None:
    asked = wanted(raw, 384)
    assert (asked.texts, asked.packed) == (texts, packed)


def test_many_texts_are_sent_in_batches_and_counted() -> None:
    asked = wanted(body(input=["ab"] * 150), 384)
    assert [len(batch) for batch in asked.batches()] == [64, 64, 22]
    assert asked.tokens(len) == 300


@pytest.mark.parametrize(
    ("raw", "param", "says"),
    [
        (b"{}", "input", "input"),
        (body(input=[]), "input", "length"),
        (body(input=""), "input", "empty"),
        (body(input=["a", ""]), "input", "empty"),
        (body(input=[1, 2]), "input", "token"),
        (body(input=[[1, 2]]), "input", "token"),
        (body(input={"a": 1}), "input", "object"),
        (body(input=["a"] * 2049), "input", "length"),
        (body(dimensions=16), "dimensions", "384"),
        (body(encoding_format="hex"), "encoding_format", "hex"),
        (b"[", None, "JSON"),
    ],
)
def test_what_is_not_taken_is_said(raw: bytes, param: str | None, says: str) -> None:
    with pytest.raises(Refused) as refused:
        wanted(raw, 384)
    assert (refused.value.status, refused.value.param) == (400, param)
    assert says in refused.value.message
