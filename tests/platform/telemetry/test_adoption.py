"""Torn files: what is whole goes on, once, what is not is named, and nobody waits for either."""

import asyncio
import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watchkeeper.feedback import Feedback
from watchkeeper.record import Record, decode
from watchkeeper.telemetry import pages
from watchkeeper.telemetry.adoption import TORN, adopt, finish, mend_all
from watchkeeper.telemetry.segment import RECORD, Row, SegmentTorn, paths, reading, segments
from watchkeeper.telemetry.spool import Spool

Make = Callable[..., Record]


class Left(NamedTuple):
    """What a worker left in `folder`, killed in mid-work. `open`: accepted, and never answered."""

    folder: Path
    rows: dict[int, Row]
    open: set[str]

    @property
    def worker(self) -> Path:
        return self.folder / "w0"

    @property
    def records(self) -> dict[str, Row]:
        return {row.request_id: row for row in self.rows.values() if row.kind == RECORD}


def leave(place: Path, make_record: Make, count: int, *, segment_bytes: int = 64 << 20, folded: bool = False) -> Left:
    """A worker's files as kill -9 leaves them. `folded`: its log was taken into the file before."""

    async def run() -> Left:
        spool = Spool.open(place / "draft", "w0", segment_bytes=segment_bytes)
        open_ = [make_record() for _ in range(5)]
        for number in range(count):
            record = make_record(output_text="word " * (number * 37 % 2000))
            spool.accept(record.request_id, record.received_at)
            if number == count // 2:
                for other in open_:
                    spool.accept(other.request_id, other.received_at)
            await spool.append(record)
            if number % 10 == 0:
                await spool.append(
                    Feedback(feedback_id=f"{number:032x}", request_id=record.request_id, received_at=1, score=1.0)
                )
        if folded:
            for path in paths(place / "draft" / "w0"):
                with sqlite3.connect(path) as database:
                    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                database.close()
        rows = [row for segment in segments(place / "draft").segments for row in segment.rows(0)]
        shutil.copytree(place / "draft", place / "spool")
        await spool.close()
        shutil.rmtree(place / "draft")
        return Left(place / "spool", {row.sequence: row for row in rows}, {record.request_id for record in open_})

    return asyncio.run(run())


def read(folder: Path) -> list[Row]:
    found = segments(folder)
    assert not found.torn
    return [row for segment in found.segments for row in segment.rows(0)]


def check(left: Left) -> dict[str, Record]:
    """What must hold whatever was torn: rows are as they were or stand for lost ones, every accept has one record."""
    rows = read(left.folder)
    assert len({row.sequence for row in rows}) == len(rows)
    records = [row for row in rows if row.kind == RECORD]
    assert set(Counter(row.request_id for row in records).values()) <= {1}
    for row in records:
        if (record := decode(row.body)).error not in (TORN, "interrupted"):
            assert row == left.rows[row.sequence], "a row that is whole is what it was"
        elif record.error == "interrupted":
            assert row.request_id in left.open
    accepted = {name for segment in segments(left.folder).segments for name in segment.ids()[0]}
    assert accepted == {row.request_id for row in records}
    return {row.request_id: decode(row.body) for row in records}


def test_pages_give_every_row_that_sqlite_gives(tmp_path: Path, make_record: Make) -> None:
    left = leave(tmp_path, make_record, 150)
    (path,) = paths(left.worker)
    assert path.with_name(f"{path.name}-wal").stat().st_size > 100_000, "nearly all of it stands in the log yet"
    whole = [row for row in pages.rows(path, path.with_name(f"{path.name}-wal")) if len(row.values) == 5]
    found = {row.number: row.values for row in whole if row.values[0] is None}
    assert found == {n: (None, row.request_id, row.received_at, row.kind, row.body) for n, row in left.rows.items()}


def test_a_file_cut_in_half_keeps_its_first_half(tmp_path: Path, make_record: Make) -> None:
    left = leave(tmp_path, make_record, 200, folded=True)
    (path,) = paths(left.worker)
    os.truncate(path, path.stat().st_size // 2)
    assert list(segments(left.folder).torn) == [path]
    assert adopt(left.worker) > 0
    records = check(left)
    whole = [name for name, record in records.items() if record.error is None]
    assert 60 < len(whole) < 140
    note = segments(left.folder).unreadable[str(path.with_suffix(".torn"))]
    assert "were whole and go on" in note
    assert "whatever came after" in note
    assert path.with_suffix(".torn").stat().st_size > 0, "it is kept for people"


@pytest.mark.parametrize("page", [1, 2])
def test_a_file_without_its_head_loses_nothing_else(tmp_path: Path, make_record: Make, page: int) -> None:
    left = leave(tmp_path, make_record, 100, folded=True)
    (path,) = paths(left.worker)
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(bytes(4096))
    adopt(left.worker)
    records = check(left)
    assert {name for name, record in records.items() if record.error is None} == left.records.keys()
    assert {name for name, record in records.items() if record.error == TORN} == left.open


def test_an_empty_file_is_not_taken_for_one_that_was_never_born(tmp_path: Path, make_record: Make) -> None:
    left = leave(tmp_path, make_record, 100)
    (path,) = paths(left.worker)
    os.truncate(path, 0)
    with pytest.raises(SegmentTorn), reading(path):
        pass
    adopt(left.worker)
    assert left.records.keys() <= check(left).keys(), "all of it stood in the log"


def test_mending_that_is_cut_off_is_done_again_with_nothing_lost(
    tmp_path: Path, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = leave(tmp_path, make_record, 100)
    (path,) = paths(left.worker)
    os.truncate(path, 0)

    def cut_off(source: Path, target: Path) -> None:
        if source.suffix == ".mending":
            raise OSError("killed")
        shutil.move(source, target)

    with monkeypatch.context() as patched:
        patched.setattr("watchkeeper.telemetry.adoption.os.replace", cut_off)
        with pytest.raises(OSError, match="killed"):
            adopt(left.worker)
    assert not path.with_name(f"{path.name}-wal").exists()
    assert list(segments(left.folder).torn) == [path]
    adopt(left.worker)
    assert left.records.keys() <= {row.request_id for row in read(left.folder)}


def test_a_worker_starts_on_a_torn_file_and_goes_on(tmp_path: Path, make_record: Make) -> None:
    left = leave(tmp_path, make_record, 100, folded=True)
    (path,) = paths(left.worker)
    os.truncate(path, 40_000)

    async def again() -> Record:
        spool = Spool.open(left.folder, "w0")
        record = make_record()
        spool.accept(record.request_id, record.received_at)
        await spool.append(record)
        await spool.close()
        return record

    record = asyncio.run(again())
    assert record in [decode(row.body) for row in read(left.folder) if row.kind == RECORD]
    assert path.with_suffix(".torn").exists()


def test_of_an_older_file_what_was_carried_on_is_not_held_for_lost(tmp_path: Path, make_record: Make) -> None:
    left = leave(tmp_path, make_record, 200, segment_bytes=200_000, folded=True)
    files = paths(left.worker)
    assert len(files) > 3
    torn = files[-2]
    first = next(segment.first for segment in segments(left.folder).segments if segment.path == torn)
    with torn.open("r+b") as file:  # of the first rows
        file.seek(5 * 4096)
        file.write(bytes(3 * 4096))
    with reading(files[-1]) as database:
        carried = {name for (name,) in database.execute("SELECT request_id FROM accepted")}
    assert left.open & carried
    mend_all({torn: "for this test"})
    adopt(left.worker)
    rows = read(left.folder)
    assert [row.sequence for row in rows] == list(range(1, len(rows) + 1)), "stand-ins have the numbers of what is lost"
    records = check_all_but_feedback(left)
    lost = {name for name, record in records.items() if record.error == TORN}
    assert lost
    assert not lost & left.open
    assert all(first <= left.records[name].sequence < first + 60 for name in lost)


def check_all_but_feedback(left: Left) -> dict[str, Record]:
    records = {row.request_id: decode(row.body) for row in read(left.folder) if row.kind == RECORD}
    assert records.keys() == left.records.keys() | left.open
    return records


def test_the_file_that_a_living_worker_writes_is_left_to_it(tmp_path: Path, make_record: Make) -> None:
    async def run() -> None:
        spool = Spool.open(tmp_path, "w0")
        await spool.append(make_record())
        (path,) = paths(tmp_path / "w0")
        assert mend_all({path: "so it was said"}) == []
        await spool.close()

    asyncio.run(run())
    assert len(read(tmp_path)) == 1


@given(seed=st.integers(0, 10**6), count=st.integers(1, 120), folded=st.booleans())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_it_is_torn_rows_are_whole_or_told_to_be_lost(
    seed: int, count: int, folded: bool, tmp_path_factory: pytest.TempPathFactory, make_record: Make
) -> None:
    left = leave(tmp_path_factory.mktemp("left"), make_record, count, folded=folded)
    rng = random.Random(seed)
    (path,) = paths(left.worker)
    log = path.with_name(f"{path.name}-wal")
    for _ in range(rng.randint(1, 3)):
        victim = rng.choice([path, log]) if log.exists() and log.stat().st_size else path
        size = victim.stat().st_size
        with victim.open("r+b") as file:
            if rng.random() < 0.4:
                file.truncate(rng.randrange(size))
            else:
                file.seek(rng.randrange(size))
                length = rng.randrange(1, 9000)
                file.write(bytes(length) if rng.random() < 0.5 else rng.randbytes(length))
    finish(left.worker)
    torn = segments(left.folder).torn
    for segment in segments(left.folder).segments:
        try:
            segment.ids()
            sequence = segment.first - 1
            while rows := segment.rows(sequence, limit=7):
                sequence = rows[-1].sequence
        except SegmentTorn as error:
            torn[segment.path] = error.why
    mend_all(torn)
    rows_of = Counter(row.request_id for row in read(left.folder) if row.kind == RECORD)
    assert set(rows_of.values()) <= {1}
    asyncio.run(Spool.open(left.folder, "w0").close())
    shutil.rmtree(left.folder)
