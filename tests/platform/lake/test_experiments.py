"""Experiments and comparisons through a real lake: what is written is what a page reads."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from watchkeeper.lake import experiments
from watchkeeper.lake.experiments import Compared, Given, Trial
from watchkeeper.lake.interactions import microseconds, score_rows, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record

LATE = datetime(2026, 4, 1, 23, 59, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def trial(release: str, experiment: str = "experiment-1", at: datetime = LATE, **more: Any) -> Trial:
    given: dict[str, Any] = {
        "experiment_id": experiment,
        "started_at": at,
        "ended_at": at + timedelta(minutes=5),
        "dataset": "billing",
        "dataset_digest": "d" * 64,
        "release": release,
        "digest": "e" * 64,
        "n": 2,
        "failed": 0,
        "metrics": {"grounded": 0.5, "total_ms.p95": 12.0},
        "mlflow_run_id": f"run-{release}",
        "mlflow_parent_id": "parent",
    }
    return Trial(**(given | more))


def record(number: int, release: str, case: str, experiment: str = "experiment-1", **more: Any) -> Record:
    given: dict[str, Any] = {
        "request_id": f"{number:032x}",
        "received_at": microseconds(LATE + timedelta(seconds=30 * number)),
        "prompt_text": f"the prompt of {case}",
        "output_text": f"{release} on {case}",
        "release": release,
        "session": f"session of {case}",
        "source": "replay",
        "tags": {"experiment": experiment, "case": case, "dataset": "billing"},
    }
    return Record(**(given | more))


def append(lake: Lake, *trials: Trial) -> None:
    lake.append("experiments", experiments.trial_rows(trials))


def compared(number: int, **more: Any) -> Compared:
    given: dict[str, Any] = {
        "comparison_id": f"comparison-{number}",
        "compared_at": LATE + timedelta(minutes=number),
        "experiment_id": "experiment-1",
        "dataset": "billing",
        "dataset_digest": "d" * 64,
        "base": "watchkeeper@1",
        "base_digest": "a" * 64,
        "candidate": "watchkeeper@2",
        "candidate_digest": "b" * 64,
        "n": 2,
        "result": {"n": 2, "metrics": [{"name": "grounded", "delta": 0.5}]},
        "mlflow_run_id": "run",
    }
    return Compared(**(given | more))


def test_trials_come_back_as_they_were_written(lake: Lake) -> None:
    assert experiments.newest_trials(lake) == []
    append(lake, trial("watchkeeper@1"), trial("watchkeeper@2", failed=1))
    assert experiments.trials(lake, "experiment-1") == [trial("watchkeeper@1"), trial("watchkeeper@2", failed=1)]
    assert experiments.trials(lake, "experiment-2") == []
    day = lake.query("SELECT DISTINCT date FROM experiments").to_pylist()
    assert day == [{"date": LATE.date()}]


def test_the_newest_experiments_come_first_and_whole(lake: Lake) -> None:
    for number in range(4):
        at = LATE + timedelta(hours=number)
        append(lake, *(trial(f"watchkeeper@{version}", f"experiment-{number}", at) for version in (2, 1)))
    found = [(each.experiment_id, each.release) for each in experiments.newest_trials(lake, limit=2)]
    assert found == [(f"experiment-{n}", f"watchkeeper@{version}") for n in (3, 2) for version in (1, 2)]


def test_the_newest_experiment_that_tried_both(lake: Lake) -> None:
    one, two = ("watchkeeper@1", "a" * 64), ("watchkeeper@2", "b" * 64)
    append(lake, trial(one[0], digest=one[1]), trial(two[0], digest=two[1]))
    append(lake, trial(two[0], "experiment-2", LATE + timedelta(hours=1), digest=two[1]))
    assert experiments.newest_with(lake, two, one) == "experiment-1"
    assert experiments.newest_with(lake, two) == "experiment-2"
    assert experiments.newest_with(lake, one, ("watchkeeper@3", "c" * 64)) is None


def test_an_experiment_on_another_content_of_that_name_is_none_that_tried_it(lake: Lake) -> None:
    append(lake, trial("watchkeeper@1", digest="old"), trial("watchkeeper@2", digest="b"))
    assert experiments.newest_with(lake, ("watchkeeper@1", "new"), ("watchkeeper@2", "b")) is None
    assert experiments.newest_with(lake, ("watchkeeper@1", "b"), ("watchkeeper@2", "old")) is None, "nor the other's"
    assert experiments.digests(lake, "watchkeeper@1") == {"old"}
    assert experiments.digests(lake, "watchkeeper@3") == set()


def test_gates_of_the_newest_experiment_come_first(lake: Lake) -> None:
    for number in (1, 2):
        append(lake, trial("watchkeeper@1", f"experiment-{number}", LATE + timedelta(hours=number)))
    for row in (
        compared(1, experiment_id="experiment-2", verdict="fail"),
        compared(2, experiment_id="experiment-1", verdict="pass"),
        compared(3, experiment_id="experiment-2", verdict="unknown"),
        compared(4, experiment_id="experiment-2"),
        compared(5, experiment_id="lost", verdict="pass"),
    ):
        lake.append("comparisons", experiments.comparison_row(row))
    found = [gate.comparison_id for gate in experiments.gates(lake)]
    assert found == ["comparison-3", "comparison-1", "comparison-2"]
    assert [gate.comparison_id for gate in experiments.gates(lake, limit=1)] == ["comparison-3"]


def test_answers_have_their_scores_also_past_midnight(lake: Lake) -> None:
    records = [
        record(0, "watchkeeper@1", "a"),
        record(1, "watchkeeper@2", "a"),
        record(3, "watchkeeper@1", "b", error="upstream_timeout", status=504, output_text=""),
        record(4, "watchkeeper@2", "b", tags={"experiment": "experiment-1", "case": "b", "repeat": "1"}),
        record(5, "watchkeeper@2", "b", experiment="experiment-2"),
        record(6, "watchkeeper@2", "b", source="gateway"),
    ]
    rows = to_arrow(records)
    lake.append("interactions", rows)
    said: dict[str, list[Any]] = {"support": [0.5, None, 0.25, 1.0], "language": ["en", "de", None, "en"]}
    for name, values in said.items():
        scored = score_rows(
            rows.slice(0, 4), name, values, scorer="s", scorer_version="1", scored_at=LATE,
            evaluation_id="experiment-1", replay=True, errors=[None, "broken", None, None],
        )  # fmt: skip
        lake.append("scores", scored)
    assert experiments.answers(lake, "experiment-1") == [], "it is not finished before it has its row"
    append(lake, trial("watchkeeper@1"), trial("watchkeeper@2"))
    found = experiments.answers(lake, "experiment-1")
    assert [(each.case_id, each.repeat, each.release) for each in found] == [
        ("a", 0, "watchkeeper@1"),
        ("a", 0, "watchkeeper@2"),
        ("b", 0, "watchkeeper@1"),
        ("b", 1, "watchkeeper@2"),
    ]
    first, second, failed, _ = found
    assert (first.prompt, first.answer, first.session) == ("the prompt of a", "watchkeeper@1 on a", "session of a")
    assert first.scores == {"language": Given("label", None, "en"), "support": Given("score", 0.5)}
    assert second.scores["support"] == Given("score", None, None, "broken")
    assert (failed.failed, failed.error, failed.status, failed.answer) == (True, "upstream_timeout", 504, "")
    assert [each.request_id for each in experiments.answers(lake, "experiment-1", "watchkeeper@1")] == [
        first.request_id,
        failed.request_id,
    ]


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        ({}, False),
        ({"status": 400}, True),
        ({"error": "upstream_unavailable", "status": 502}, True),
        ({"finish_reason": "content_filter"}, True),
        ({"finish_reason": "length"}, False),
    ],
)
def test_an_answer_that_nobody_got_has_failed(lake: Lake, outcome: dict[str, Any], failed: bool) -> None:
    lake.append("interactions", to_arrow([record(0, "watchkeeper@1", "a", **outcome)]))
    append(lake, trial("watchkeeper@1"))
    assert [each.failed for each in experiments.answers(lake, "experiment-1")] == [failed]


def test_comparisons_and_gates_newest_first(lake: Lake) -> None:
    gate = compared(2, verdict="fail", reason="grounded is worse", policy={"rules": []})
    for row in (compared(1), gate, compared(3, experiment_id="experiment-2")):
        lake.append("comparisons", experiments.comparison_row(row))
    assert experiments.comparisons(lake, "experiment-1") == [gate, compared(1)]
    assert [each.comparison_id for each in experiments.comparisons(lake, limit=2)] == ["comparison-3", "comparison-2"]
    assert msgspec.json.decode(msgspec.json.encode(gate), type=Compared) == gate


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        experiments.trial_rows([trial("watchkeeper@1", at=LATE.replace(tzinfo=None))])
