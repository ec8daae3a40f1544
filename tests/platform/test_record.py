"""The record: frozen, whole through msgpack, and its action is the strongest verdict."""

import msgspec
import pytest

from watchkeeper.record import (
    ACTIONS,
    STAGES,
    Action,
    Message,
    Origin,
    Record,
    Source,
    Stage,
    Verdict,
    decode,
    encode,
    strongest,
    to_builtins,
)

RECORD = Record(
    request_id="0" * 31 + "1",
    received_at=1_790_000_000_000_000,
    prompt=(Message("user", "Grüße \N{SNOWMAN}"),),
    stages=(Stage("admit", 0.0, 0.1, attributes={"tenant": "default", "in_flight": 1}),),
    verdicts=(Verdict("pii", "prompt", "EMAIL", "redact", None, "email", "1"),),
    sources=(Source("a.md#1", "A", 0.5, "text"),),
    embedding=b"\x00\x01",
)


def test_msgpack_keeps_everything() -> None:
    assert decode(encode(RECORD)) == RECORD


def test_what_is_no_record_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(b"\xc1nonsense")


def test_a_record_is_frozen() -> None:
    with pytest.raises(AttributeError):
        RECORD.status = 500  # type: ignore[misc]  # that it may not be set is what is tested


def test_unknown_is_stronger_than_pass_and_block_is_strongest() -> None:
    assert strongest(["pass", "unknown"]) == "unknown"
    assert strongest(ACTIONS) == "block"
    assert strongest([]) == "pass"
    assert RECORD.action == "redact"


def test_plain_form_leaves_the_embedding_out() -> None:
    plain = to_builtins(RECORD)
    assert plain["embedding"] is None
    assert plain["prompt"][0]["content"] == "Grüße \N{SNOWMAN}"


def test_the_stages_are_the_contract() -> None:
    assert STAGES == (
        "admit", "preprocess", "embed", "ground", "guard_in", "route", "generate", "check", "guard_out", "postprocess",
    )  # fmt: skip


@pytest.mark.parametrize(("source", "action"), [("gateway", "pass"), ("otlp", "unknown"), ("mlflow", "unknown")])
def test_what_no_guard_of_ours_saw_did_not_pass(source: Origin, action: Action) -> None:
    assert Record(request_id="a" * 32, received_at=1, source=source).action == action
