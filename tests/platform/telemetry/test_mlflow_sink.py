"""The sink MLflow: every record once, a poisoned one aside and alone, and an outage never taken for poison."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

from watchkeeper.feedback import Feedback
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record, decode, encode
from watchkeeper.telemetry.dead_letters import DeadLetters
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.erasure import erase
from watchkeeper.telemetry.mlflow_sink import MlflowSink
from watchkeeper.telemetry.otlp import export_request
from watchkeeper.telemetry.segment import Segment, segments
from watchkeeper.telemetry.sinks import Dropped, LakeSink, SinkUnavailable
from watchkeeper.telemetry.spool import Spool

Make = Callable[..., Record]
FakeMlflow = Any
"""The fixture's; test modules cannot import their conftest."""


def spooled(folder: Path, records: Sequence[Record | Feedback]) -> Segment:
    async def fill() -> None:
        spool = Spool.open(folder / "spool", "w0")
        await asyncio.gather(*(spool.append(record) for record in records))
        await spool.close()

    asyncio.run(fill())
    (segment,) = segments(folder / "spool").segments
    return segment


def drain(sink: MlflowSink | LakeSink, segment: Segment) -> int:
    steps = 0
    while sink.step(segment):
        steps += 1
    return steps


def mlflow_sink(dead: DeadLetters, mlflow: FakeMlflow, deliveries: Deliveries, **options: Any) -> MlflowSink:
    return MlflowSink(mlflow.url, lambda: "7", deliveries, Dropped(dead, "mlflow", lambda: 5.0), **options)


def test_mlflow_gets_all_in_batches_and_the_next_start_goes_on_from_there(
    tmp_path: Path, fake_mlflow: FakeMlflow, deliveries: Deliveries, dead: DeadLetters, make_record: Make
) -> None:
    segment = spooled(tmp_path, [make_record() for _ in range(25)])
    sink = mlflow_sink(dead, fake_mlflow, deliveries, limit=10)
    assert sink.step(segment) == 10
    assert drain(mlflow_sink(dead, fake_mlflow, deliveries, limit=10), segment) == 2
    assert fake_mlflow.batches == [10, 10, 5]
    assert len(fake_mlflow.traces) == 25


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_poisoned_records_are_found_and_put_aside_and_all_others_delivered(
    tmp_path: Path, dead: DeadLetters, fake_mlflow: FakeMlflow, deliveries: Deliveries, make_record: Make, status: int
) -> None:
    records = [make_record(output_text="POISON" if number in (3, 17) else "fine") for number in range(40)]
    segment = spooled(tmp_path, records)
    fake_mlflow.answer = lambda traces: status if any("POISON" in text for text in traces.values()) else 200
    drain(mlflow_sink(dead, fake_mlflow, deliveries), segment)
    letters = list(dead)
    assert [decode(letter.body) for letter in letters] == [records[3], records[17]], "kept whole"
    assert all(f"HTTP {status}" in letter.reason and letter.at == 5_000_000 for letter in letters)
    assert len(fake_mlflow.traces) == 40
    assert "refused_by_mlflow" in fake_mlflow.traces[records[3].request_id], "the UI says what became of it"
    assert len(fake_mlflow.batches) < 40
    assert drain(mlflow_sink(dead, fake_mlflow, deliveries), segment) == 0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500, 503])
def test_a_server_that_refuses_everything_poisons_nothing(
    tmp_path: Path, dead: DeadLetters, fake_mlflow: FakeMlflow, deliveries: Deliveries, make_record: Make, status: int
) -> None:
    segment = spooled(tmp_path, [make_record() for _ in range(8)])
    sink = mlflow_sink(dead, fake_mlflow, deliveries)
    fake_mlflow.answer = lambda traces: status
    for _ in range(2):
        with pytest.raises(SinkUnavailable):
            sink.step(segment)
    assert list(dead) == []
    assert sink.position(segment) == 0
    fake_mlflow.answer = lambda traces: 200
    assert drain(sink, segment) == 1
    assert len(fake_mlflow.traces) == 8


@pytest.mark.parametrize("refusals", range(1, 6))
def test_a_server_that_comes_to_itself_in_the_middle_of_it_poisons_nothing(
    tmp_path: Path, dead: DeadLetters, fake_mlflow: FakeMlflow, deliveries: Deliveries, make_record: Make, refusals: int
) -> None:
    """MLflow answers 422 while its database is locked. However often it does, no record is to blame for it."""
    segment = spooled(tmp_path, [make_record() for _ in range(8)])
    left = iter(range(refusals))
    fake_mlflow.answer = lambda traces: 422 if next(left, None) is not None else 200
    sink = mlflow_sink(dead, fake_mlflow, deliveries)
    while sink.position(segment) < segment.last:
        with contextlib.suppress(SinkUnavailable):
            sink.step(segment)
    assert list(dead) == []
    assert len(fake_mlflow.traces) == 8
    assert not any("refused_by_mlflow" in text for text in fake_mlflow.traces.values())


def test_a_server_that_is_away_is_an_outage_and_the_experiment_is_looked_up_again(
    tmp_path: Path, dead: DeadLetters, fake_mlflow: FakeMlflow, deliveries: Deliveries, make_record: Make
) -> None:
    asked: list[str] = []

    def experiment_id() -> str:
        asked.append("7")
        return "7"

    segment = spooled(tmp_path, [make_record()])
    sink = MlflowSink(fake_mlflow.url, experiment_id, deliveries, Dropped(dead, "mlflow"))
    away = MlflowSink("http://127.0.0.1:9", experiment_id, deliveries, Dropped(dead, "mlflow"))
    for _ in range(2):
        with pytest.raises(SinkUnavailable):
            away.step(segment)
    assert len(asked) == 2
    assert sink.step(segment) == 1


def test_what_is_no_record_is_put_aside_by_each_sink(
    tmp_path: Path,
    dead: DeadLetters,
    fake_mlflow: FakeMlflow,
    deliveries: Deliveries,
    make_record: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = make_record()
    monkeypatch.setattr("watchkeeper.telemetry.spool._body", lambda record: encode(record) if record is good else b"\xc1")
    segment = spooled(tmp_path, [make_record(), good])
    drain(mlflow_sink(dead, fake_mlflow, deliveries), segment)
    lake = Lake(str(tmp_path / "lake"))
    drain(LakeSink(lake, Dropped(dead, "lake")), segment)
    assert [(letter.sink, letter.sequence) for letter in dead] == [("mlflow", 1), ("lake", 1)]
    assert list(fake_mlflow.traces) == [good.request_id]
    assert lake.query("SELECT request_id FROM interactions").column(0).to_pylist() == [good.request_id]


def test_a_refusal_names_no_word_of_what_was_refused(
    tmp_path: Path, fake_mlflow: FakeMlflow, deliveries: Deliveries, dead: DeadLetters, make_record: Make
) -> None:
    """A database's error repeats the values that it could not take."""
    segment = spooled(tmp_path, [make_record(output_text="POISON, my dear")])
    fake_mlflow.answer = lambda traces: 400 if any("POISON" in text for text in traces.values()) else 200
    fake_mlflow.reply = b'{"message": "(DataError) too long [SQL: INSERT] [parameters: (POISON, my dear)]"}'
    drain(mlflow_sink(dead, fake_mlflow, deliveries), segment)
    (letter,) = dead
    assert "too long" in letter.reason
    assert "POISON" not in letter.reason


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        ("text/html", b"<html>please log in</html>"),
        ("application/json", b'{"error_code": "INTERNAL_ERROR"}'),
        ("application/json", b"[]"),
        ("application/json", b"no json"),
        ("application/x-protobuf", b"\xff\xff"),
        ("", b""),
    ],
)
def test_an_answer_that_is_none_of_mlflows_is_an_outage(
    tmp_path: Path,
    fake_mlflow: FakeMlflow,
    deliveries: Deliveries,
    dead: DeadLetters,
    make_record: Make,
    kind: str,
    reply: bytes,
) -> None:
    segment = spooled(tmp_path, [make_record()])
    sink = mlflow_sink(dead, fake_mlflow, deliveries)
    fake_mlflow.kind, fake_mlflow.reply = kind, reply
    with pytest.raises(SinkUnavailable, match="not in MLflow's words"):
        sink.step(segment)
    assert (sink.position(segment), list(dead)) == (0, [])
    fake_mlflow.kind, fake_mlflow.reply = "application/x-protobuf", b""
    assert sink.step(segment) == 1


def test_what_a_server_took_only_in_part_is_found_and_put_aside(
    tmp_path: Path, fake_mlflow: FakeMlflow, deliveries: Deliveries, dead: DeadLetters, make_record: Make
) -> None:
    records = [make_record(output_text="POISON" if number == 2 else "fine") for number in range(6)]
    segment = spooled(tmp_path, records)

    def partly(traces: dict[str, str]) -> int:
        bad = any("POISON" in text for text in traces.values())
        fake_mlflow.reply = b'{"partialSuccess": {"rejectedSpans": "11"}}' if bad else b"{}"
        return 200

    fake_mlflow.answer = partly
    drain(mlflow_sink(dead, fake_mlflow, deliveries), segment)
    (letter,) = dead
    assert letter.request_id == records[2].request_id
    assert letter.reason == "HTTP 200, but 11 spans were rejected"


def test_a_redirect_is_not_followed(
    tmp_path: Path, fake_mlflow: FakeMlflow, deliveries: Deliveries, dead: DeadLetters, make_record: Make
) -> None:
    segment = spooled(tmp_path, [make_record()])
    fake_mlflow.answer = lambda traces: 302
    with pytest.raises(SinkUnavailable, match="HTTP 302"):
        mlflow_sink(dead, fake_mlflow, deliveries).step(segment)
    assert list(dead) == []


def test_after_a_restart_with_another_database_traces_go_where_the_experiment_is_now(
    tmp_path: Path, fake_mlflow: FakeMlflow, deliveries: Deliveries, dead: DeadLetters, make_record: Make, caplog: Any
) -> None:
    now, found = [100.0], ["7"]
    sink = MlflowSink(fake_mlflow.url, lambda: found[0], deliveries, Dropped(dead, "mlflow"), limit=1, clock=lambda: now[0])
    segment = spooled(tmp_path, [make_record() for _ in range(3)])
    sink.step(segment)
    found[0], fake_mlflow.experiment = "8", "8"
    now[0] += 3
    sink.step(segment)
    assert "is it another database?" in caplog.text
    sink.step(segment)
    assert len(fake_mlflow.traces) == 3


def test_the_experiment_is_looked_up_after_a_pause_not_for_each_batch(
    tmp_path: Path, fake_mlflow: FakeMlflow, deliveries: Deliveries, dead: DeadLetters, make_record: Make
) -> None:
    now, looks = [100.0], []

    def look() -> str:
        looks.append(now[0])
        return "7"

    sink = MlflowSink(fake_mlflow.url, look, deliveries, Dropped(dead, "mlflow"), limit=1, clock=lambda: now[0])
    segment = spooled(tmp_path, [make_record() for _ in range(30)])
    for _ in range(24):
        sink.step(segment)
        now[0] += 1.5
    assert looks == [100.0, 131.5], "and once in half a minute all the same"
    now[0] += 2.0
    sink.step(segment)
    assert looks[2:] == [138.0]


def test_a_record_that_silences_the_server_each_time_is_put_aside_and_holds_up_nothing(
    tmp_path: Path, fake_mlflow: FakeMlflow, deliveries: Deliveries, dead: DeadLetters, make_record: Make, monkeypatch: Any
) -> None:
    monkeypatch.setattr("watchkeeper.telemetry.exporter.TIMEOUT_S", (5.0, 0.2))
    records = [make_record(output_text="POISON" if number == 3 else "fine") for number in range(6)]
    segment = spooled(tmp_path, records)
    silent = threading.Event()

    def answer(traces: dict[str, str]) -> int:
        if any("POISON" in text for text in traces.values()):
            silent.wait(20)
            return 500
        return 200

    fake_mlflow.answer = answer
    sink = mlflow_sink(dead, fake_mlflow, deliveries, limit=4)
    silences = 0
    while sink.position(segment) < segment.last:
        try:
            sink.step(segment)
        except SinkUnavailable:
            silences += 1
    silent.set()
    (letter,) = dead
    assert decode(letter.body) == records[3]
    assert "no answer in time, 3 times, to this record alone" in letter.reason
    assert silences >= 4, "in company, and twice alone, it was taken for an outage"
    assert "refused_by_mlflow" in fake_mlflow.traces[records[3].request_id]
    assert len(fake_mlflow.traces) == 6


def test_a_server_that_is_silent_about_everything_is_away_and_nothing_is_dead(
    tmp_path: Path, fake_mlflow: FakeMlflow, deliveries: Deliveries, dead: DeadLetters, make_record: Make, monkeypatch: Any
) -> None:
    monkeypatch.setattr("watchkeeper.telemetry.exporter.TIMEOUT_S", (5.0, 0.2))
    segment = spooled(tmp_path, [make_record()])
    silent = threading.Event()
    fake_mlflow.answer = lambda traces: 200 if silent.wait(20) else 500
    sink = mlflow_sink(dead, fake_mlflow, deliveries)
    for _ in range(6):
        with pytest.raises(SinkUnavailable):
            sink.step(segment)
    silent.set()
    assert list(dead) == []
    assert sink.step(segment) == 1


def test_a_server_that_cannot_be_connected_to_in_time_says_nothing_of_a_record(
    tmp_path: Path, fake_mlflow: FakeMlflow, deliveries: Deliveries, dead: DeadLetters, make_record: Make, monkeypatch: Any
) -> None:
    """Also where the network comes and goes, so that the record with nothing in it happens to be taken."""
    segment = spooled(tmp_path, [make_record(output_text="an answer")])
    post = requests.Session.post

    def flapping(session: requests.Session, url: str, **options: Any) -> requests.Response:
        if b"an answer" in options["data"]:
            raise requests.ConnectTimeout("packets are dropped")
        return post(session, url, **options)

    monkeypatch.setattr(requests.Session, "post", flapping)
    sink = mlflow_sink(dead, fake_mlflow, deliveries)
    for _ in range(6):
        with pytest.raises(SinkUnavailable):
            sink.step(segment)
    assert list(dead) == []


def test_what_the_policy_spares_mlflow_is_noted_with_the_cursor(
    tmp_path: Path, fake_mlflow: FakeMlflow, deliveries: Deliveries, dead: DeadLetters, make_record: Make
) -> None:
    records = [make_record(total_ms=float(number)) for number in range(10)]
    segment = spooled(tmp_path, records)
    sink = mlflow_sink(dead, fake_mlflow, deliveries, keeps=lambda record: record.total_ms > 6)
    drain(sink, segment)
    assert fake_mlflow.traces.keys() == {record.request_id for record in records[7:]}
    assert deliveries.sampled_out() == {record.request_id for record in records[:7]}
    assert deliveries.cursor("mlflow", segment.uid) == segment.last


def test_the_next_batch_is_written_while_mlflow_works_on_one(
    tmp_path: Path, fake_mlflow: FakeMlflow, deliveries: Deliveries, dead: DeadLetters, make_record: Make, monkeypatch: Any
) -> None:
    segment = spooled(tmp_path, [make_record() for _ in range(25)])
    batches: list[int] = []
    wrote = threading.Condition()

    def export(records: Sequence[Record]) -> bytes:
        with wrote:
            batches.append(len(records))
            wrote.notify_all()
        return export_request(records)

    def answer(_: object) -> int:
        with wrote:
            return 200 if wrote.wait_for(lambda: len(batches) == min(3, len(fake_mlflow.batches) + 1), 20) else 503

    monkeypatch.setattr("watchkeeper.telemetry.mlflow_sink.export_request", export)
    fake_mlflow.answer = answer
    drain(mlflow_sink(dead, fake_mlflow, deliveries, limit=10), segment)
    assert batches == fake_mlflow.batches == [10, 10, 5], "and none twice"
    assert len(fake_mlflow.traces) == 25


def test_what_was_erased_between_two_batches_is_not_sent(
    tmp_path: Path, fake_mlflow: FakeMlflow, deliveries: Deliveries, dead: DeadLetters, make_record: Make
) -> None:
    records = [make_record(output_text=f"said {number}") for number in range(25)]
    segment = spooled(tmp_path, records)
    sink = mlflow_sink(dead, fake_mlflow, deliveries, limit=10)
    sink.step(segment)
    assert erase(tmp_path / "spool", {records[15].request_id}, ()).rows == 1
    drain(sink, segment)
    assert fake_mlflow.traces.keys() == {record.request_id for record in records} - {records[15].request_id}
    assert not any("said 15" in text for text in fake_mlflow.traces.values())
