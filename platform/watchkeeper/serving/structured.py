"""Answers in JSON (`response_format`): is what came what was asked for? If not, it is put right once: by itself first, then
by asking the model again.

Schemas come from clients: their size, depth, references and patterns are bounded, and nothing is fetched. Knows nothing of
upstreams; whoever calls asks the model.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final
from urllib.parse import unquote

import jsonschema_rs
import msgspec

from watchkeeper.serving.leaves import DEEPEST, parsed
from watchkeeper.serving.mending import mended

INVALID_JSON: Final = "invalid_json"
"""The code of an answer that is not the JSON that was asked for."""
MOST_SCHEMA_BYTES: Final = 65_536
REMEMBERED: Final = 64
"""Schemas that are kept compiled."""
MOST_STEPS: Final = 10_000
"""Schemas that may have to look at one and the same value, each as often as there are ways to it: a few references, each
named twice by the one before, are 2^n."""
MOST_LOOKS: Final = 10_000_000
"""How often an answer's values may have to be looked at: as a schema may contain itself, and twice, an answer that is n
levels deep may take 2^n."""
_MOST_PAIRS: Final = 50_000
"""Of a schema and a value, that are counted for it."""
MOST_PROBLEM: Final = 300
_REGEX_BYTES: Final = 1_000_000
"""Of all compiled patterns of a schema together, about: they stay in memory for as long as it is remembered."""
_MASK: Final = "the value"
_IN_PLACE: Final = ("allOf", "anyOf", "oneOf")
"""Keywords whose schemas look at the same value again."""

Ask = Callable[[str, str], Awaitable[str | None]]
"""The answer that was wrong, and what is wrong with it → what the model says then; None where it cannot be asked."""


class SchemaRefused(ValueError):
    """A schema that is none, or that would cost too much. The message says what to change."""


class Shape:
    """What an answer has to be: a JSON object, or JSON that fits a schema."""

    def __init__(self, schema: dict[str, Any] | None = None) -> None:
        self._validator: Any = None
        self._looks: _Looks | None = None
        if schema is not None:
            self._validator, self._looks = _compiled(schema)

    def problem(self, text: str) -> str | None:
        """Why a text is not what it has to be, in words for a model, with none of its values; None where it is."""
        value = parsed(text)
        if value is None:
            return "it is not valid JSON"
        if self._validator is None:
            return None if isinstance(value, dict) else "it is not a JSON object"
        if self._looks is not None and self._looks.too_many(value):
            return "it is nested too deeply to be checked against its schema"
        error = next(self._validator.iter_errors(value), None)
        if error is None:
            return None
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
        return f"at ${place}: {error.message}"[:MOST_PROBLEM]


def shape_of(response_format: object) -> Shape | None:
    """A request's `response_format` → what its answer has to be; None where any text will do. Raises `SchemaRefused`."""
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if not isinstance(response_format, dict) or kind not in ("json_object", "json_schema"):
        return None
    if kind == "json_object":
        return Shape()
    named = response_format.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    if not isinstance(schema, dict):
        raise SchemaRefused("json_schema.schema: must be a JSON schema, an object")
    return Shape(schema)


_compiled_schemas: "OrderedDict[bytes, tuple[Any, _Looks | None]]" = OrderedDict()


def _compiled(schema: dict[str, Any]) -> "tuple[Any, _Looks | None]":
    """The schema's validator, and who counts its looks, where it has references. Patterns are matched in linear time:
    look-around and back-references are refused."""
    key = msgspec.json.encode(schema)
    known = _compiled_schemas.get(key)
    if known is not None:
        _compiled_schemas.move_to_end(key)
        return known
    if len(key) > MOST_SCHEMA_BYTES:
        raise SchemaRefused(f"json_schema.schema: {len(key)} bytes; at most {MOST_SCHEMA_BYTES} are taken")
    if parsed(key.decode()) is None:
        raise SchemaRefused(f"json_schema.schema: nested deeper than {DEEPEST} levels")
    looks = _check_references(schema)
    most = _REGEX_BYTES // max(1, _patterns(schema))
    try:
        compiled = jsonschema_rs.validator_for(
            schema,
            retriever=_fetch_nothing,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=most, dfa_size_limit=most),
            mask=_MASK,
        )
    except ValueError as error:  # `ValidationError` among them
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SchemaRefused(f"json_schema.schema: {message[:MOST_PROBLEM]}") from None
    made = _compiled_schemas[key] = compiled, looks
    if len(_compiled_schemas) > REMEMBERED:
        _compiled_schemas.popitem(last=False)
    return made


def _patterns(schema: dict[str, Any]) -> int:
    """How many patterns a schema has."""
    count = 0
    for part in _objects(schema):
        named = part.get("patternProperties")
        count += isinstance(part.get("pattern"), str) + (len(named) if isinstance(named, dict) else 0)
    return count


def _fetch_nothing(uri: str) -> Any:
    raise ValueError("schemas from elsewhere are not fetched")


def _check_references(schema: dict[str, Any]) -> "_Looks | None":
    """Refuses references to elsewhere, and those that lead back to themselves without going into a value: whoever follows
    them never arrives. Gives who counts the looks, where there are any."""
    some = False
    named = "id" if "draft-04" in str(schema.get("$schema")) else "$id"
    for part in _objects(schema):
        if part is not schema and isinstance(part.get(named), str):
            raise SchemaRefused(f"json_schema.schema: {named} may stand at its root only")
        for key in ("$ref", "$dynamicRef", "$recursiveRef"):
            reference = part.get(key)
            some = some or isinstance(reference, str)
            if isinstance(reference, str) and not reference.startswith("#"):
                raise SchemaRefused(f"json_schema.schema: {key} must begin with #; schemas from elsewhere are not fetched")
    anchors = _anchors(schema)
    steps: dict[int, int] = {}
    for part in _objects(schema):
        _follow(part, schema, anchors, [], steps)
    return _Looks(schema, anchors) if some else None


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in a schema."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _anchors(schema: dict[str, Any]) -> dict[str, Any]:
    """The parts of a schema that have names of their own; of several with one name, the first."""
    named: dict[str, Any] = {}
    for part in _objects(schema):
        for key in ("$anchor", "$dynamicAnchor"):
            if isinstance(part.get(key), str):
                named.setdefault(part[key], part)
    return named


def _follow(part: Any, schema: dict[str, Any], anchors: dict[str, Any], path: list[int], steps: dict[int, int]) -> int:
    """Depth first along all schemas that look at the same value; how many that are, each as often as it is come by.
    `path`: the ones we came by; `steps`: what is known."""
    if not isinstance(part, dict):
        return 0
    if id(part) in steps:
        return steps[id(part)]
    if id(part) in path or len(path) > DEEPEST:
        raise SchemaRefused("json_schema.schema: a $ref leads back to itself; nothing can ever fit it")
    path.append(id(part))
    count = 1 + sum(_follow(other, schema, anchors, path, steps) for other in _same_value(part, schema, anchors))
    path.pop()
    if count > MOST_STEPS:
        raise SchemaRefused(f"json_schema.schema: its references lead to more than {MOST_STEPS} schemas for one value")
    steps[id(part)] = count
    return count


def _same_value(part: dict[str, Any], schema: dict[str, Any], anchors: dict[str, Any]) -> Iterator[Any]:
    for key in ("$ref", "$dynamicRef", "$recursiveRef"):
        if isinstance(part.get(key), str):
            yield _target(schema, anchors, part[key])
    for key in _IN_PLACE:
        yield from part[key] if isinstance(part.get(key), list) else ()
    for key in ("not", "if", "then", "else"):
        yield part.get(key)
    for key in ("dependentSchemas", "dependencies"):
        yield from part[key].values() if isinstance(part.get(key), dict) else ()


def _target(schema: dict[str, Any], anchors: dict[str, Any], reference: str) -> Any:
    """What a reference within a schema names: by its place, or by an anchor."""
    name = reference.removeprefix("#")
    if name and not name.startswith("/"):
        return anchors.get(name)
    found: Any = schema
    for step in name.split("/")[1:]:
        step = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(step)
        elif isinstance(found, list):
            found = found[int(step)] if step.isdigit() and int(step) < len(found) else None
    return found


class _Looks:
    """Counts how often a validator may have to look at the values of an answer: at each by every way that leads to it."""

    def __init__(self, schema: dict[str, Any], anchors: dict[str, Any]) -> None:
        self._schema = schema
        self._anchors = anchors

    def too_many(self, value: Any) -> bool:
        known: dict[tuple[int, int], int] = {}

        def count(part: Any, value: Any) -> int:
            if not isinstance(part, dict):
                return 1
            pair = id(part), id(value)
            if pair not in known:
                looks = 1 + sum(count(other, value) for other in _same_value(part, self._schema, self._anchors))
                looks += sum(count(other, inner) for other, inner in _inside(part, value))
                if looks > MOST_LOOKS or len(known) >= _MOST_PAIRS:
                    raise OverflowError
                known[pair] = looks
            return known[pair]

        try:
            count(self._schema, value)
        except (OverflowError, RecursionError):
            return True
        return False


def _inside(part: dict[str, Any], value: Any) -> Iterator[tuple[Any, Any]]:
    """What a schema says of the values in a value."""
    if isinstance(value, dict):
        named, patterns = part.get("properties"), part.get("patternProperties")
        yield from ((named[key], inner) for key, inner in value.items() if isinstance(named, dict) and key in named)
        for_all = list(patterns.values()) if isinstance(patterns, dict) else []
        for_all += [part.get("additionalProperties"), part.get("unevaluatedProperties")]
        yield from ((other, inner) for other in for_all if isinstance(other, dict) for inner in value.values())
        yield from ((part["propertyNames"], key) for key in value if isinstance(part.get("propertyNames"), dict))
    elif isinstance(value, list):
        for place in ("prefixItems", "items"):
            yield from zip(part[place], value, strict=False) if isinstance(part.get(place), list) else ()
        for_all = [part.get(name) for name in ("items", "additionalItems", "contains", "unevaluatedItems")]
        yield from ((other, inner) for other in for_all if isinstance(other, dict) for inner in value)


class Settled(msgspec.Struct, frozen=True):
    """`how`: valid as it came, mended, repaired by the model, or still invalid. `problem`: what is wrong with `text`."""

    text: str
    how: str
    problem: str | None = None


async def settle(shape: Shape, text: str, ask: Ask | None, *, torn: bool) -> Settled:
    """The answer as it should be, as far as one repair gets it there. `ask` None: the model is not asked again. `torn`: the
    answer was cut off by its limit; another one would be, too."""
    problem = shape.problem(text)
    if problem is None:
        return Settled(text, "valid")
    for candidate in mended(text, torn=torn):
        if shape.problem(candidate) is None:
            return Settled(candidate, "mended")
    again = await ask(text, problem) if ask is not None and not torn else None
    for candidate in (again, *mended(again, torn=False)) if again is not None else ():
        if shape.problem(candidate) is None:
            return Settled(candidate, "repaired")
    return Settled(text, "invalid", problem)
