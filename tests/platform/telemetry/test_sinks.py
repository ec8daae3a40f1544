"""The sinks: every record once, a poisoned one aside and alone, and an outage never taken for poison."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watchkeeper.feedback import Feedback
from watchkeeper.lake.lake import Lake, LakeUnavailable
from watchkeeper.record import Record, decode, encode
from watchkeeper.telemetry.dead_letters import DeadLetters
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.segment import Segment, segments
from watchkeeper.telemetry.sinks import Dropped, LakeSink, MlflowSink, SinkUnavailable
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


def mlflow_sink(dead: DeadLetters, mlflow: FakeMlflow, deliveries: Deliveries, **options: int) -> MlflowSink:
    return MlflowSink(mlflow.url, lambda: "7", deliveries, Dropped(dead, "mlflow", lambda: 5.0), **options)


def drain(sink: MlflowSink | LakeSink, segment: Segment) -> int:
    steps = 0
    while sink.step(segment):
        steps += 1
    return steps


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


def counted(lake: Lake) -> tuple[Counter[str], int]:
    """How often each request is in the lake, and how many requests the rollups count."""
    names: list[str] = lake.query("SELECT request_id FROM interactions").column(0).to_pylist()
    total = lake.query("SELECT coalesce(sum(n), 0)::BIGINT FROM rollups").column(0).to_pylist()[0]
    return Counter(names), total


def test_a_record_that_makes_no_rows_is_left_out_of_every_table(
    tmp_path: Path, dead: DeadLetters, make_record: Make
) -> None:
    records = [make_record(), make_record(input_tokens=2**63), make_record(attempts=2**40), make_record()]
    segment = spooled(tmp_path, records)
    lake = Lake(str(tmp_path / "lake"))
    drain(LakeSink(lake, Dropped(dead, "lake")), segment)
    names, total = counted(lake)
    refused = [letter.request_id for letter in dead]
    assert refused == [records[1].request_id, records[2].request_id]
    assert set(names) == {records[0].request_id, records[3].request_id}
    assert total == 2


class Faulty(Lake):
    """A lake that fails as it is told: before a commit, or after it, when nobody hears that it succeeded."""

    def __init__(self, uri: str, faults: Iterator[str]) -> None:
        super().__init__(uri)
        self.faults = faults

    def append(self, table: str, rows: pa.Table, **options: Any) -> bool:
        fault = next(self.faults, "none")
        if fault == "before":
            raise LakeUnavailable("told to fail")
        done = super().append(table, rows, **options)
        if fault == "after":
            raise LakeUnavailable("told to fail, too late")
        return done


@given(
    faults=st.lists(st.sampled_from(["none", "before", "after"]), min_size=1, max_size=6),
    restarts=st.lists(st.booleans(), max_size=8),
    limits=st.lists(st.integers(2, 5), min_size=1, max_size=3),
    opinions=st.sets(st.integers(0, 8)),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_lake_has_every_record_and_feedback_once_in_every_table_whatever_fails(
    faults: list[str],
    restarts: list[bool],
    limits: list[int],
    opinions: set[int],
    tmp_path_factory: pytest.TempPathFactory,
    make_record: Make,
    make_feedback: Callable[..., Feedback],
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    records = [make_record() for _ in range(9)]
    said = [make_feedback(records[number].request_id, comment=str(number)) for number in sorted(opinions)]
    rows: list[Record | Feedback] = [*records, *said]
    rows.sort(key=lambda row: row.request_id)  # in any order, and the same whenever a failure is played again
    segment = spooled(folder, rows)
    lake = Faulty(str(folder / "lake"), iter(faults))
    restart, size = itertools.chain(restarts, itertools.repeat(False)), itertools.cycle(limits)
    dead = DeadLetters(folder)
    sink = LakeSink(lake, Dropped(dead, "lake"), limit=next(size))
    while sink.position(segment) < segment.last:
        with contextlib.suppress(LakeUnavailable):
            sink.step(segment)
        if next(restart):
            sink = LakeSink(lake, Dropped(dead, "lake"), limit=next(size))
    assert dead.count() == 0
    dead.close()
    names, total = counted(lake)
    assert names == Counter(record.request_id for record in records)
    assert total == len(records)
    ids = Lake(str(folder / "lake")).query("SELECT feedback_id FROM feedback").column(0).to_pylist()
    assert Counter(ids) == Counter(one.feedback_id for one in said)
    assert (lake.version("feedback") is None) == (not said), "a batch without feedback makes no commit for it"


def test_a_batch_that_was_committed_unheard_is_not_part_of_a_larger_one_later(
    tmp_path: Path, dead: DeadLetters, make_record: Make
) -> None:
    records = [make_record() for _ in range(5)]
    lake = Faulty(str(tmp_path / "lake"), iter(["after"]))
    sink = LakeSink(lake, Dropped(dead, "lake"))

    async def grow() -> None:
        spool = Spool.open(tmp_path / "spool", "w0")
        await spool.append(records[0])
        with pytest.raises(LakeUnavailable):
            sink.step(segments(tmp_path / "spool").segments[0])
        for record in records[1:]:
            await spool.append(record)
        drain(sink, segments(tmp_path / "spool").segments[0])
        await spool.close()

    asyncio.run(grow())
    names, total = counted(lake)
    assert names == Counter(record.request_id for record in records)
    assert total == 5


def test_a_new_segment_of_the_same_number_is_not_taken_for_the_old_one(
    tmp_path: Path, dead: DeadLetters, make_record: Make
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    for _ in range(2):
        segment = spooled(tmp_path, [make_record() for _ in range(3)])
        drain(LakeSink(lake, Dropped(dead, "lake")), segment)
        segment.remove()
    assert counted(lake)[1] == 6
