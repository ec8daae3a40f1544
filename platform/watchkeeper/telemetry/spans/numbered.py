"""Lists that were flattened into attributes: `llm.input_messages.0.message.content`."""

from collections.abc import Callable, Mapping
from typing import Any, Final

MOST: Final = 1000
DEEPEST: Final = 20
LONGEST: Final = 9


def numbered(attributes: Mapping[str, Any], prefix: str, value_of: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """`<prefix>N.<a>.<b>` → for each N, in order, the nested {a: {b: value}}; numbers further down become lists."""
    found: dict[int, dict[str, Any]] = {}
    for key, value in attributes.items():
        if key.startswith(prefix):
            number, _, rest = key[len(prefix) :].partition(".")
            if _is_number(number) and rest and int(number) < MOST:
                _put(found.setdefault(int(number), {}), rest.split(".", DEEPEST), value_of(value))
    return [_listed(found[number]) for number in sorted(found)]


def _put(into: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        inner = into.get(name)
        if not isinstance(inner, dict):
            inner = into[name] = {}
        into = inner
    into.setdefault(path[-1], value)


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(_is_number(key) for key in value):
        return [_listed(value[key]) for key in sorted(value, key=int)]
    return {key: _listed(inner) for key, inner in value.items()}


def _is_number(text: str) -> bool:
    """A short one: of thousands of digits Python makes no number."""
    return len(text) <= LONGEST and text.isdecimal()
