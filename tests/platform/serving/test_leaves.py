"""The texts inside of JSON: all of them are read, escapes hide none, and what is replaced stays JSON."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.leaves import Document, Leaves, Place
from watchkeeper.serving.redact import redact

LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text('ab:\n"\\é', max_size=8)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text("kl", max_size=3), inner), max_leaves=12
)


def replaced(value: Any, wanted: str) -> Any:
    """The value with every occurrence of `wanted` among its leaves replaced."""
    leaves = Leaves(value)
    spans, at = [], leaves.text.find(wanted)
    while at >= 0:
        spans.append((at, at + len(wanted), "CARD"))
        at = leaves.text.find(wanted, at + len(wanted))
    return leaves.replaced(lambda leaf, places: redact(leaf, places)[0], spans)


@given(VALUES)
def test_nothing_found_changes_nothing(value: Any) -> None:
    assert Leaves(value).replaced(_never, []) == value
    text = json.dumps(value, indent=1)
    assert Leaves(Document(text)).replaced(_never, []) == text


def _never(leaf: str, places: Sequence[Place]) -> str:
    raise AssertionError(leaf)


@given(VALUES)
def test_every_text_is_read(value: Any) -> None:
    text = Leaves(Document(json.dumps(value))).text

    def check(part: Any) -> None:
        if isinstance(part, str):
            assert part in text
        elif isinstance(part, dict):
            check([*part.keys(), *part.values()])
        elif isinstance(part, list):
            for item in part:
                check(item)

    check(value)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"n": 4111, "m": 5}', '{"n":"[CARD]","m":5}'),
        ('{"4111": "x 4111"}', '{"[CARD]":"x [CARD]"}'),
        ('["\\u0034111"]', '["[CARD]"]'),
        ('{"n": "4111', '{"n": "[CARD]'),
        ('{"n": "\\u0034111', '{"n": "[CARD]'),
        ('{"n": 41.11}', '{"n": 41.11}'),
    ],
)
def test_what_is_found_is_replaced_wherever_it_stands(text: str, left: str) -> None:
    assert replaced(Document(text), "4111") == left


def test_a_key_tells_what_its_value_is() -> None:
    assert Leaves({"ssn": "078-05-1120", "n": [1]}).text == "ssn: 078-05-1120\nn: 1\n"


def test_what_is_too_deep_is_read_as_text() -> None:
    deep = "[" * 500 + '"4111"' + "]" * 500
    assert "4111" not in replaced(Document(deep), "4111")
