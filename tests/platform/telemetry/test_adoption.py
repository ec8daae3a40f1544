"""Torn files: what is whole goes on, once, what is not is named, and nobody waits for either."""

import asyncio
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watchkeeper.feedback import Feedback
from watchkeeper.record import Record, decode, encode
from watchkeeper.telemetry import frames
from watchkeeper.telemetry.adoption import TORN, adopt, finish, mend_all
from watchkeeper.telemetry.segment import RECORD, Row, SegmentTorn, SegmentUnreadable, accepted_in, paths, reading, segments
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


def leave(place: Path, make_record: Make, count: int, *, segment_bytes: int = 64 << 20) -> Left:
    """A worker's files as kill -9 leaves them."""

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


def test_a_file_cut_in_half_keeps_its_first_half(tmp_path: Path, make_record: Make) -> None:
    left = leave(tmp_path, make_record, 200)
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


@pytest.mark.parametrize("start", [0, frames.HEAD_BYTES])
def test_a_file_without_its_beginning_loses_nothing_else(tmp_path: Path, make_record: Make, start: int) -> None:
    left = leave(tmp_path, make_record, 100)
    (path,) = paths(left.worker)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(10))
    adopt(left.worker)
    records = check(left)
    assert {name for name, record in records.items() if record.error is None} == left.records.keys()
    assert {name for name, record in records.items() if record.error == TORN} == left.open


def test_a_body_that_is_damaged_is_found_when_it_is_read_and_lost_alone(tmp_path: Path, make_record: Make) -> None:
    left = leave(tmp_path, make_record, 100)
    (path,) = paths(left.worker)
    with reading(path) as file:
        heads = [head for head in file.rows(0) if head.length > 500]
    with path.open("r+b") as damaged:
        damaged.seek(heads[40].offset + frames.HEAD_BYTES + 100)
        damaged.write(b"\xf5WK1")
    adopt(left.worker)
    (segment,) = segments(left.folder).segments
    before = segment.rows(0)
    assert before == [row for row in left.rows.values() if row.sequence < heads[40].sequence], "what stands before it"
    with pytest.raises(SegmentTorn, match="a body is not what it was"):
        segment.rows(heads[40].sequence - 1)
    mend_all({path: "a body is not what it was"})
    records = check(left)
    assert {name for name, record in records.items() if record.error == TORN} == {heads[40].name}


def test_an_empty_file_is_told_of_and_goes_on_empty(tmp_path: Path, make_record: Make) -> None:
    left = leave(tmp_path, make_record, 100)
    (path,) = paths(left.worker)
    os.truncate(path, 0)
    with pytest.raises(SegmentTorn), reading(path):
        pass
    adopt(left.worker)
    assert check(left) == {}
    assert "0 rows and 0 accepts were whole" in segments(left.folder).unreadable[str(path.with_suffix(".torn"))]


def test_what_a_worker_was_killed_in_the_midst_of_is_not_held_for_torn(tmp_path: Path, make_record: Make) -> None:
    """Of one write all that is whole goes on, as it may have been answered where only the mark is not on the disk."""
    left = leave(tmp_path, make_record, 20)
    (path,) = paths(left.worker)
    late, lost = make_record(), make_record()
    size = path.stat().st_size
    with path.open("ab") as file:
        for number, record in enumerate((late, lost), 21):
            file.write(frames.frame(frames.ACCEPT, number + 5, 1, record.request_id))
            file.write(frames.frame(frames.RECORD, len(left.rows) + number - 20, 1, record.request_id, encode(record)))
        file.truncate(file.tell() - 1)
    assert read(left.folder) == list(left.rows.values()), "it does not count while its worker lives"
    assert adopt(left.worker) == 6
    assert path.stat().st_size > size
    records = {row.request_id: decode(row.body).error for row in read(left.folder) if row.kind == RECORD}
    assert records[late.request_id] is None
    assert records[lost.request_id] == "interrupted"
    assert not segments(left.folder).unreadable


def test_a_worker_that_was_killed_as_it_ended_its_segment_has_ended_it(tmp_path: Path, make_record: Make) -> None:
    left = leave(tmp_path, make_record, 20)
    (path,) = paths(left.worker)
    before = path.read_bytes()[frames.HEAD_BYTES : frames.START]
    assert adopt(left.worker) == 5
    ended = read(left.folder)
    with path.open("r+b") as file:  # the mark is what was written last
        file.seek(frames.HEAD_BYTES)
        file.write(before)
    assert not segments(left.folder).segments[0].sealed
    assert adopt(left.worker) == 0
    assert segments(left.folder).segments[0].sealed
    assert read(left.folder) == ended


def test_of_two_segments_the_older_is_known_to_lack_its_end(tmp_path: Path, make_record: Make) -> None:
    left = leave(tmp_path, make_record, 200, segment_bytes=200_000)
    older = paths(left.worker)[1]
    with reading(older) as file:
        assert file.seal is not None
        *_, last = file.heads()
        body = older.read_bytes()[: last.offset]
    older.write_bytes(body[: frames.HEAD_BYTES] + frames.mark(len(body)) + body[frames.START :])
    assert segments(left.folder).torn == {older: "its last rows are missing"}
    mend_all(segments(left.folder).torn)
    adopt(left.worker)
    assert last.name in {row.request_id for row in read(left.folder)}
    rows = read(left.folder)
    assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))


def test_mending_that_is_cut_off_is_done_again_with_nothing_lost(
    tmp_path: Path, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = leave(tmp_path, make_record, 100)
    (path,) = paths(left.worker)
    with path.open("r+b") as file:
        file.write(bytes(10))

    def cut_off(source: Path, target: Path) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patched:
        patched.setattr("watchkeeper.telemetry.adoption.os.replace", cut_off)
        with pytest.raises(OSError, match="killed"):
            adopt(left.worker)
    assert list(segments(left.folder).torn) == [path]
    adopt(left.worker)
    assert left.records.keys() <= {row.request_id for row in read(left.folder)}
    assert sorted(one.name for one in left.worker.iterdir()) == ["1.log", "1.torn", "1.torn.txt", "lock"]


def test_a_worker_starts_on_a_torn_file_and_goes_on(tmp_path: Path, make_record: Make) -> None:
    left = leave(tmp_path, make_record, 100)
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
    left = leave(tmp_path, make_record, 200, segment_bytes=200_000)
    files = paths(left.worker)
    assert len(files) > 3
    torn = files[-2]
    with reading(torn) as whole:
        damaged = [head for head in whole.rows(whole.before.records) if head.kind == frames.RECORD][5:9]
    with torn.open("r+b") as file:
        for head in damaged:
            file.seek(head.offset + frames.HEAD_BYTES)
            file.write(bytes(200))
    assert left.open & accepted_in(files[-1])
    mend_all({torn: "for this test"})
    adopt(left.worker)
    rows = read(left.folder)
    assert [row.sequence for row in rows] == list(range(1, len(rows) + 1)), "stand-ins have the numbers of what is lost"
    records = check_all_but_feedback(left)
    lost = {name for name, record in records.items() if record.error == TORN}
    assert lost == {head.name for head in damaged}


def check_all_but_feedback(left: Left) -> dict[str, Record]:
    records = {row.request_id: decode(row.body) for row in read(left.folder) if row.kind == RECORD}
    assert records.keys() == left.records.keys() | left.open
    return records


def test_a_living_worker_leaves_the_file_that_is_torn_and_then_it_is_mended(tmp_path: Path, make_record: Make) -> None:
    async def run() -> None:
        spool = Spool.open(tmp_path, "w0")
        for _ in range(3):
            await spool.append(make_record())
        (path,) = paths(tmp_path / "w0")
        with reading(path) as file:
            damaged = list(file.rows(0))[1]
        with path.open("r+b") as torn:
            torn.seek(damaged.offset + frames.HEAD_BYTES)
            torn.write(b"torn")
        for _ in range(2):
            assert mend_all({path: "so it was said"}) == [], "it is its worker's"
        await spool.append(make_record())
        assert len(paths(tmp_path / "w0")) == 2
        assert len(mend_all({path: "so it was said"})) == 1
        await spool.close()

    asyncio.run(run())
    assert [row.sequence for row in read(tmp_path)] == [1, 3, 4]


def test_what_was_mended_meanwhile_is_not_mended_again(tmp_path: Path, make_record: Make) -> None:
    """Two feeds may come upon one tear, the second still reading the old file when the first had it mended."""
    left = leave(tmp_path, make_record, 50)
    (path,) = paths(left.worker)
    (before,) = segments(left.folder).segments
    with path.open("r+b") as file:
        file.seek(-20, os.SEEK_END)
        file.write(bytes(10))
    assert len(mend_all({path: "a body is not what it was"})) == 1
    note = path.with_suffix(".torn.txt").read_text()
    assert mend_all({path: "a body is not what it was"}) == []
    assert path.with_suffix(".torn.txt").read_text() == note
    with pytest.raises(SegmentUnreadable, match="mended meanwhile"):
        before.rows(0)


@given(seed=st.integers(0, 10**6), count=st.integers(1, 120))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_it_is_torn_rows_are_whole_or_told_to_be_lost(
    seed: int, count: int, tmp_path_factory: pytest.TempPathFactory, make_record: Make
) -> None:
    left = leave(tmp_path_factory.mktemp("left"), make_record, count)
    rng = random.Random(seed)
    (path,) = paths(left.worker)
    for _ in range(rng.randint(1, 3)):
        size = path.stat().st_size
        if not size:
            break
        with path.open("r+b") as file:
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

    async def again() -> None:
        await Spool.open(left.folder, "w0").close()

    asyncio.run(again())
    shutil.rmtree(left.folder)
