"""Records become rows whole, whatever text is in them; scores and evaluations have their rows."""

from datetime import UTC, date, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.lake.interactions import evaluation_row, score_rows, text, to_arrow
from watchkeeper.lake.tables import EVALUATIONS, INTERACTIONS, SCORES
from watchkeeper.record import ACTIONS, STAGES, Message, Record, Source, Stage, Verdict, to_builtins

AT = 1_780_056_000_000_000
any_text = st.text(st.characters(exclude_categories=()), max_size=20)
amount = st.floats(0, 1e9)
records = st.builds(
    Record,
    request_id=st.uuids().map(lambda uuid: uuid.hex),
    received_at=st.integers(0, 4_000_000_000_000_000),
    user=st.none() | any_text,
    tags=st.dictionaries(any_text, any_text, max_size=2),
    prompt=st.lists(st.builds(Message, role=st.just("user"), content=any_text), max_size=2).map(tuple),
    prompt_text=any_text,
    output_text=any_text,
    ttft_ms=st.none() | amount,
    total_ms=amount,
    stages=st.lists(st.builds(Stage, name=st.sampled_from(STAGES), offset_ms=amount, ms=amount), max_size=3).map(tuple),
    verdicts=st.lists(
        st.builds(
            Verdict,
            guard=any_text,
            target=st.just("prompt"),
            category=any_text,
            action=st.sampled_from(ACTIONS),
            score=st.none() | st.floats(0, 1),
            rule=any_text,
            version=st.just("1"),
        ),
        max_size=3,
    ).map(tuple),
    sources=st.lists(st.builds(Source, id=any_text, title=any_text, score=amount, text=any_text), max_size=2).map(tuple),
    entities=st.lists(any_text, max_size=2).map(tuple),
    redactions=st.dictionaries(any_text, st.integers(0, 9), max_size=2),
    embedding=st.none() | st.binary(min_size=768, max_size=768),
)


def speakable(value: Any) -> Any:
    """The same with what UTF-8 cannot carry replaced, as Python's own decoder of broken UTF-16 does it."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {speakable(key): speakable(item) for key, item in value.items()}
    return [speakable(item) for item in value] if isinstance(value, list | tuple) else value


@settings(max_examples=60, deadline=None)
@given(st.lists(records, max_size=4))
def test_every_record_becomes_its_row(batch: list[Record]) -> None:
    table = to_arrow(batch)
    assert table.schema == INTERACTIONS
    table.validate(full=True)
    for row, record in zip(table.to_pylist(), batch, strict=True):
        plain = speakable(to_builtins(record))
        for name in ("request_id", "user", "prompt_text", "output_text", "ttft_ms", "total_ms", "entities", "sources"):
            assert row[name] == plain[name], name
        assert row["verdicts"] == plain["verdicts"]
        assert [(s["name"], s["offset_ms"], s["ms"]) for s in row["stages"]] == [
            (s.name, s.offset_ms, s.ms) for s in record.stages
        ]
        assert msgspec.json.decode(row["prompt"]) == plain["prompt"]
        assert msgspec.json.decode(row["tags"]) == plain["tags"]
        assert row["action"] == record.action
        assert row["embedding"] == record.embedding
        assert row["received_at"].timestamp() == pytest.approx(record.received_at / 1e6, abs=1e-5)
        assert row["date"] == row["received_at"].date()


def test_paired_surrogates_are_joined_and_lone_ones_replaced() -> None:
    assert text(["\ud83d\ude00 \udfff", None, "plain"]).to_pylist() == ["😀 �", None, "plain"]


SCORED = to_arrow([Record(request_id=name, received_at=AT) for name in "abc"])


@pytest.mark.parametrize(
    ("values", "kind", "value", "label"),
    [
        ([0.25, None, 1], "score", [0.25, None, 1.0], [None] * 3),
        (np.array([0.5, np.nan, 0.75], np.float32), "score", [0.5, None, 0.75], [None] * 3),
        ([True, None, False], "assertion", [1.0, None, 0.0], [None] * 3),
        (np.array([True, False, True]), "assertion", [1.0, 0.0, 1.0], [None] * 3),
        ([None, "polite", "\ud800"], "label", [None] * 3, [None, "polite", "�"]),
    ],
)
def test_the_kind_of_a_score_follows_from_its_values(values: Any, kind: str, value: list[Any], label: list[Any]) -> None:
    at = datetime(2026, 6, 1, tzinfo=UTC)
    table = score_rows(SCORED, "n", values, scorer="s", scorer_version="1", scored_at=at, errors=[None, "why", None])
    assert table.schema == SCORES
    assert table.column("kind").to_pylist() == [kind] * 3
    assert table.column("value").to_pylist() == value
    assert table.column("label").to_pylist() == label
    assert table.column("error").to_pylist() == [None, "why", None]
    assert table.column("request_id").to_pylist() == list("abc")
    assert table.column("date").to_pylist() == [date(2026, 5, 29)] * 3, "the day of the request, not of the scoring"


def test_scores_that_do_not_match_the_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="2 values for 3 rows"):
        score_rows(SCORED, "n", [1.0, 2.0], scorer="s", scorer_version="1", scored_at=AT)


def test_an_evaluation_has_one_row() -> None:
    table = evaluation_row(
        evaluation_id="e",
        job="toxicity",
        evaluated_at=datetime(2026, 5, 29, 1, tzinfo=UTC),
        window_start=AT,
        window_end=AT + 1,
        lake_version=3,
        n=2,
        verdict="warn",
        metrics={"p95": np.float32(0.5), "gone": float("nan"), "series": np.array([1, 2]), "by": {"b": 1, "a": None}},
    )
    assert table.schema == EVALUATIONS
    row = table.to_pylist()[0]
    assert row["date"] == date(2026, 5, 29)
    assert msgspec.json.decode(row["metrics"]) == {"p95": 0.5, "gone": None, "series": [1, 2], "by": {"a": None, "b": 1}}


def test_an_evaluation_takes_only_metrics_that_json_has() -> None:
    with pytest.raises(NotImplementedError, match="object is no JSON"):
        evaluation_row(
            evaluation_id="e",
            job="toxicity",
            evaluated_at=AT,
            window_start=AT,
            window_end=AT,
            lake_version=None,
            n=0,
            verdict="unknown",
            metrics={"x": object()},
        )
