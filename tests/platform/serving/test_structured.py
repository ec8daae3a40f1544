"""Answers in JSON: what was asked for is checked, put right once, and no schema of a client's costs more than it may."""

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from watchkeeper.serving.structured import SchemaRefused, Settled, Shape, settle, shape_of

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer", "minimum": 0}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
GOOD = '{"city": "Oslo", "people": 717710}'


def shape(schema: dict[str, Any]) -> Shape:
    made = shape_of({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert made is not None
    return made


def settled(text: str, says: str | None = None, *, torn: bool = False) -> tuple[Settled, list[str]]:
    """What becomes of an answer when the model says `says` on being asked again, and what it was told."""
    told: list[str] = []

    async def ask(answer: str, problem: str) -> str | None:
        told.append(problem)
        return says

    return asyncio.run(settle(shape(CITY), text, ask, torn=torn)), told


@pytest.mark.parametrize("response_format", [None, {}, {"type": "text"}, "json", {"type": "grammar"}])
def test_other_formats_ask_for_nothing(response_format: Any) -> None:
    assert shape_of(response_format) is None


def test_a_json_object_is_one() -> None:
    any_object = shape_of({"type": "json_object"})
    assert any_object is not None
    assert any_object.problem('{"a": 1}') is None
    assert any_object.problem("[1]") == "it is not a JSON object"
    assert any_object.problem("{'a': 1}") == "it is not valid JSON"


def test_a_good_answer_stays_and_nobody_is_asked() -> None:
    assert settled(GOOD) == (Settled(GOOD, "valid"), [])


def test_what_can_be_mended_costs_no_call() -> None:
    answer, told = settled(f"```json\n{GOOD[:-1]},}}\n```")
    assert (json.loads(answer.text), answer.how, told) == (json.loads(GOOD), "mended", [])


def test_the_model_is_told_what_is_wrong_once_and_none_of_the_values() -> None:
    answer, told = settled('{"city": "Secret Harbour", "people": "many"}', f"Sorry: {GOOD}")
    assert (answer.text, answer.how) == (GOOD, "repaired")
    assert len(told) == 1
    assert "$.people" in told[0]
    assert "integer" in told[0]
    assert "many" not in told[0]


@pytest.mark.parametrize("says", [None, "I cannot", '{"city": "Oslo"}'])
def test_what_stays_wrong_is_left_as_it_came(says: str | None) -> None:
    answer, told = settled("Oslo has many people", says)
    assert (answer.text, answer.how, len(told)) == ("Oslo has many people", "invalid", 1)
    assert answer.problem == "it is not valid JSON"


def test_an_answer_that_was_cut_off_is_not_asked_for_again() -> None:
    answer, told = settled('{"city": "Oslo", "peo', GOOD, torn=True)
    assert (answer.how, told) == ("invalid", [])


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": 7}, ""),
        ({"description": "x" * 70_000}, "bytes"),
        ({"$ref": "#"}, "leads back"),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}},
            "leads back",
        ),
        ({"$ref": "#x", "$defs": {"a": {"$anchor": "x", "anyOf": [{"$ref": "#x"}]}}}, "leads back"),
        ({"properties": {"a": {"not": {"$ref": "#/properties/a"}}}}, "leads back"),
        ({"$ref": "http://127.0.0.1:9/schema"}, "not fetched"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "not fetched"),
        ({"$ref": "#/$defs/missing"}, "missing"),
        ({"properties": {"a": {"$id": "http://x/", "type": "string"}}}, "$id"),
        ({"dependencies": {"a": {"$ref": "#"}}}, "leads back"),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "not": {"id": "#a", "not": {"$ref": "#a"}}}, "id may"),
        ({"pattern": "(a"}, ""),
        ({"pattern": "(?=a)b"}, ""),
        ({"pattern": "(x{1000}){1000}"}, ""),
    ],
)
def test_hostile_schemas_are_refused_before_anybody_is_asked(schema: dict[str, Any], says: str) -> None:
    with pytest.raises(SchemaRefused) as refused:
        shape(schema)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_few_references_that_each_double_the_work_are_refused() -> None:
    chain = {f"a{at}": {"allOf": [{"$ref": f"#/$defs/a{at + 1}"}, {"$ref": f"#/$defs/a{at + 1}"}]} for at in range(25)}
    with pytest.raises(SchemaRefused, match="for one value"):
        shape({"$ref": "#/$defs/a0", "$defs": chain | {"a25": {"type": "object"}}})


def test_many_references_to_an_anchor_cost_no_more_than_they_are_long(bounded: Callable[..., None]) -> None:
    titles = map(str, itertools.count())  # one that was seen before costs nothing

    def references(count: int) -> Shape:
        return shape({"title": next(titles), "not": {"enum": [{"$ref": "#x"} for _ in range(count)]}})

    bounded(lambda: references(4_000), lambda: references(1_000))


def test_the_patterns_of_a_schema_share_what_one_may_take() -> None:
    large = r"(\w{15}){50}"
    shape({"pattern": large})
    with pytest.raises(SchemaRefused):
        shape({"allOf": [{"patternProperties": {f"{large}{at}": {}}} for at in range(500)]})
    shape({"properties": {f"p{at}": {"pattern": r"^[\w.+-]+@[\w-]+\.[\w.]+$"} for at in range(50)}})


def test_a_deep_schema_is_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(200):
        schema = {"properties": {"a": schema}}
    with pytest.raises(SchemaRefused):
        shape(schema)


def test_a_schema_may_contain_itself_where_a_value_does() -> None:
    tree = shape(
        {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}}}
    )
    assert tree.problem('{"next": {"next": {}}}') is None
    assert tree.problem('{"next": {"next": 1}}') is not None


def test_a_schema_that_contains_itself_twice_is_not_followed_into_the_depth(bounded: Callable[..., None]) -> None:
    twice = [{"properties": {"a": {"$ref": "#/$defs/n"}}}, {"properties": {"a": {"$ref": "#/$defs/n"}}}]
    doubling = shape({"$ref": "#/$defs/n", "$defs": {"n": {"allOf": twice}}})
    shallow, deep = ('{"a": ' * levels + "1" + "}" * levels for levels in (10, 40))
    assert doubling.problem(shallow) is None
    assert "too deeply" in (doubling.problem(deep) or "")
    bounded(lambda: doubling.problem(deep), lambda: doubling.problem(shallow))


def test_a_union_that_contains_itself_may_be_as_deep_as_people_write_them() -> None:
    kinds = [
        {
            "type": "object",
            "properties": {"op": {"const": name}, "left": {"$ref": "#/$defs/term"}, "right": {"$ref": "#/$defs/term"}},
            "required": ["op", "left", "right"],
            "additionalProperties": False,
        }
        for name in ("add", "sub", "mul", "div")
    ]
    term = shape({"$ref": "#/$defs/term", "$defs": {"term": {"anyOf": [{"type": "number"}, *kinds]}}})
    deep: Any = 1
    for _ in range(8):
        deep = {"op": "div", "left": deep, "right": 2}
    assert term.problem(json.dumps(deep)) is None


def test_no_pattern_takes_longer_than_the_text_is_long(bounded: Callable[..., None]) -> None:
    """One that makes others try 2^n ways, beside one that nobody stumbles over."""
    evil, mild = (shape({"type": "object", "properties": {"a": {"pattern": pattern}}}) for pattern in ("^(a+)+$", "^a+$"))
    text = json.dumps({"a": "a" * 500_000 + "!"})
    assert evil.problem(text) is not None
    bounded(lambda: evil.problem(text), lambda: mild.problem(text))
