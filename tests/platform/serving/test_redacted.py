"""A record holds nobody's data, whichever of its fields somebody wrote into: also one that is new."""

from typing import Any

import msgspec
import pytest
from msgspec import inspect

from watchkeeper.record import Message, Record, Source, Stage
from watchkeeper.serving.labels import Labels
from watchkeeper.serving.redact import Redactor
from watchkeeper.serving.redacted import OURS, SNIPPET, redacted_record

REDACT = Redactor()
PLANTED = "jane.doe@example.com"
TEXT = f"Write to {PLANTED}, and be quick."
EMPTY = Record(request_id="0" * 32, received_at=5)


def planted(kind: inspect.Type, name: str) -> Any:
    """Something of this type with the planted text in every string, for the field `name`."""
    if name == "role":
        return "user"  # one of five
    match kind:
        case inspect.StrType(pattern=pattern):
            return TEXT if pattern is None else "word"  # a stage's name, which is of the code
        case inspect.UnionType(types=types):
            return planted(next((one for one in types if isinstance(one, inspect.StrType)), types[0]), name)
        case inspect.DictType(key_type=key, value_type=value):
            return {planted(key, name) if name == "tags" else "ours": planted(value, name)}
        case inspect.VarTupleType(item_type=item):
            return [planted(item, name)]
        case inspect.StructType(fields=fields):
            return {field.name: planted(field.type, field.name) for field in fields}
        case inspect.LiteralType(values=values):
            return values[0]
        case inspect.FloatType() | inspect.IntType():
            return 1
        case inspect.BoolType():
            return True
    raise AssertionError(f"a record has a field of a type that this test does not know: {kind}")


def fields() -> dict[str, inspect.Type]:
    kind = inspect.type_info(Record)
    assert isinstance(kind, inspect.StructType)
    return {field.name: field.type for field in kind.fields}


@pytest.mark.parametrize("name", sorted(fields().keys() - OURS))
def test_no_field_that_others_write_keeps_what_they_wrote(name: str) -> None:
    plain = msgspec.to_builtins(EMPTY) | {name: planted(fields()[name], name)}
    record = msgspec.convert(plain, Record)
    assert PLANTED in str(record), "else nothing was planted"
    kept = redacted_record(record, REDACT)
    assert PLANTED not in str(kept)
    assert "[EMAIL" in str(kept)


def test_what_is_ours_stays_as_it_is() -> None:
    record = msgspec.structs.replace(EMPTY, model="m", tags={"app": "help"}, stages=(Stage("admit", 0, 1, "ok", {"n": 1}),))
    assert redacted_record(record, REDACT) == record


def test_each_text_counts_once_wherever_it_stands() -> None:
    record = msgspec.structs.replace(
        EMPTY,
        prompt=(Message("system", "Be kind."), Message("user", f"[1] Doc: call +1 415 555 2671\n\n{TEXT}")),
        prompt_text=TEXT,
        output_text=f"I wrote to {PLANTED}.",
        sources=(Source("a#1", "Doc", 1.0, "call +1 415 555 2671"),),
        tags={"mail": TEXT},
        stages=(Stage("ground", 0, 1, "ok", {"query": TEXT}),),
    )
    assert redacted_record(record, REDACT).redactions == {"EMAIL": 3, "PHONE": 1}
    assert redacted_record(msgspec.structs.replace(EMPTY, prompt_text=TEXT), REDACT).redactions == {"EMAIL": 1}


def test_what_the_guards_took_out_before_is_counted_with_it() -> None:
    record = msgspec.structs.replace(EMPTY, output_text=TEXT, redactions={"EMAIL": 2, "CARD": 1})
    assert redacted_record(record, REDACT).redactions == {"EMAIL": 3, "CARD": 1}


def test_a_passage_is_cut_after_it_was_redacted() -> None:
    text = "x " * (SNIPPET // 2 - 4) + PLANTED
    (source,) = redacted_record(msgspec.structs.replace(EMPTY, sources=(Source("a#1", "A", 1, text),)), REDACT).sources
    assert len(source.text) <= SNIPPET
    assert "jane" not in source.text


@pytest.mark.parametrize("style", ["mask", "hash"])
def test_users_and_sessions_stay_apart_where_their_names_are_redacted(style: Any) -> None:
    redact = Redactor(Labels(style))
    mails = ["a@example.com", "b@example.com", "A@Example.com"]
    first, second, again = (
        redacted_record(msgspec.structs.replace(EMPTY, user=mail, session=f"chat of {mail}"), redact) for mail in mails
    )
    assert first.user == again.user == redact.name("a@example.com")
    assert first.user != second.user
    assert first.session != second.session
    assert (first.session or "").startswith("chat of [EMAIL:")


def test_redacting_a_record_twice_changes_nothing() -> None:
    record = msgspec.structs.replace(EMPTY, user=PLANTED, prompt_text=TEXT, tags={PLANTED: PLANTED}, error=TEXT)
    for style in ("mask", "hash", "keep"):
        redact = Redactor(Labels(style))
        once = redacted_record(record, redact)
        assert redacted_record(once, redact) == once
