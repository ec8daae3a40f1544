"""The texts inside of JSON: what a guard has to read of a tool call's arguments or of an answer in JSON, and JSON with
some of them replaced.

Escapes hide nothing here, and what is replaced stays JSON: a number that is taken out becomes a string. Knows nothing of
what is looked for.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

DEEPEST: Final = 64
"""Levels. What is nested deeper is read as the text it is."""
_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})")

Change = Callable[[str, str], str]
"""A leaf, and what separates it from the next → the leaf changed."""
Place = tuple[int, int, str]


class Document(str):
    """A text that is JSON, as the arguments of a call are: its leaves are those of what it holds."""

    __slots__ = ()


class Leaves:
    """A value's texts, one a line, each after its key: `text`."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self._places: list[tuple[int, int]] = []
        pieces: list[str] = []
        at = 0

        def note(leaf: str, separator: str) -> str:
            nonlocal at
            self._places.append((at, at + len(leaf)))
            pieces.extend((leaf, separator))
            at += len(leaf) + len(separator)
            return leaf

        _rewrite(value, note)
        self.text = "".join(pieces)

    def replaced(self, replace: Callable[[str, Sequence[Place]], str], spans: Sequence[Place]) -> Any:
        """The value with `spans` of `text` replaced: `replace` gets a leaf and the spans in it, and gives the leaf anew."""
        places = iter(self._places)

        def change(leaf: str, separator: str) -> str:
            start, end = next(places)
            inside = [(max(a, start) - start, min(b, end) - start, name) for a, b, name in spans if a < end and b > start]
            return replace(leaf, inside) if inside else leaf

        return _rewrite(self._value, change)


def _rewrite(value: Any, change: Change) -> Any:
    """The value with each of its leaves changed, in an order that depends on nothing else."""
    if isinstance(value, Document):
        return _document(value, change)
    if isinstance(value, str):
        return change(value, "\n")
    if isinstance(value, dict):
        return {change(key, ": "): _rewrite(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_rewrite(item, change) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        before = str(value)
        after = change(before, "\n")
        return value if after == before else after
    return value


def _document(text: str, change: Change) -> str:
    value = parsed(text)
    if value is None:
        before = _unescaped(text)
        changed = change(before, "\n")
        return str(text) if changed == before else changed
    changed = _rewrite(value, change)
    return str(text) if changed == value else msgspec.json.encode(changed).decode()


def plain(text: str) -> str:
    """A JSON text without escapes, for those who read it as text: an escaped letter hides nothing from a redactor."""
    if "\\u" not in text:
        return text
    value = parsed(text)
    return _unescaped(text) if value is None else msgspec.json.encode(value).decode()


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


def parsed(text: str) -> Any:
    """What a JSON text holds; None where it is none (or `null`), or one too deep to be walked through."""
    try:
        value = msgspec.json.decode(str(text))  # which takes no subclass
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None
    return value if _shallow(value, DEEPEST) else None


def _shallow(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    items = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_shallow(item, levels - 1) for item in items)
