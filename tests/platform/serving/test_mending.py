"""JSON that is almost right: what can be put right without guessing is, and what cannot is left."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.mending import mended

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
DOCUMENTS = st.dictionaries(st.text(), VALUES) | st.lists(VALUES)


def first(text: str, *, torn: bool = False) -> Any:
    """What the first candidate that is JSON holds."""
    for candidate in mended(text, torn=torn):
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    return None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('Sure, here [it] is:\n```\n{"a": [1, 2,],}\n```\nAnything else?', {"a": [1, 2]}),
        ('The answer is {"a": "b"} as you asked.', {"a": "b"}),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
        ('{"a": {"b": [1, 2', {"a": {"b": [1, 2]}}),
        ('{"a": 12', {"a": 12}),
        ('{"it": "isn\\\'t"}', {"it": "isn't"}),
        ('{"a": "} ] \\" {"}', {"a": '} ] " {'}),
    ],
)
def test_what_models_do_wrong_is_put_right(text: str, value: Any) -> None:
    assert first(text) == value


@pytest.mark.parametrize("text", ["", "no brackets at all", '{"a": 1]', '{"a": "unclosed', '{"a": }', "{a: 1}"])
def test_what_would_be_a_guess_is_left(text: str) -> None:
    assert first(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, "price": 12', {"a": 1}),
        ('{"a": "done", "b": "not do', {"a": "done"}),
        ('{"a": "done", "b', {"a": "done"}),
        ('{"a": "done", "b":', {"a": "done"}),
        ('[{"a": 1}, {"a": 2', [{"a": 1}, {}]),
    ],
)
def test_what_a_limit_tore_is_taken_out(text: str, value: Any) -> None:
    assert first(text, torn=True) == value


@given(DOCUMENTS)
def test_what_is_right_stays_as_it_is(value: Any) -> None:
    text = json.dumps(value)
    assert next(iter(mended(text, torn=False))) == text


@given(DOCUMENTS, st.data())
def test_wherever_it_is_torn_what_is_left_is_part_of_it(value: Any, data: st.DataObject) -> None:
    text = json.dumps(value)
    cut = data.draw(st.integers(1, len(text)))
    left = next(iter(mended(text[:cut], torn=True)))
    assert _within(json.loads(left), value)


def _within(part: Any, whole: Any) -> bool:
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and _within(item, whole[key]) for key, item in part.items())
    if isinstance(whole, list) and isinstance(part, list):
        return len(part) <= len(whole) and all(map(_within, part, whole))
    return bool(part == whole)


@pytest.mark.parametrize(
    ("unit", "end", "count"),
    [("{", "", 20_000), ("[", "]", 10_000), ('{"', "", 10_000), ("[,", "", 10_000), (" ", "", 1_000_000)],
)
def test_time_is_linear(bounded: Callable[..., None], unit: str, end: str, count: int) -> None:
    short, long = (unit * many + end * many for many in (count, 4 * count))
    bounded(lambda: list(mended(long, torn=True)), lambda: list(mended(short, torn=True)))
