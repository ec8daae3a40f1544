"""A tick's work: every window once and in order, whoever fails, is killed, or is at it at the same time."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import watchkeeper_evaluations.catch_up as module
import watchkeeper_evaluations.job as job_module
from watchkeeper.carrying import standstill
from watchkeeper.lake.interactions import microseconds, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record
from watchkeeper.settings import Settings
from watchkeeper.tracking import TrackingUnavailable
from watchkeeper.tracking.assessments import Assessment, Held
from watchkeeper_evaluations import backlog
from watchkeeper_evaluations.backlog import Reach
from watchkeeper_evaluations.catch_up import Order, Report, Stretch, catch_up, cut
from watchkeeper_evaluations.timetable import Timetable

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TOXICITY, DRIFT = Timetable("toxicity", 3600, min_n=2), Timetable("drift", 3600)
FIRST = DRIFT.number(microseconds(NOON))


class Judge:
    source = "weights of a test"
    loaded = 0

    def __init__(self, version: str = "judge-1") -> None:
        self.version = version
        Judge.loaded += 1

    def score(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        if "break" in texts:
            raise RuntimeError("broken")
        return {"toxicity": np.array(["vile" in text for text in texts], np.float32)}


class Runs:
    """MLflow in memory: run id → status, and assessments; or it is away, or has no trace yet."""

    def __init__(self) -> None:
        self.away = False
        self.traceless = False
        self.assessments: list[Assessment] = []
        self.status: dict[str, str] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count()

    def __call__(self, uri: str) -> "Runs":
        return self

    def experiment_id(self, name: str) -> str:
        return name

    def log_run(self, experiment: str, run_name: str, *, finish: bool, **said: Any) -> str:
        if self.away:
            raise TrackingUnavailable("MLflow does not answer")
        with self._lock:
            run_id = f"run-{next(self._numbers)}"
            self.status[run_id] = "FINISHED" if finish else "RUNNING"
        return run_id

    def held(self, request_ids: Iterable[str]) -> dict[str, list[Held]]:
        return {
            name: [Held(one.name, dict(one.metadata)) for one in self.assessments if one.request_id == name]
            for name in request_ids
            if not self.traceless
        }

    def create(self, assessment: Assessment) -> None:
        self.assessments.append(assessment)

    def run_url(self, experiment_id: str, run_id: str) -> str:
        return f"{experiment_id}/{run_id}"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(job_module, "Tracking", runs)
    monkeypatch.setattr(job_module, "Assessments", lambda runs: runs)
    monkeypatch.setattr(module, "Tracking", runs)
    monkeypatch.setattr(module, "Assessments", lambda runs: runs)
    monkeypatch.setattr(job_module, "finish_run", lambda runs, run_id, at: runs.status.update({run_id: "FINISHED"}))
    monkeypatch.setattr(job_module, "delete_run", lambda runs, run_id: runs.status.pop(run_id))
    monkeypatch.setattr(module, "settle", lambda *arguments: None)
    return runs


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("watchkeeper_evaluations.toxicity.load", lambda settings: Judge())
    Judge.loaded = 0
    return Settings(data=tmp_path)


def fill(settings: Settings, *hours: float, text: str = "hello") -> None:
    at = [microseconds(NOON + hour * HOUR) for hour in hours]
    records = [Record(request_id=f"{t:032x}", received_at=t, prompt_text=text, output_text=text) for t in at]
    Lake(settings.lake_uri).append("interactions", to_arrow(records))


def work(settings: Settings, *orders: Order, hours: int = 6) -> list[Report]:
    reports: list[Report] = []
    now = NOON + hours * HOUR
    catch_up(settings, orders, Reach(microseconds(now), microseconds(now)), reports.append, lambda: now)
    return reports


def fresh(*timetables: Timetable) -> list[Order]:
    return [Order(timetable, None, 0) for timetable in timetables]


def rows(settings: Settings, table: str = "evaluations") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Lake(settings.lake_uri).query(f"SELECT * FROM {table}").to_pylist()
    return found


def windows(settings: Settings, job: str, judged_by: str | None = None) -> list[int]:
    """Their hours since noon, each as often as it was judged."""
    found = [row for row in rows(settings) if row["job"] == job and judged_by in (None, row["judged_by"])]
    return sorted(round((row["window_start"] - NOON) / HOUR) for row in found)


def test_every_window_once_oldest_first_across_jobs(settings: Settings, runs: Runs) -> None:
    fill(settings, 0.2, 0.4, 1.5, 4.5)
    reports = work(settings, *fresh(TOXICITY, DRIFT))
    assert windows(settings, "toxicity") == windows(settings, "drift") == list(range(6))
    judged = [(report.window, report.job) for report in reports if report.window]
    assert judged == sorted(judged, key=lambda pair: (pair[0].end, ["toxicity", "drift"].index(pair[1])))
    assert [report.error for report in reports if report.ended] == [None, None]
    assert Judge.loaded == 1
    assert set(runs.status.values()) == {"FINISHED"}
    # Windows with requests have a run, those without have none.
    assert sorted(row["mlflow_run_id"] for row in rows(settings) if row["n"]) == sorted(runs.status)
    assert {row["mlflow_run_id"] for row in rows(settings) if not row["n"]} == {None}
    assert {(row["verdict"], row["reason"]) for row in rows(settings) if not row["n"]} == {
        ("unknown", "there are no requests in the window")
    }
    assert all(row["scheduled"] for row in rows(settings))
    # As the schedule says, and not the settings.
    assert [row["verdict"] for row in rows(settings) if row["job"] == "toxicity" and row["n"] == 2] == ["pass"]


def test_again_there_is_nothing_to_do(settings: Settings, runs: Runs) -> None:
    fill(settings, 0.2, 3.5)
    work(settings, *fresh(TOXICITY, DRIFT))
    before = rows(settings)
    work(settings, *fresh(TOXICITY, DRIFT))
    assert rows(settings) == before


def test_a_long_silence_is_one_commit_without_scorers_or_runs(settings: Settings, runs: Runs) -> None:
    fill(settings, 0.5)
    work(settings, *fresh(TOXICITY), hours=1)
    lake = Lake(settings.lake_uri)
    before, loaded = lake.version("evaluations"), Judge.loaded
    work(settings, Order(TOXICITY, "toxicity@1 toxicity@judge-1", None), hours=24 * 30)
    assert windows(settings, "toxicity") == list(range(24 * 30))
    assert before is not None
    assert lake.version("evaluations") == before + 1
    assert (Judge.loaded, len(runs.status)) == (loaded, 1)


def test_nothing_is_written_while_an_erasure_is_at_work(settings: Settings, runs: Runs) -> None:
    """It takes every file that no commit names yet: one that is being written would be missing in the table for ever."""
    fill(settings, 0.5)
    work(settings, *fresh(TOXICITY), hours=1)
    before = rows(settings)
    silence = (settings, Order(TOXICITY, "toxicity@1 toxicity@judge-1", None))
    tick = threading.Thread(target=work, args=silence, kwargs={"hours": 24})
    with standstill(settings.data, 10) as under_way:
        tick.start()
        tick.join(1.0)
        assert (under_way, rows(settings)) == ((), before)
    tick.join()
    assert windows(settings, "toxicity") == list(range(24))


def test_rows_that_came_late_are_scored_and_the_window_is_not_judged_again(settings: Settings, runs: Runs) -> None:
    fill(settings, 0.5, 5.5)
    work(settings, *fresh(TOXICITY))
    before = rows(settings)
    fill(settings, 0.6, 2.5)
    judges = "toxicity@1 toxicity@judge-1"
    work(settings, Order(TOXICITY, judges, microseconds(NOON)))
    scored = Counter(row["request_id"] for row in rows(settings, "scores") if row["name"] == "toxicity.prompt")
    assert len(scored) == 4
    assert set(scored.values()) == {1}
    assert rows(settings) == before
    loaded = Judge.loaded
    work(settings, Order(TOXICITY, judges, microseconds(NOON)))
    assert Judge.loaded == loaded


def test_flagged_scores_are_assessed_once_their_trace_is_there_and_late_ones_too(settings: Settings, runs: Runs) -> None:
    fill(settings, 0.5, text="vile")
    runs.traceless = True
    work(settings, *fresh(TOXICITY), hours=1)
    assert runs.assessments == []
    runs.traceless = False
    judges = "toxicity@1 toxicity@judge-1"
    fill(settings, 1.5)
    work(settings, Order(TOXICITY, judges, None), hours=2)
    assert len(runs.assessments) == 1
    fill(settings, 0.7, text="vile")
    work(settings, Order(TOXICITY, judges, microseconds(NOON)), hours=2)
    assert len({one.request_id for one in runs.assessments}) == len(runs.assessments) == 2


def test_a_job_that_fails_stops_at_its_window_and_takes_no_other_with_it(settings: Settings, runs: Runs) -> None:
    fill(settings, 0.5)
    fill(settings, 1.2, 1.4, text="break")
    fill(settings, 2.5)
    reports = work(settings, *fresh(TOXICITY, DRIFT))
    assert windows(settings, "toxicity") == [0]
    assert windows(settings, "drift") == list(range(6))
    errors = {report.job: report.error for report in reports if report.ended}
    assert errors["drift"] is None
    assert "ScorerBroken: toxicity@judge-1 could score none of 2 rows" in str(errors["toxicity"])


def test_with_mlflow_away_windows_wait_and_none_is_skipped(settings: Settings, runs: Runs) -> None:
    fill(settings, 0.5, 1.5, 2.5)
    runs.away = True
    reports = work(settings, *fresh(DRIFT))
    assert reports[-1].error == "TrackingUnavailable: MLflow does not answer"
    assert windows(settings, "drift") == []
    runs.away = False
    work(settings, *fresh(DRIFT))
    assert windows(settings, "drift") == list(range(6))


def test_another_version_judges_every_window_anew(settings: Settings, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(settings, 0.5, 1.5)
    work(settings, *fresh(TOXICITY), hours=2)
    monkeypatch.setattr("watchkeeper_evaluations.toxicity.load", lambda settings: Judge("judge-2"))
    fill(settings, 2.5)
    # The process that asks does not know yet.
    work(settings, Order(TOXICITY, "toxicity@1 toxicity@judge-1", None), hours=3)
    assert windows(settings, "toxicity", "toxicity@1 toxicity@judge-1") == [0, 1]
    assert windows(settings, "toxicity", "toxicity@1 toxicity@judge-2") == [0, 1, 2]


def test_two_at_once_judge_each_window_once(settings: Settings, runs: Runs) -> None:
    fill(settings, *(hour + 0.5 for hour in (0, 1, 3, 4, 7, 9)))
    threads = [threading.Thread(target=work, args=(settings, *fresh(TOXICITY, DRIFT)), kwargs={"hours": 10}) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert windows(settings, "toxicity") == windows(settings, "drift") == list(range(10))
    named = [row["mlflow_run_id"] for row in rows(settings) if row["n"]]
    assert sorted(named) == sorted(runs.status)
    assert set(runs.status.values()) == {"FINISHED"}
    scored = Counter(row["request_id"] for row in rows(settings, "scores") if row["name"] == "toxicity.prompt")
    assert set(scored.values()) == {1}


def test_a_silence_that_another_has_recorded_in_part_is_recorded_once(
    settings: Settings, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings, 0.5)
    work(settings, *fresh(DRIFT), hours=1)
    real: Callable[..., list[int]] = backlog.with_requests
    others = [lambda: work(settings, Order(DRIFT, "drift@1", None), hours=4)]

    def meanwhile(lake: Lake, timetable: Timetable, numbers: range) -> list[int]:
        found = real(lake, timetable, numbers)
        if others:
            others.pop()()
        return found

    monkeypatch.setattr(backlog, "with_requests", meanwhile)
    work(settings, Order(DRIFT, "drift@1", None), hours=8)
    assert windows(settings, "drift") == list(range(8))


def test_stretches() -> None:
    assert cut(range(5, 5), []) == []
    assert cut(range(5, 8), []) == [Stretch(range(5, 8), True)]
    assert cut(range(5, 8), [5, 6, 7]) == [Stretch(range(n, n + 1), False) for n in (5, 6, 7)]
    assert cut(range(5, 9), [6]) == [Stretch(range(5, 6), True), Stretch(range(6, 7), False), Stretch(range(7, 9), True)]
    long = cut(range(5000), [])
    assert [number for stretch in long for number in stretch.numbers] == list(range(5000))
    assert len(long) == 3


def test_of_a_defect_its_place_is_told_and_nothing_that_users_wrote(
    settings: Settings, runs: Runs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def judge(*given: object) -> None:
        raise ValueError("cannot read 'my secret question'")

    fill(settings, 0.5)
    monkeypatch.setattr("watchkeeper_evaluations.drift.Drift.judge", judge)
    reports = work(settings, *fresh(DRIFT))
    error = next(report.error for report in reports if report.ended)
    assert str(error).startswith("ValueError in judge, line ")
    assert "secret" not in str(error) + caplog.text
