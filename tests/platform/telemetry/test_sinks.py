"""The lake as a sink: every record once in every table, and one that makes no rows aside and alone."""

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
from watchkeeper.record import Record
from watchkeeper.telemetry.dead_letters import DeadLetters
from watchkeeper.telemetry.segment import Segment, segments
from watchkeeper.telemetry.sinks import Dropped, LakeSink
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


def drain(sink: LakeSink, segment: Segment) -> int:
    steps = 0
    while sink.step(segment):
        steps += 1
    return steps


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
