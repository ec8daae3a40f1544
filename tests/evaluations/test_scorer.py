"""One bad row costs one row; what a value is says what it means."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from watchkeeper.lake.tables import TIME
from watchkeeper_evaluations.scorer import ScorerBroken, Scores, score

NOW = datetime(2026, 4, 1, tzinfo=UTC)


class Told:
    """Scores a text by a function of it."""

    name, version, source, columns, scores = "told", "1", "a test", ("prompt_text",), ()

    def __init__(self, say: Callable[[str], Scores]) -> None:
        self.say = say
        self.calls: list[int] = []

    def score(self, batch: pa.Table) -> Sequence[Scores]:
        self.calls.append(batch.num_rows)
        return [self.say(text) for text in batch.column("prompt_text").to_pylist()]


def rows(*texts: str) -> pa.Table:
    ids = [f"{number:032x}" for number in range(len(texts))]
    return pa.table({"request_id": ids, "received_at": pa.array([NOW] * len(texts), TIME), "prompt_text": texts})


def scored(scorer: Told, batch: pa.Table) -> list[dict[str, object]]:
    table = score(scorer, batch, scored_at=NOW, evaluation_id="e")
    found: list[dict[str, object]] = table.sort_by([("request_id", "ascending"), ("name", "ascending")]).to_pylist()
    return found


def test_the_type_of_a_value_is_its_kind() -> None:
    found = scored(Told(lambda text: {"a": 0.5, "b": "short", "c": len(text) < 9}), rows("hello"))
    assert [(row["name"], row["kind"], row["value"], row["label"]) for row in found] == [
        ("a", "score", 0.5, None),
        ("b", "label", None, "short"),
        ("c", "assertion", 1.0, None),
    ]
    assert {(row["scorer"], row["scorer_version"], row["evaluation_id"]) for row in found} == {("told", "1", "e")}


def test_a_row_that_fails_gets_an_error_and_the_others_their_scores() -> None:
    def say(text: str) -> Scores:
        if text == "bad":
            raise ValueError("cannot\nread this")
        return {"told": float(len(text))}

    scorer = Told(say)
    found = scored(scorer, rows("a", "bad", "ccc"))
    assert [(row["value"], row["error"]) for row in found] == [
        (1.0, None),
        (None, "ValueError: cannot read this"),
        (3.0, None),
    ]
    assert scorer.calls == [3, 1, 1, 1]


def test_when_all_fail_it_is_the_scorer_and_no_row_is_given_up() -> None:
    def say(text: str) -> Scores:
        raise MemoryError("no room")

    with pytest.raises(ScorerBroken, match="none of 2 rows: MemoryError: no room"):
        scored(Told(say), rows("a", "b"))
    assert scored(Told(say), rows("a"))[0]["error"] == "MemoryError: no room"


def test_a_wrong_number_of_answers_is_not_spread_over_the_rows() -> None:
    class Short(Told):
        def score(self, batch: pa.Table) -> Sequence[Scores]:
            return [] if batch.num_rows > 1 else super().score(batch)

    assert [row["value"] for row in scored(Short(lambda text: {"told": 1.0}), rows("a", "b"))] == [1.0, 1.0]


def test_what_is_no_number_is_an_error_and_nothing_to_score_is_none() -> None:
    says: dict[str, Scores] = {"a": {"told": float("nan")}, "b": {}, "c": {"told": None}}
    found = scored(Told(lambda text: says[text]), rows("a", "b", "c"))
    assert [(row["name"], row["value"], row["error"]) for row in found] == [
        ("told", None, "the score is nan"),
        ("told", None, None),
        ("told", None, None),
    ]


def test_no_rows_no_scores() -> None:
    assert scored(Told(lambda text: {}), rows().slice(0, 0)) == []
