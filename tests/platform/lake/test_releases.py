"""The log of releases: who served since when, and which gate let it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from watchkeeper.lake.experiments import Trial, trial_rows
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.releases import newest_gate, release_events, release_row, served
from watchkeeper.lake.tables import COMPARISONS

START = datetime(2026, 5, 29, 23, 59, 59, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def test_nothing_has_happened_yet(lake: Lake) -> None:
    assert served(lake) == []
    assert release_events(lake).num_rows == 0
    assert newest_gate(lake, "a", "b") is None


def test_who_served_since_when(lake: Lake) -> None:
    second = timedelta(seconds=1)
    lake.append("releases", release_row(at=START, event="registered", release="w@1", digest="a"))
    lake.append(
        "releases", release_row(at=START + second, event="promoted", release="w@1", digest="a", reason="first", by="ann")
    )
    lake.append("releases", release_row(at=START + 2 * second, event="registered", release="w@2", digest="b"))
    lake.append(
        "releases",
        release_row(at=START + 3 * second, event="promoted", release="w@2", digest="b", previous="w@1", previous_digest="a",
                    override=True, comparison_id="c"),
    )  # fmt: skip
    lake.append(
        "releases",
        release_row(at=START + 4 * second, event="rolled_back", release="w@1", digest="a", reason="worse", by="bob"),
    )
    newest, middle, oldest = served(lake)
    assert (newest.release, newest.since, newest.until) == ("w@1", START + 4 * second, None)
    assert (newest.event, newest.reason, newest.by, newest.override) == ("rolled_back", "worse", "bob", False)
    assert (middle.release, middle.since, middle.until) == ("w@2", START + 3 * second, START + 4 * second)
    assert (middle.previous, middle.previous_digest, middle.override, middle.comparison_id) == ("w@1", "a", True, "c")
    assert (oldest.release, oldest.since, oldest.until) == ("w@1", START + second, START + 3 * second)
    events = release_events(lake)
    assert events.column("event").to_pylist() == ["rolled_back", "promoted", "registered", "promoted", "registered"]
    assert events.column("date").to_pylist()[-1] == START.date()


def tried(lake: Lake, experiment: str, minutes: int) -> None:
    """An experiment of two releases, so long after the start."""
    at = START + timedelta(minutes=minutes)
    trials = [
        Trial(
            experiment_id=experiment, started_at=at, ended_at=at, dataset="d", dataset_digest="d", release=f"w@{digest}",
            digest=digest, n=1, failed=0, metrics={}, mlflow_run_id="run", mlflow_parent_id="parent",
        )
        for digest in ("a", "b")
    ]  # fmt: skip
    lake.append("experiments", trial_rows(trials))


def compared(
    lake: Lake, seconds: int, verdict: str | None, *, base: str = "a", candidate: str = "b", experiment: str = "first"
) -> None:
    at = START + timedelta(seconds=seconds)
    row = {"date": at.date(), "comparison_id": f"c{seconds}", "compared_at": at, "experiment_id": experiment,
           "base_digest": base, "candidate_digest": candidate, "verdict": verdict}  # fmt: skip
    lake.append("comparisons", pa.Table.from_pylist([row], schema=COMPARISONS))


def test_the_newest_verdict_over_exactly_two_contents_counts(lake: Lake) -> None:
    tried(lake, "first", 0)
    compared(lake, 1, "pass")
    compared(lake, 3, "fail")
    compared(lake, 2, "pass")
    compared(lake, 4, None)
    compared(lake, 5, "pass", base="b", candidate="a")
    compared(lake, 6, "pass", candidate="other")
    gate = newest_gate(lake, "a", "b")
    assert gate is not None
    assert (gate.comparison_id, gate.verdict, gate.compared_at) == ("c3", "fail", START + timedelta(seconds=3))
    assert newest_gate(lake, "other", "b") is None


def test_a_gate_over_an_old_experiment_does_not_overrule_a_newer_one(lake: Lake) -> None:
    tried(lake, "first", 0)
    tried(lake, "second", 1)
    compared(lake, 100, "fail", experiment="second")
    compared(lake, 200, "pass", experiment="first")
    gate = newest_gate(lake, "a", "b")
    assert gate is not None
    assert (gate.comparison_id, gate.verdict) == ("c100", "fail")
    compared(lake, 300, "unknown", experiment="second")
    again = newest_gate(lake, "a", "b")
    assert again is not None
    assert again.comparison_id == "c300"


def test_a_gate_whose_experiment_is_not_known_never_counts(lake: Lake) -> None:
    compared(lake, 1, "pass", experiment="lost")
    assert newest_gate(lake, "a", "b") is None
