"""What MLflow gets: one trace a record, with what its UI needs; and nothing that a record holds can spoil a batch."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from watchkeeper.record import STAGES, Message, Record, Source, Stage, Verdict
from watchkeeper.telemetry.otlp import export_request

Make = Callable[..., Record]


def exported(*records: Record) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(export_request(records))
    (resource,) = request.resource_spans
    assert not resource.resource.attributes, "each would become a tag of every trace"
    (scope,) = resource.scope_spans
    return list(scope.spans)


def attributes(pairs: Any) -> dict[str, Any]:
    """As MLflow's server takes them: one layer of JSON off what is text."""
    return {pair.key: unquoted(plain(pair.value)) for pair in pairs}


def plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return getattr(value, str(kind))


def unquoted(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value.startswith('"') else value


def named(spans: list[Span]) -> dict[str, dict[str, Any]]:
    return {span.name: attributes(span.attributes) for span in spans}


def test_a_record_is_a_root_with_a_span_for_each_stage(make_record: Make) -> None:
    record = make_record()
    root, *stages = exported(record)
    assert root.trace_id.hex() == record.request_id
    assert root.start_time_unix_nano == record.received_at * 1000
    assert root.end_time_unix_nano - root.start_time_unix_nano == 123_000_000
    assert not root.parent_span_id
    assert [span.name for span in stages] == list(STAGES)
    assert {span.parent_span_id for span in stages} == {root.span_id}
    assert len({span.span_id for span in (root, *stages)}) == 11
    second = stages[1]
    assert second.start_time_unix_nano - root.start_time_unix_nano == 10_000_000
    assert second.end_time_unix_nano - second.start_time_unix_nano == 9_000_000
    assert root.status.code == Status.STATUS_CODE_OK


def test_ids_are_the_same_each_time_so_that_a_batch_may_be_sent_again(make_record: Make) -> None:
    record = make_record()
    assert export_request([record]) == export_request([record])


def test_the_root_carries_what_a_trace_is_found_by(make_record: Make) -> None:
    verdict = Verdict("pii", "prompt", "EMAIL", "redact", None, "email", "1")
    root = attributes(exported(make_record(session="s-1", user="u-1", route="support", verdicts=(verdict,)))[0].attributes)
    assert root["session.id"] == "s-1"
    assert root["user.id"] == "u-1"
    assert root["mlflow.traceTag.mlflow.traceName"] == "support"
    assert root["mlflow.traceTag.watchkeeper.action"] == "redact"
    assert sum(key.startswith("mlflow.traceTag.") for key in root) == 2, "each tag costs the server two statements"
    assert json.loads(root["mlflow.spanInputs"]) == {"messages": [{"role": "user", "content": "Who are you?"}]}
    assert json.loads(root["mlflow.spanOutputs"])["choices"][0]["message"] == {"role": "assistant", "content": "A model."}


def test_generate_is_a_chat_with_its_tokens_cost_and_model(make_record: Make) -> None:
    stage = Stage("generate", 1.0, 2.0, attributes={"first_token_ms": 250.0})
    generate = named(exported(make_record(stages=(stage,), cost_usd=0.25)))["generate"]
    assert generate["mlflow.spanType"] == "CHAT_MODEL"
    assert generate["mlflow.message.format"] == "openai"
    assert [turn["role"] for turn in json.loads(generate["mlflow.spanInputs"])["messages"]] == ["system", "user"]
    assert json.loads(generate["mlflow.chat.tokenUsage"]) == {"input_tokens": 11, "output_tokens": 5, "total_tokens": 16}
    assert json.loads(generate["mlflow.llm.cost"]) == {"total_cost": 0.25}
    assert generate["mlflow.llm.model"] == "smol"
    assert generate["mlflow.llm.provider"] == "local"
    assert generate["watchkeeper.first_token_ms"] == 250.0
    assert not any(key.startswith("gen_ai.") for key in generate), "nothing twice: the server's time is what bounds all"


def test_every_stage_has_a_span_type_that_mlflow_knows(make_record: Make) -> None:
    types = {name: found["mlflow.spanType"] for name, found in named(exported(make_record())).items()}
    assert types["watchkeeper"] == "CHAIN"
    assert types["ground"] == "RETRIEVER"
    assert types["embed"] == "EMBEDDING"
    assert types["guard_in"] == types["guard_out"] == "GUARDRAIL"
    assert types["preprocess"] == types["postprocess"] == "PARSER"
    assert len(types) == 11


def test_retrieved_passages_are_documents(make_record: Make) -> None:
    source = Source("handbook.md#3", "Handbook", 0.7, "Leave is 30 days.")
    ground = named(exported(make_record(sources=(source,))))["ground"]
    assert json.loads(ground["mlflow.spanOutputs"]) == [
        {
            "page_content": "Leave is 30 days.",
            "id": "handbook.md#3",
            "metadata": {"doc_uri": "handbook.md#3", "title": "Handbook", "score": 0.7},
        }
    ]


def test_verdicts_stand_on_the_guard_that_gave_them_and_all_but_pass_are_events(make_record: Make) -> None:
    prompt = Verdict("injection", "prompt", "override", "block", 0.97, "classifier", "3")
    context = Verdict("pii", "context", "none", "pass", None, "", "1")
    output = Verdict("toxicity", "output", "insult", "unknown", None, "encoder_away", "2")
    spans = {span.name: span for span in exported(make_record(verdicts=(prompt, context, output)))}
    guard_in = attributes(spans["guard_in"].attributes)
    assert guard_in["watchkeeper.guard.action"] == "block"
    assert [verdict["name"] for verdict in json.loads(guard_in["watchkeeper.guard.verdicts"])] == ["injection", "pii"]
    (event,) = spans["guard_in"].events
    assert attributes(event.attributes) == {
        "watchkeeper.guard.name": "injection",
        "watchkeeper.guard.target": "prompt",
        "watchkeeper.guard.category": "override",
        "watchkeeper.guard.action": "block",
        "watchkeeper.guard.score": 0.97,
        "watchkeeper.guard.rule": "classifier",
        "watchkeeper.guard.version": "3",
    }
    (event,) = spans["guard_out"].events
    assert attributes(event.attributes)["watchkeeper.guard.action"] == "unknown"


def test_a_verdict_whose_stage_left_no_span_is_not_lost(make_record: Make) -> None:
    verdict = Verdict("pii", "output", "EMAIL", "redact", None, "email", "1")
    (root,) = exported(make_record(stages=(), verdicts=(verdict,)))
    assert json.loads(attributes(root.attributes)["watchkeeper.guard.verdicts"])[0]["category"] == "EMAIL"


@pytest.mark.parametrize(
    ("fields", "failed"),
    [
        ({"error": "upstream_timeout", "status": 504}, True),
        ({"error": "disconnected", "status": 499}, True),
        ({"status": 500}, True),
        ({"status": 400, "finish_reason": "content_filter"}, False),
        ({}, False),
    ],
)
def test_what_failed_is_an_error(make_record: Make, fields: dict[str, Any], failed: bool) -> None:
    root = exported(make_record(**fields))[0]
    assert (root.status.code == Status.STATUS_CODE_ERROR) is failed
    assert root.status.message == fields.get("error", "")


def test_a_stage_says_how_it_went(make_record: Make) -> None:
    stages = (Stage("embed", 0.0, 1.0, "degraded"), Stage("ground", 0.0, 1.0, "error"), Stage("check", 0.0, 0.0, "skipped"))
    spans = {span.name: span for span in exported(make_record(stages=stages))}
    assert spans["ground"].status.code == Status.STATUS_CODE_ERROR
    assert spans["embed"].status.code == Status.STATUS_CODE_OK
    assert attributes(spans["embed"].attributes)["watchkeeper.stage.status"] == "degraded"
    assert attributes(spans["check"].attributes)["watchkeeper.stage.status"] == "skipped"
    assert "watchkeeper.stage.status" not in named(exported(make_record()))["embed"], "OK is the span's own status"


def test_a_request_cut_off_by_a_crash_is_a_trace_too(make_record: Make) -> None:
    cut = Record(request_id=make_record().request_id, received_at=1, release="", error="interrupted", status=500)
    (root,) = exported(cut)
    assert "mlflow.spanInputs" not in attributes(root.attributes)


def test_an_id_that_is_none_is_refused(make_record: Make) -> None:
    for name in ("", "abc", "zz" * 16, "ab" * 15):
        with pytest.raises(ValueError, match=r"not a trace id|non-hexadecimal"):
            export_request([make_record(request_id=name)])


NASTY = st.text(st.characters(exclude_categories=()), max_size=30) | st.sampled_from(
    ["\ud800", "a\0b", '{"a": 1}', "[1]", '"quoted"', "null", "NaN", "x" * 3000, "\ufeff", "[" * 300, "\ud83d\ude00"]
)
NUMBERS = st.floats() | st.sampled_from([float("nan"), float("inf"), -1.0, 1e307])
INTEGERS = st.integers() | st.sampled_from([2**63, 10**30, -(10**30)])


@given(text=NASTY, number=NUMBERS, integer=INTEGERS, at=st.integers(-(2**70), 2**70))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_record_can_spoil_its_batch(make_record: Make, text: str, number: float, integer: int, at: int) -> None:
    odd = make_record(
        received_at=at,
        prompt=(Message(text, text),),
        prompt_text=text,
        output_text=text,
        session=text,
        user=text,
        route=text,
        model=text,
        upstream=text,
        error=text,
        finish_reason=text,
        tags={text: text},
        entities=(text,),
        redactions={text: integer},
        input_tokens=integer,
        cost_usd=number,
        total_ms=number,
        ttft_ms=number,
        support=number,
        stages=(
            Stage("ground", number, number, attributes={"query": text, "n": integer, text: number}),
            Stage("generate", number, number, attributes={"first_token_ms": number}),
        ),
        verdicts=(Verdict(text, "prompt", text, "flag", number, text, text),),
        sources=(Source(text, text, number, text),),
    )
    good = make_record()
    spans = exported(odd, good)
    strings = [string for span in spans for string in _strings(span)]
    assert not any("\0" in string for string in strings)
    for string in strings:
        if string[:2] in ('{"', "[{"):
            assert "\0" not in str(_parsed(string)), "not even escaped"
    for span in spans:
        assert span.end_time_unix_nano >= span.start_time_unix_nano
        assert span.end_time_unix_nano < 1 << 63
    assert spans[-1].trace_id.hex() == good.request_id
    lifted = named(spans[:3])["watchkeeper"]
    assert len(lifted.get("mlflow.traceTag.mlflow.traceName", "")) <= 1600, "MLflow refuses a longer one, batch and all"


@pytest.mark.servers
def test_what_people_call_things_arrives_as_they_wrote_it(mlflow_uri: str, make_record: Make) -> None:
    """Also what looks like JSON: MLflow's server reads text as JSON where it can."""
    names = ["plain", "", '{"a": 1}', "[1]", '"quoted"', "null", "1", "NaN", "ünïcode \U0001f600 好", 'a"b\\c\n', "x" * 250]
    records = [
        make_record(session=f"{name}" or None, user=name or None, route=name, model=name, upstream=name, finish_reason=name)
        for name in names
    ]
    client = MlflowClient(mlflow_uri)
    experiment = client.create_experiment("what people call things")
    headers = {"x-mlflow-experiment-id": experiment, "content-type": "application/x-protobuf"}
    requests.post(f"{mlflow_uri}/v1/traces", data=export_request(records), headers=headers, timeout=60).raise_for_status()
    for name, record in zip(names, records, strict=True):
        trace = client.get_trace(f"tr-{record.request_id}")
        assert trace.info.trace_metadata.get("mlflow.trace.session", "") == name
        assert trace.info.trace_metadata.get("mlflow.trace.user", "") == name
        assert trace.info.tags.get("mlflow.traceName", "") == name
        assert trace.info.tags["watchkeeper.action"] == "pass"
        root = next(span for span in trace.data.spans if span.parent_id is None)
        assert root.attributes.get("watchkeeper.route", "") == name
        generate = next(span for span in trace.data.spans if span.name == "generate")
        assert (generate.model_name or "") == name
        assert generate.inputs["messages"][1]["content"] == "Who are you?"
        assert json.loads(generate.to_dict()["attributes"]["mlflow.chat.tokenUsage"])["total_tokens"] == 16


def _parsed(string: str) -> Any:
    try:
        return json.loads(string)
    except (ValueError, RecursionError):
        return None


def _strings(span: Span) -> list[str]:
    pairs: list[KeyValue] = [*span.attributes, *(pair for event in span.events for pair in event.attributes)]
    values = [plain(pair.value) for pair in pairs]
    return [span.name, span.status.message, *(pair.key for pair in pairs), *(v for v in values if isinstance(v, str))]
