"""`watchkeeper experiment list|show` as a user types them, over a lake; what they run is tested beside its sources."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.lake.experiments import Trial, trial_rows
from watchkeeper.lake.interactions import microseconds, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder in which two releases answered one case."""
    lake = Lake(str(tmp_path / "lake"))
    names = ("watchkeeper@1", "watchkeeper@2")
    lake.append(
        "interactions",
        to_arrow(
            [
                Record(
                    request_id=f"{number:032x}", received_at=microseconds(NOON), release=name, source="replay",
                    output_text=f"{name} says " + "a lot " * 50, tags={"experiment": "experiment-1", "case": "c"},
                )
                for number, name in enumerate(names)
            ]
        ),
    )  # fmt: skip
    trials = [
        Trial(
            experiment_id="experiment-1", started_at=NOON, ended_at=NOON, dataset="billing", dataset_digest="d",
            release=name, digest=name, n=1, failed=0, metrics={"grounded": 0.25 + number}, mlflow_run_id="",
            mlflow_parent_id="parent",
        )
        for number, name in enumerate(names)
    ]  # fmt: skip
    lake.append("experiments", trial_rows(trials))
    return tmp_path


def said(watchkeeper: list[str], data: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [*watchkeeper, *words, "--data", str(data)], cwd=data, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def test_the_list_is_one_document(watchkeeper: list[str], data: Path) -> None:
    (listed,) = json.loads(said(watchkeeper, data, "experiment", "list", "--json"))
    assert (listed["experiment_id"], listed["dataset"], listed["mlflow_parent_id"]) == ("experiment-1", "billing", "parent")
    trials: list[dict[str, Any]] = listed["trials"]
    assert [(trial["release"], trial["metrics"]["grounded"]) for trial in trials] == [
        ("watchkeeper@1", 0.25),
        ("watchkeeper@2", 1.25),
    ]
    assert "experiment-1" in said(watchkeeper, data, "experiment", "list")


def test_one_is_shown_with_its_answers_if_asked(watchkeeper: list[str], data: Path) -> None:
    plain = json.loads(said(watchkeeper, data, "experiment", "show", "experiment-1", "--json"))
    assert plain["comparisons"] == []
    assert "answers" not in plain
    whole = json.loads(said(watchkeeper, data, "experiment", "show", "experiment-1", "--answers", "--json"))
    assert [answer["release"] for answer in whole["answers"]] == ["watchkeeper@1", "watchkeeper@2"]
    assert len(whole["answers"][0]["answer"]) > 300
    shown = said(watchkeeper, data, "experiment", "show", "experiment-1", "--answers")
    assert "0.25" in shown
    assert "…" in shown
