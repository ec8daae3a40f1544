"""What is older than the settings say goes, whole days at a time, and is missing nowhere for it."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from watchkeeper.feedback import Feedback
from watchkeeper.lake.alerts import AlertEvent, alert_row, open_alerts
from watchkeeper.lake.feedback import feedback_rows
from watchkeeper.lake.interactions import DAY, evaluation_row, score_rows, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import roll_up
from watchkeeper.record import Message, Record
from watchkeeper.settings import Mlflow, Retention, Settings
from watchkeeper.telemetry import ledger, retention
from watchkeeper.telemetry.accounts import Account
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.otlp import export_request
from watchkeeper.telemetry.retention import Dropped, limits, retain
from watchkeeper.tracking import Tracking, server_command
from watchkeeper.tracking.deletion import ASKED

NOON = 20_602 * DAY + DAY // 2
"""2026-05-29 12:00 UTC (µs)."""
NOW = datetime(2026, 5, 29, 12, tzinfo=UTC)
PLANTED = "my number is 079 444 55 66"
EXPLAINED = "79 444 55 66 is a phone number"

Make = Callable[..., Record]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    kept = Retention(interactions="30d", rollups="400d", evaluations="60d")
    return Settings(data=tmp_path / "data", retention=kept)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    """Served on ten days of the last hundred, each with rows in every table."""
    settings.data.mkdir()
    lake = Lake(settings.lake_uri)
    for ago in range(0, 100, 10):
        at = NOON - ago * DAY
        one = Record(request_id=f"{ago:032x}", received_at=at, prompt_text=PLANTED if ago > 30 else "hello")
        rows = to_arrow([one])
        said = Feedback(
            request_id=one.request_id, feedback_id=f"{ago:032x}", received_at=at, score=1.0, comment=one.prompt_text
        )
        lake.append("interactions", rows)
        lake.append("rollups", roll_up([one]))
        lake.append("feedback", feedback_rows([said]))
        told = [EXPLAINED if ago > 30 else None]
        lake.append(
            "scores",
            score_rows(rows, "pii", [1.0], scorer="pii", scorer_version="1", scored_at=at, explanations=told),
        )
        lake.append("evaluations", verdict(at))
    return lake


def verdict(at: int) -> Any:
    return evaluation_row(
        evaluation_id=str(at), job="toxicity", evaluated_at=at, window_start=at - 1, window_end=at, lake_version=1,
        n=1, verdict="pass", metrics={},
    )  # fmt: skip


def days(lake: Lake, table: str) -> list[int]:
    """How many days ago the rows of a table are."""
    found = lake.query(f"SELECT date FROM {table} ORDER BY date DESC").column(0).to_pylist()
    return [(date(2026, 5, 29) - day).days for day in found]


def holding(folder: Path, text: str) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_whole_days_go_and_scores_and_feedback_with_their_requests(settings: Settings, lake: Lake) -> None:
    done = {one.what: one.dropped for one in retain(settings, lake, NOW)}
    assert done == {"interactions": 6, "scores": 6, "feedback": 6, "rollups": 0, "evaluations": 3}
    for table in ("interactions", "scores", "feedback"):
        assert days(lake, table) == [0, 10, 20, 30]
    assert days(lake, "evaluations") == [0, 10, 20, 30, 40, 50, 60]
    assert {one.what: one.dropped for one in retain(settings, lake, NOW)} == dict.fromkeys(done, 0)


def test_a_day_goes_when_all_of_it_is_old_enough(settings: Settings) -> None:
    [first, *_] = limits(settings, datetime(2026, 5, 29, 23, 59, tzinfo=UTC))
    assert first == retention.Limit("interactions", 30, date(2026, 4, 29))
    [first, *_] = limits(settings, datetime(2026, 5, 30, 0, 1, tzinfo=UTC))
    assert first.before == date(2026, 4, 30)
    assert limits(Settings(data=settings.data), NOW) == [], "nothing set: for ever"


def test_what_went_is_in_no_file_any_more(settings: Settings, lake: Lake) -> None:
    """Also not in those that a crash in the middle of an append left behind, nor in a table's log."""
    folder = Path(lake.uri)
    orphan = next((folder / "interactions" / "date=2026-04-19").glob("*.parquet"))
    shutil.copy(orphan, orphan.with_name("part-left.parquet"))
    times = (0, (NOON - 40 * DAY) // 1_000_000)
    os.utime(orphan.with_name("part-left.parquet"), times)
    lake.compact("interactions", 1_000_000)
    assert holding(folder, "079 444 55 66")
    assert holding(folder, EXPLAINED)
    list(retain(settings, lake, NOW, purge=True))
    assert not holding(folder, "079 444 55 66")
    assert not holding(folder, EXPLAINED)
    assert days(lake, "interactions") == [0, 10, 20, 30]


def test_a_dry_run_counts_and_leaves_everything(settings: Settings, lake: Lake) -> None:
    version = lake.version("interactions")
    done = {one.what: one.dropped for one in retain(settings, lake, NOW, dry_run=True, purge=True)}
    assert done == {"interactions": 6, "scores": 6, "feedback": 6, "rollups": 0, "evaluations": 3}
    assert lake.version("interactions") == version
    assert not (settings.data / "ledger.sqlite").exists()


def test_what_retention_dropped_is_missing_nowhere(settings: Settings, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = lake.query("SELECT request_id FROM interactions ORDER BY 1").column(0).to_pylist()
    monkeypatch.setattr(Tracking, "trace_ids", lambda tracking, experiment: iter(ids))
    books = Deliveries(settings.data)
    count = len(ids)
    one = Account(
        segment="s",
        worker="w0",
        number=1,
        accepted=ids,
        hours=[497_222] * count,
        spooled=ids,
        accepts=(1, count),
        rows=(1, count),
    )
    books.retire(one, at=1)
    assert ledger.verify(settings).ok
    list(retain(settings, lake, NOW))
    told = ledger.verify(settings)
    assert told.ok, told
    assert (told.lake, told.expired) == (4, {"mlflow": 0, "lake": 6})
    books.note_expired("mlflow", ids[:1])
    assert ledger.verify(settings).expired == {"mlflow": 0, "lake": 6}, "noted, but it is there still"
    books.close()
    lake.delete("interactions", "request_id", ids[:1])
    lost = ledger.verify(settings)
    assert lost.missing["lake"] == ids[:1], "not by retention"
    assert not lost.ok


def test_what_comes_late_while_days_are_dropped_is_noted_before_it_goes(settings: Settings, lake: Lake) -> None:
    """A shipper that catches up may append to the very days that go, between any two steps."""

    class Busy(Lake):
        late = 0

        def query(self, *asked: Any, **version: Any) -> Any:
            found = super().query(*asked, **version)
            if Busy.late < 3:
                Busy.late += 1
                one = Record(request_id=f"{1000 + Busy.late:032x}", received_at=NOON - 50 * DAY)
                lake.append("interactions", to_arrow([one]))
            return found

    before = set(lake.query("SELECT request_id FROM interactions").column(0).to_pylist())
    list(retain(settings, Busy(lake.uri), NOW))
    left = set(lake.query("SELECT request_id FROM interactions").column(0).to_pylist())
    books = Deliveries(settings.data)
    assert books.expired("lake") == (before | {f"{1000 + n:032x}" for n in (1, 2, 3)}) - left
    books.close()


def test_a_lake_that_is_away_is_told_and_the_rest_goes_on(settings: Settings, lake: Lake) -> None:
    log = Path(lake.uri, "scores", "_delta_log")
    for file in log.iterdir():
        file.write_text("no json")
    done = {one.what: one for one in retain(settings, Lake(lake.uri), NOW)}
    assert done["scores"].dropped is None
    assert "scores: cannot be opened" in (done["scores"].error or "")
    assert done["interactions"].dropped == done["feedback"].dropped == 6


def test_nothing_is_begun_once_stopped(settings: Settings, lake: Lake) -> None:
    answers: Iterator[bool] = iter([False, True])
    done = list(retain(settings, lake, NOW, stopped=lambda: next(answers)))
    assert [one.what for one in done] == ["interactions"]
    assert msgspec.to_builtins(done[0]) == msgspec.to_builtins(Dropped("interactions", 30, date(2026, 4, 29), 6))


@pytest.fixture
def served(
    run_process: Callable[..., Any], free_port: Callable[[], int], careless_sqlite: dict[str, str], tmp_path: Path
) -> Iterator[Settings]:
    """Those of a house with a real MLflow server, as `up` starts it, and traces kept for 30 days."""
    mlflow = Mlflow(uri=f"http://127.0.0.1:{free_port()}", experiment="watchkeeper")
    settings = Settings(data=tmp_path / "data", mlflow=mlflow, retention=Retention(mlflow="30d"))
    argv, env = server_command(settings, settings.data)
    process = run_process(argv, ready=f"{settings.mlflow.uri}/health", env=env | careless_sqlite)
    yield settings
    process.stop()


def send(settings: Settings, ago: int, count: int, text: str = "hello") -> list[str]:
    """That many traces, all of the same moment `ago` days ago."""
    records = [
        Record(request_id=uuid.uuid4().hex, received_at=NOON - ago * DAY, prompt=(Message("user", text),), output_text=text)
        for _ in range(count)
    ]
    place = Tracking(settings.mlflow.uri).experiment_id(settings.mlflow.experiment)
    headers = {"content-type": "application/x-protobuf", "x-mlflow-experiment-id": place}
    answer = requests.post(f"{settings.mlflow.uri}/v1/traces", data=export_request(records), headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return [record.request_id for record in records]


@pytest.mark.servers
@pytest.mark.timeout(180)
def test_old_traces_go_and_leave_nothing_in_a_database_of_ours(served: Settings) -> None:
    lake, tracking = Lake(served.lake_uri), Tracking(served.mlflow.uri)
    [nowhere] = retain(served, lake, NOW)
    assert nowhere.dropped == 0, "there is no experiment yet"
    old = send(served, 40, ASKED + 20) + send(served, 31, 3, PLANTED)
    new = send(served, 30, 2) + send(served, 0, 2)
    assert holding(served.data, PLANTED)
    [looked] = retain(served, lake, NOW, dry_run=True)
    assert (looked.what, looked.dropped, looked.error) == ("mlflow", len(old), None)
    [done] = retain(served, lake, NOW, purge=True)
    assert (done.what, done.dropped, done.elsewhere) == ("mlflow", len(old), None)
    assert sorted(tracking.trace_ids("watchkeeper")) == sorted(new)
    assert not holding(served.data, PLANTED)
    books = Deliveries(served.data, writable=False)
    assert books.expired("mlflow") == set(old)
    books.close()
    [again] = retain(served, lake, NOW)
    assert again.dropped == 0


def test_mlflow_that_is_away_is_told(settings: Settings, lake: Lake, free_port: Callable[[], int]) -> None:
    mlflow = Mlflow(uri=f"http://127.0.0.1:{free_port()}")
    away = settings.model_copy(update={"mlflow": mlflow, "retention": Retention(mlflow="30d")})
    [done] = retain(away, lake, NOW)
    assert done.dropped is None
    assert "does not answer" in (done.error or "")


def test_an_alert_that_is_open_keeps_its_beginning(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, retention=Retention(alerts="30d"))
    lake = Lake(settings.lake_uri)
    events: list[tuple[str, AlertEvent, int]] = [
        ("over", "fired", 70), ("over", "resolved", 60), ("open", "fired", 50), ("later", "fired", 40),
        ("later", "resolved", 35), ("new", "fired", 1),
    ]  # fmt: skip
    for alert_id, event, ago in events:
        lake.append("alerts", alert_row(alert_id=alert_id, event=event, at=NOON - ago * DAY, job=alert_id))
    assert [(one.before, one.dropped) for one in retain(settings, lake, NOW)] == [(date(2026, 4, 9), 2)]
    assert open_alerts(lake).column("alert_id").to_pylist() == ["new", "open"]
    lake.append("alerts", alert_row(alert_id="open", event="resolved", at=NOON, job="open"))
    assert [one.dropped for one in retain(settings, lake, NOW)] == [3]
    assert days(lake, "alerts") == [0, 1]
