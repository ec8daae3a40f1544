"""Dead letters sent again: each sink gets its own once, whatever cuts it off, and what it still refuses stays."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from watchkeeper import feedback
from watchkeeper.feedback import Feedback
from watchkeeper.lake.interactions import to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record
from watchkeeper.settings import Mlflow, Settings
from watchkeeper.telemetry import resending
from watchkeeper.telemetry.dead_letters import DeadLetter, DeadLetters
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.locks import lock
from watchkeeper.telemetry.mlflow_sink import MlflowSink
from watchkeeper.telemetry.resending import ResendingBusy, resend
from watchkeeper.telemetry.segment import segments
from watchkeeper.telemetry.sinks import Dropped, LakeSink
from watchkeeper.telemetry.spool import Spool

Make = Callable[..., Record]
FakeMlflow = Any
"""The fixture's; test modules cannot import their conftest."""


@pytest.fixture
def settings(tmp_path: Any, fake_mlflow: FakeMlflow, monkeypatch: pytest.MonkeyPatch) -> Settings:
    class Tracking:
        def __init__(self, uri: str) -> None:
            assert uri == fake_mlflow.url

        def experiment_id(self, name: str) -> str:
            return "7"

    monkeypatch.setattr("watchkeeper.telemetry.shipper.Tracking", Tracking)
    return Settings(data=tmp_path, mlflow=Mlflow(uri=fake_mlflow.url))


def poisoned(text: str) -> bool:
    return "POISON" in text


def refuse(settings: Settings, mlflow: FakeMlflow, rows: Sequence[Record | Feedback], patch: pytest.MonkeyPatch) -> None:
    """Delivers rows while both sinks refuse what is poisoned, and MLflow knows no trace but theirs."""

    async def fill() -> None:
        spool = Spool.open(settings.spool_folder, "w0")
        for row in rows:
            await spool.append(row)
        await spool.close()

    def rows_of(records: Sequence[Record]) -> pa.Table:
        if any(poisoned(record.output_text) for record in records):
            raise pa.ArrowInvalid("POISON cannot be converted")
        return to_arrow(records)

    asyncio.run(fill())
    deliveries, dead = Deliveries(settings.data), DeadLetters(settings.data)
    mlflow.answer = lambda traces: 400 if any(map(poisoned, traces.values())) else 200
    with patch.context() as context:
        context.setattr("watchkeeper.telemetry.sinks.to_arrow", rows_of)
        (segment,) = segments(settings.spool_folder).segments
        for sink in (
            MlflowSink(mlflow.url, lambda: "7", deliveries, Dropped(dead, "mlflow")),
            LakeSink(Lake(settings.lake_uri), Dropped(dead, "lake")),
        ):
            while sink.step(segment):
                pass
    deliveries.close()
    dead.close()


def in_lake(settings: Settings) -> tuple[Counter[str], int]:
    lake = Lake(settings.lake_uri)
    names: list[str] = lake.query("SELECT request_id FROM interactions").column(0).to_pylist()
    return Counter(names), lake.query("SELECT sum(n)::BIGINT FROM rollups").column(0).to_pylist()[0]


def left(settings: Settings) -> list[tuple[str, str]]:
    dead = DeadLetters(settings.data)
    found = [(one.sink, one.request_id) for one in dead]
    dead.close()
    return found


def test_letters_arrive_once_at_the_sink_that_refused_them(
    settings: Settings, fake_mlflow: FakeMlflow, make_record: Make, make_feedback: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, worse, good = make_record(output_text="POISON 1"), make_record(output_text="POISON 2"), make_record()
    said = make_feedback(unknown := "0d" * 16)
    refuse(settings, fake_mlflow, [bad, good, worse, said], monkeypatch)
    assert len(left(settings)) == 5
    fake_mlflow.answer = lambda traces: 400 if any("POISON 2" in text for text in traces.values()) else 200
    resent = resend(settings)
    assert resent.taken == {"mlflow": 1, "lake": 2}
    assert [(one.sink, one.kind, one.request_id) for one in resent.refused] == [
        ("mlflow", "record", worse.request_id),
        ("mlflow", "feedback", unknown),
    ]
    assert "HTTP 400" in resent.refused[0].reason
    assert (resent.left, resent.errors, resent.ok) == (2, {}, False)
    assert "POISON 1" in fake_mlflow.traces[bad.request_id], "whole now"
    every = Counter([bad.request_id, worse.request_id, good.request_id])
    assert in_lake(settings) == (every, 3)
    fake_mlflow.answer = lambda traces: 200
    fake_mlflow.traces[unknown] = "came meanwhile"
    again = resend(settings)
    assert (again.taken, again.refused, again.left, again.ok) == ({"mlflow": 2, "lake": 0}, [], 0, True)
    assert "POISON 2" in fake_mlflow.traces[worse.request_id]
    assert len(fake_mlflow.assessments[unknown]) == 1
    assert in_lake(settings) == (every, 3)
    assert resend(settings).ok, "there is none"


@pytest.mark.parametrize("again", [False, True])
def test_what_waited_and_died_after_others_were_sent_is_sent_too(
    settings: Settings,
    fake_mlflow: FakeMlflow,
    make_record: Make,
    make_feedback: Any,
    monkeypatch: pytest.MonkeyPatch,
    again: bool,
) -> None:
    """It was put aside before they were refused. `again`: what refuses it is its batch, tried once more."""
    bad, said = make_record(output_text="POISON"), make_feedback(unknown := "0d" * 16)
    dead = DeadLetters(settings.data)
    waits = DeadLetter(1, "mlflow", "waits", "u", 1, unknown, "feedback", feedback.encode(said), due=2)
    dead.bury([waits])
    refuse(settings, fake_mlflow, [bad], monkeypatch)
    fake_mlflow.answer = lambda traces: 200
    assert resend(settings).taken == {"mlflow": 1, "lake": 1}
    if again:
        dead.bury([msgspec.structs.replace(waits, due=None)])
    else:
        deliveries = Deliveries(settings.data)
        dropped = Dropped(dead, "mlflow")
        MlflowSink(fake_mlflow.url, lambda: "7", deliveries, dropped, spool=settings.spool_folder).tend()
        deliveries.close()
    assert (dead.count(), dead.waiting()) == (1, 0)
    assert resend(settings).refused, "nobody knows its request yet"
    fake_mlflow.traces[unknown] = "came meanwhile"
    resent = resend(settings)
    assert (resent.taken, resent.ok) == ({"mlflow": 1, "lake": 0}, True)
    assert len(fake_mlflow.assessments[unknown]) == 1
    dead.close()


@pytest.mark.parametrize("moment", ["before anything is removed", "between the tables"])
def test_what_was_cut_off_arrives_once_all_the_same(
    settings: Settings, fake_mlflow: FakeMlflow, make_record: Make, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    records = [make_record(output_text=f"POISON {number}") for number in range(5)]
    refuse(settings, fake_mlflow, records, monkeypatch)
    fake_mlflow.answer = lambda traces: 200
    with monkeypatch.context() as context:
        if moment == "between the tables":
            append = Lake.append

            def cut_off(lake: Lake, table: str, rows: pa.Table, **options: Any) -> Any:
                if table == "rollups":
                    raise ConnectionError("cut off")
                return append(lake, table, rows, **options)

            context.setattr(Lake, "append", cut_off)
        else:
            context.setattr(DeadLetters, "remove_upto", lambda *arguments: 1 / 0)
        broken = resend(settings)
    assert "lake" in broken.errors
    assert not broken.ok
    assert resend(settings).ok
    assert left(settings) == []
    assert in_lake(settings) == (Counter(record.request_id for record in records), 5)


def test_feedback_that_was_refused_is_attached_once_it_can_be(
    settings: Settings, fake_mlflow: FakeMlflow, make_record: Make, make_feedback: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a refused one MLflow has an assessment that says so: it must not stand in the way."""
    record = make_record()
    said = make_feedback(record.request_id, comment="POISON")
    fake_mlflow.judge = lambda assessment: 400 if assessment.get("rationale") == "POISON" else 200
    refuse(settings, fake_mlflow, [record, said], monkeypatch)
    assert [one.kind for one in resend(settings).refused] == ["feedback"]
    fake_mlflow.judge = lambda assessment: 200
    resent = resend(settings)
    assert (resent.taken["mlflow"], resent.ok) == (1, True)
    there = fake_mlflow.assessments[record.request_id]
    assert [one.get("rationale") for one in there] == [None, "POISON"]
    assert [one["metadata"]["watchkeeper.feedback_id"] for one in there] == [said.feedback_id] * 2


def test_a_sink_that_is_away_keeps_its_letters_and_holds_up_no_other(
    settings: Settings, fake_mlflow: FakeMlflow, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = make_record(output_text="POISON")
    refuse(settings, fake_mlflow, [bad], monkeypatch)
    fake_mlflow.answer = lambda traces: 503
    resent = resend(settings)
    assert resent.taken == {"mlflow": 0, "lake": 1}
    assert "503" in resent.errors["mlflow"]
    assert left(settings) == [("mlflow", bad.request_id)]


def test_only_one_process_sends_them(settings: Settings) -> None:
    assert lock(settings.data / resending.LOCK) is not None
    with pytest.raises(ResendingBusy, match="being sent already"):
        resend(settings)
