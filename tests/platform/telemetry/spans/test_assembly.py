"""Parts of one trace, in whatever order they came, are one request."""

import random
from typing import Any

import pytest

from watchkeeper.record import Message, Record
from watchkeeper.telemetry.spans import Part, assemble

MS = 1_000_000
BEGUN = 1_790_000_000_000 * MS
NOW = BEGUN // 1000 + 60_000_000


def part(name: str, start_ms: float, end_ms: float, parent: str = "root", **fields: Any) -> Part:
    given: dict[str, Any] = {
        "span_id": name,
        "parent_id": parent,
        "start": BEGUN + int(start_ms * MS),
        "end": BEGUN + int(end_ms * MS),
    }
    return Part(**given | fields)


def root(**fields: Any) -> Part:
    given = {"parent": "", "place": "root", "kind": "step", "asked": "Are you open?", "answered": "Yes, until nine."}
    return part("root", 0, 1000, **given | fields)


def call(name: str, start_ms: float, end_ms: float, parent: str = "root", **fields: Any) -> Part:
    talk = [Message("user", f"asked by {name}")]
    given = {"kind": "llm", "model": "m", "input_tokens": 10, "output_tokens": 2, "messages": talk}
    return part(name, start_ms, end_ms, parent, **given | {"asked": f"asked by {name}", "answered": f"of {name}"} | fields)


def record_of(*parts: Part, arrived_at: int = NOW) -> Record:
    record = assemble("a" * 32, parts, source="otlp", arrived_at=arrived_at)
    assert record is not None
    return record


def test_several_calls_are_one_request_the_sum_of_tokens_and_the_last_answer() -> None:
    parts = [
        root(),
        part("find", 10, 60, kind="retriever"),
        part("guard", 60, 70, kind="guardrail"),
        call("first", 100, 300, asked="rewritten"),
        call("second", 400, 900, model="large", finish_reason="stop", provider="them"),
        part("after", 910, 950, kind="guardrail"),
    ]
    random.Random(7).shuffle(parts)
    record = record_of(*parts)
    assert (record.prompt_text, record.output_text) == ("Are you open?", "Yes, until nine.")
    assert record.prompt == (Message("user", "asked by second"),)
    assert (record.input_tokens, record.output_tokens) == (20, 4)
    assert (record.model, record.upstream, record.finish_reason) == ("large", "them", "stop")
    assert [(stage.name, stage.offset_ms, stage.ms) for stage in record.stages] == [
        ("ground", 10, 50),
        ("guard_in", 60, 10),
        ("generate", 100, 700),
        ("guard_out", 910, 40),
    ]
    assert record.tags == {"model_calls": "2"}
    assert (record.total_ms, record.overhead_ms, record.received_at) == (1000, 300, BEGUN // 1000)


def test_a_frameworks_span_around_a_clients_call_counts_once() -> None:
    outer = call("outer", 100, 500)
    inner = call("inner", 120, 480, parent="step")
    record = record_of(root(), outer, part("step", 110, 490, "outer", kind="step"), inner)
    assert record.input_tokens == 10
    assert record.stages[0].ms == 360


def test_without_a_root_the_calls_speak() -> None:
    record = record_of(call("first", 0, 100, parent="gone"), call("second", 200, 300, parent="gone"))
    assert (record.prompt_text, record.output_text) == ("asked by first", "of second")


def test_a_call_that_failed_and_was_tried_again_is_no_failed_request() -> None:
    record = record_of(root(), call("first", 0, 100, error="Timeout"), call("second", 200, 300))
    assert (record.error, record.status) == (None, 200)
    assert record.stages[0].status == "degraded"


def test_a_trace_that_failed_says_so() -> None:
    record = record_of(root(error="Timeout"), call("first", 0, 100, error="Timeout"))
    assert (record.error, record.status, record.stages[0].status) == ("Timeout", 500, "error")


def test_what_asked_no_model_is_no_request() -> None:
    web = part("root", 0, 10, "", place="root", kind="foreign")
    assert assemble("a" * 32, [web], source="otlp", arrived_at=NOW) is None
    embedding = part("embed", 1, 5, kind="embedding")
    assert assemble("a" * 32, [web, embedding], source="otlp", arrived_at=NOW) is None


def test_an_application_that_says_what_it_answered_needs_no_call_in_sight() -> None:
    record = record_of(root())
    assert (record.prompt_text, record.output_text, record.stages) == ("Are you open?", "Yes, until nine.", ())


@pytest.mark.parametrize("start", [0, 1, BEGUN - 8 * 86_400_000 * MS, BEGUN + 3600_000 * MS])
def test_a_clock_that_is_ahead_long_behind_or_silent_is_ours(start: int) -> None:
    record = record_of(call("first", 0, 0, start=start, end=start + 5))
    assert record.received_at == NOW


def test_nothing_is_negative_when_clocks_disagree() -> None:
    record = record_of(root(end=BEGUN), call("first", 0, 100, first_token_at=BEGUN - 5))
    assert record.ttft_ms is None
    assert record.total_ms == 100
    assert record.overhead_ms == 0


def test_session_user_and_service_come_from_whoever_knows() -> None:
    record = record_of(root(), call("first", 0, 10, session="s", user="u", service="desk", version="2"))
    assert (record.session, record.user, record.route, record.release) == ("s", "u", "desk", "desk@2")


def test_a_trace_is_the_tenants_who_sent_its_root_and_nothing_of_anothers_is_in_it() -> None:
    theirs = call("planted", 100, 200, tenant="mallory", session="stolen", cost_usd=9.0)
    record = record_of(theirs, root(tenant="acme"), call("own", 300, 400, tenant="acme"))
    assert (record.tenant, record.model, record.cost_usd, record.session) == ("acme", "m", 0.0, None)
    assert (record.input_tokens, record.prompt) == (10, (Message("user", "asked by own"),))
    assert record_of(call("first", 0, 1, tenant="acme"), call("later", 2, 3, tenant="mallory")).tenant == "acme"
