"""Feedback reaches MLflow once, on the trace of its request, wherever that request's record is at that moment."""

import asyncio
import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from watchkeeper import feedback
from watchkeeper.feedback import Feedback
from watchkeeper.record import Record
from watchkeeper.telemetry.dead_letters import DeadLetters
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.mlflow_sink import MlflowSink
from watchkeeper.telemetry.segment import segments
from watchkeeper.telemetry.shipper import Feed
from watchkeeper.telemetry.sinks import Dropped, SinkUnavailable
from watchkeeper.telemetry.spool import Spool
from watchkeeper.tracking import TrackingUnavailable

Make = Callable[..., Record]
Say = Callable[..., Feedback]
FakeMlflow = Any
"""The fixture's; test modules cannot import their conftest."""

pytestmark = pytest.mark.anyio
NOWHERE = "0d" * 16


@pytest.fixture
def now() -> list[float]:
    """What the sinks' clock says, in seconds."""
    return [1000.0]


@pytest.fixture
def sink(
    tmp_path: Path, dead: DeadLetters, fake_mlflow: FakeMlflow, deliveries: Deliveries, now: list[float]
) -> Callable[..., MlflowSink]:
    """A sink as a shipper that was just started has it."""

    def clock() -> float:
        return now[0]

    def make(**options: Any) -> MlflowSink:
        dropped = Dropped(dead, "mlflow", clock)
        return MlflowSink(
            fake_mlflow.url, lambda: "7", deliveries, dropped, spool=tmp_path / "spool", clock=clock, **options
        )

    return make


def spooled(folder: Path, rows: Sequence[Record | Feedback], worker: str = "w0") -> None:
    async def fill() -> None:
        spool = Spool.open(folder / "spool", worker)
        for row in rows:
            await spool.append(row)
        await spool.close()

    asyncio.run(fill())


def drain(sink: MlflowSink, folder: Path) -> None:
    for segment in segments(folder / "spool").segments:
        while sink.step(segment):
            pass
        assert sink.position(segment) == segment.last


def kept(mlflow: FakeMlflow, request_id: str) -> list[str]:
    return [one["metadata"]["watchkeeper.feedback_id"] for one in mlflow.assessments.get(request_id, [])]


def test_feedback_becomes_an_assessment_of_a_person_on_its_trace(
    tmp_path: Path, dead: DeadLetters, fake_mlflow: FakeMlflow, sink: Any, make_record: Make, make_feedback: Say
) -> None:
    record = make_record()
    score = make_feedback(record.request_id, score=0.0, comment="wrong \0 year", user="ann")
    label = make_feedback(record.request_id, score=None, label="rude", name="tone")
    spooled(tmp_path, [record, score, label])
    drain(sink(), tmp_path)
    first, second = fake_mlflow.assessments[record.request_id]
    assert first == {
        "assessment_name": "feedback",
        "trace_id": f"tr-{record.request_id}",
        "source": {"source_type": "HUMAN", "source_id": "ann"},
        "create_time": "2026-09-21T14:14:20.000Z",
        "last_update_time": "2026-09-21T14:14:20.000Z",
        "feedback": {"value": 0.0},
        "rationale": "wrong \ufffd year",
        "metadata": {"watchkeeper.feedback_id": score.feedback_id},
        "valid": True,
    }
    assert (second["assessment_name"], second["feedback"]) == ("tone", {"value": "rude"})
    assert second["source"]["source_id"] == "anonymous"
    assert "rationale" not in second
    assert list(dead) == []


def test_a_batch_that_is_delivered_again_attaches_nothing_twice(
    tmp_path: Path, fake_mlflow: FakeMlflow, sink: Any, deliveries: Deliveries, make_record: Make, make_feedback: Say
) -> None:
    records = [make_record() for _ in range(3)]
    said = [make_feedback(record.request_id) for record in records]
    spooled(tmp_path, [*records, *said])
    calls: list[int] = []

    def breaks(assessment: dict[str, Any]) -> int:
        calls.append(1)
        return 200 if len(calls) != 3 else 503

    fake_mlflow.judge = breaks
    (segment,) = segments(tmp_path / "spool").segments
    with pytest.raises(TrackingUnavailable):
        sink().step(segment)
    assert deliveries.cursor("mlflow", segment.uid) == 0
    drain(sink(), tmp_path)
    deliveries.advance("mlflow", segment.uid, 0)  # killed before the cursor was written
    drain(sink(), tmp_path)
    assert [kept(fake_mlflow, one.request_id) for one in said] == [[one.feedback_id] for one in said]


@pytest.mark.parametrize("limit", [1, 2, 200])
def test_feedback_that_comes_before_its_record_waits_for_no_other_segment(
    tmp_path: Path, dead: DeadLetters, fake_mlflow: FakeMlflow, sink: Any, make_record: Make, make_feedback: Say, limit: int
) -> None:
    """Each of two segments begins with feedback on a request of the other's: neither may wait for the other."""
    one, other = make_record(), make_record()
    about_other, about_one = make_feedback(other.request_id), make_feedback(one.request_id)
    about_own = make_feedback(one.request_id)
    spooled(tmp_path, [about_other, about_own, make_record(), one], "w0")
    spooled(tmp_path, [about_one, make_record(), make_record(), other], "w1")
    mlflow = sink(limit=limit)
    drain(mlflow, tmp_path)
    mlflow.tend()
    assert kept(fake_mlflow, other.request_id) == [about_other.feedback_id]
    assert sorted(kept(fake_mlflow, one.request_id)) == sorted([about_one.feedback_id, about_own.feedback_id])
    assert len(fake_mlflow.traces) == 5
    assert list(dead) == []


async def test_feedback_on_a_request_under_way_holds_up_nothing_and_comes_with_its_record(
    tmp_path: Path,
    dead: DeadLetters,
    fake_mlflow: FakeMlflow,
    sink: Any,
    make_record: Make,
    make_feedback: Say,
    wait_for: Any,
) -> None:
    slow, fast, behind = make_record(), make_record(), make_record()
    spool = Spool.open(tmp_path / "spool", "w0")
    spool.accept(slow.request_id, slow.received_at)
    early = make_feedback(slow.request_id)
    for row in (fast, early, behind):
        await spool.append(row)
    stop = threading.Event()
    feed = Feed(sink(), tmp_path / "spool", stop, rng=random.Random(1), pause=lambda seconds: stop.wait(0.01))
    thread = threading.Thread(target=feed.run, args=(None,), daemon=True)
    thread.start()
    await asyncio.to_thread(wait_for, lambda: len(fake_mlflow.traces) == 2, what="what need not wait", within_s=20)
    await asyncio.to_thread(wait_for, lambda: dead.waiting() == 1, what="feedback set aside")
    assert (feed.error, feed.delivered, dead.count()) == (None, 3, 0)
    await spool.append(slow)
    await asyncio.to_thread(wait_for, lambda: kept(fake_mlflow, slow.request_id), what="the assessment")
    stop.set()
    await asyncio.to_thread(thread.join, 20)
    assert kept(fake_mlflow, slow.request_id) == [early.feedback_id]
    assert list(dead) == []
    await spool.close()


def test_feedback_that_crosses_hosts_waits_for_the_other_hosts_shipper(
    tmp_path: Path, dead: DeadLetters, fake_mlflow: FakeMlflow, sink: Any, now: Any, make_record: Make, make_feedback: Say
) -> None:
    elsewhere = make_record()
    said = [make_feedback(elsewhere.request_id, comment=str(number)) for number in range(3)]
    spooled(tmp_path, said)
    here = sink()
    drain(here, tmp_path)
    asked: list[float] = []
    infos = fake_mlflow.infos

    def counted(body: dict[str, Any]) -> Any:
        asked.append(now[0])
        return infos(body)

    fake_mlflow.infos = counted
    for _ in range(3600):
        now[0] += 1
        here.tend()
    assert 5 < len(asked) < 40, "ever more seldom, and all in one question"
    assert (dead.waiting(), dead.count()) == (3, 0)
    fake_mlflow.traces[elsewhere.request_id] = "from the other host"
    now[0] += 600
    sink().tend()
    assert sorted(kept(fake_mlflow, elsewhere.request_id)) == sorted(one.feedback_id for one in said)
    assert list(dead) == []


def test_feedback_on_what_nobody_knows_is_put_aside_after_a_day_with_the_reason(
    tmp_path: Path, dead: DeadLetters, fake_mlflow: FakeMlflow, sink: Any, now: Any, make_record: Make, make_feedback: Say
) -> None:
    record, lost = make_record(), make_feedback(NOWHERE)
    spooled(tmp_path, [lost, record, make_feedback(record.request_id)])
    mlflow = sink()
    drain(mlflow, tmp_path)
    assert (dead.count(), dead.waiting()) == (0, 1)
    now[0] += 86_500
    mlflow.tend()
    (letter,) = dead
    assert (letter.kind, letter.request_id, feedback.decode(letter.body)) == ("feedback", NOWHERE, lost)
    assert letter.reason == "MLflow has no trace of its request, and none came within a day"
    assert letter.due is None
    assert (dead.count(), dead.waiting()) == (1, 0)
    assert len(kept(fake_mlflow, record.request_id)) == 1


def test_feedback_on_a_deleted_trace_brings_it_not_back(
    tmp_path: Path, dead: DeadLetters, fake_mlflow: FakeMlflow, sink: Any, now: Any, make_record: Make, make_feedback: Say
) -> None:
    erased = make_record()
    spooled(tmp_path, [erased, make_feedback(erased.request_id)])
    (segment,) = segments(tmp_path / "spool").segments
    one = sink(limit=1)
    one.step(segment)
    del fake_mlflow.traces[erased.request_id]
    drain(one, tmp_path)
    now[0] += 86_500
    one.tend()
    assert fake_mlflow.traces == {}
    assert [(letter.kind, letter.due) for letter in dead] == [("feedback", None)]


def test_feedback_that_comes_after_an_erasure_is_not_kept(
    tmp_path: Path, dead: DeadLetters, sink: Any, now: Any, deliveries: Deliveries, make_feedback: Say
) -> None:
    deliveries.note_erased([NOWHERE], at=1)
    spooled(tmp_path, [make_feedback(NOWHERE)])
    mlflow = sink()
    drain(mlflow, tmp_path)
    now[0] += 3
    mlflow.tend()
    assert list(dead) == []


def test_feedback_on_a_spared_request_brings_its_trace_while_the_spool_has_it(
    tmp_path: Path, dead: DeadLetters, fake_mlflow: FakeMlflow, sink: Any, now: Any, make_record: Make, make_feedback: Say
) -> None:
    together, early, late, gone = (make_record() for _ in range(4))
    spooled(tmp_path, [together, make_feedback(together.request_id), early, make_record()], "w0")
    mlflow = sink(keeps=lambda record: False)
    drain(mlflow, tmp_path)
    assert fake_mlflow.traces.keys() == {together.request_id}, "nobody said anything of the others"
    said = [make_feedback(early.request_id), make_feedback(late.request_id), make_feedback(gone.request_id)]
    spooled(tmp_path, [*said, late], "w1")
    spooled(tmp_path, [gone], "w2")
    drain(mlflow, tmp_path)
    (last,) = (segment for segment in segments(tmp_path / "spool").segments if segment.worker == "w2")
    last.remove()
    now[0] += 3
    mlflow.tend()
    assert fake_mlflow.traces.keys() == {together.request_id, early.request_id, late.request_id}
    assert [kept(fake_mlflow, one.request_id) for one in said] == [[said[0].feedback_id], [said[1].feedback_id], []]
    assert list(dead) == [], "feedback on what MLflow is spared stands in the lake"


def test_feedback_on_a_record_that_was_refused_ends_too(
    tmp_path: Path,
    dead: DeadLetters,
    fake_mlflow: FakeMlflow,
    sink: Any,
    now: Any,
    make_record: Make,
    make_feedback: Say,
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr("watchkeeper.telemetry.mlflow_sink.export_request", lambda records: 1 / 0)
    record = make_record()
    spooled(tmp_path, [make_feedback(record.request_id), record])
    mlflow = sink()
    drain(mlflow, tmp_path)
    now[0] += 86_500
    mlflow.tend()
    assert sorted((letter.kind, letter.due) for letter in dead) == [("feedback", None), ("record", None)]
    assert "ZeroDivisionError in <lambda>" in next(letter.reason for letter in dead if letter.kind == "record")


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_poisoned_feedback_is_put_aside_alone(
    tmp_path: Path,
    dead: DeadLetters,
    fake_mlflow: FakeMlflow,
    sink: Any,
    make_record: Make,
    make_feedback: Say,
    status: int,
) -> None:
    record = make_record()
    bad, good = make_feedback(record.request_id, comment="POISON"), make_feedback(record.request_id)
    spooled(tmp_path, [record, bad, good])
    fake_mlflow.judge = lambda assessment: status if assessment.get("rationale") == "POISON" else 200
    drain(sink(), tmp_path)
    (letter,) = dead
    assert feedback.decode(letter.body) == bad
    assert f"HTTP {status}" in letter.reason
    values = [one["feedback"]["value"] for one in fake_mlflow.assessments[record.request_id]]
    assert values == ["refused_by_mlflow", 1.0], "the UI says that there was one"


def test_a_refused_feedback_is_put_aside_though_the_batch_broke_off_behind_it(
    tmp_path: Path, dead: DeadLetters, fake_mlflow: FakeMlflow, sink: Any, make_record: Make, make_feedback: Say
) -> None:
    record = make_record()
    bad, good = make_feedback(record.request_id, comment="POISON"), make_feedback(record.request_id, comment="fine")
    spooled(tmp_path, [record, bad, good])
    (segment,) = segments(tmp_path / "spool").segments
    fake_mlflow.judge = lambda assessment: {"POISON": 400, "fine": 503}.get(assessment.get("rationale", ""), 200)
    with pytest.raises(TrackingUnavailable):
        sink().step(segment)
    fake_mlflow.judge = lambda assessment: 200
    drain(sink(), tmp_path)
    (letter,) = dead
    assert feedback.decode(letter.body) == bad
    assert "HTTP 400" in letter.reason
    assert sorted(kept(fake_mlflow, record.request_id)) == sorted([bad.feedback_id, good.feedback_id])


@pytest.mark.parametrize("status", [400, 401, 403, 422, 429, 500, 503])
def test_a_server_that_refuses_every_assessment_poisons_none(
    tmp_path: Path,
    dead: DeadLetters,
    fake_mlflow: FakeMlflow,
    sink: Any,
    make_record: Make,
    make_feedback: Say,
    status: int,
) -> None:
    record = make_record()
    spooled(tmp_path, [record, make_feedback(record.request_id)])
    (segment,) = segments(tmp_path / "spool").segments
    fake_mlflow.judge = lambda assessment: status
    one = sink()
    for _ in range(2):
        with pytest.raises(TrackingUnavailable):
            one.step(segment)
    assert one.position(segment) == 0
    assert list(dead) == []
    fake_mlflow.judge = lambda assessment: 200
    drain(one, tmp_path)
    assert len(kept(fake_mlflow, record.request_id)) == 1


def test_with_mlflow_away_feedback_waits_as_records_do(
    tmp_path: Path,
    dead: DeadLetters,
    fake_mlflow: FakeMlflow,
    deliveries: Deliveries,
    make_feedback: Say,
    free_port: Callable[[], int],
) -> None:
    spooled(tmp_path, [make_feedback(NOWHERE)])
    (segment,) = segments(tmp_path / "spool").segments
    away = MlflowSink(f"http://127.0.0.1:{free_port()}", lambda: "7", deliveries, Dropped(dead, "mlflow"))
    with pytest.raises((TrackingUnavailable, SinkUnavailable), match="cannot be reached"):
        away.step(segment)
    assert list(dead) == []
    assert away.position(segment) == 0
