"""Erased rows keep their place in the spool, and not a byte of what stood in them, while gateway and shipper go on."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from watchkeeper.feedback import Feedback
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record
from watchkeeper.telemetry import erasure
from watchkeeper.telemetry.dead_letters import DeadLetters
from watchkeeper.telemetry.segment import ERASED, UNSAID, reading, segments, unfinished
from watchkeeper.telemetry.sinks import LAKE, Dropped, LakeSink
from watchkeeper.telemetry.spool import Spool

pytestmark = pytest.mark.anyio

PLANTED = "zyxplanted"


def holding(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and PLANTED.encode() in path.read_bytes()]


async def spooled(tmp_path: Path, *rows: Record | Feedback, segment_bytes: int = 1 << 20) -> Spool:
    spool = Spool.open(tmp_path / "spool", "gateway-0", segment_bytes=segment_bytes)
    for row in rows:
        if isinstance(row, Record):
            spool.accept(row.request_id, row.received_at)
        await spool.append(row)
    return spool


def kinds(tmp_path: Path) -> list[str]:
    return [row.kind for segment in segments(tmp_path / "spool").segments for row in segment.rows(segment.first - 1)]


async def test_what_is_erased_leaves_a_row_and_no_byte_in_open_and_sealed_segments(
    tmp_path: Path, make_record: Callable[..., Record], make_feedback: Callable[..., Feedback]
) -> None:
    meant = [make_record(prompt_text=PLANTED * 900, user="ana") for _ in range(20)]
    other = [make_record(prompt_text="kept") for _ in range(20)]
    said = [make_feedback(meant[0].request_id, comment=PLANTED), make_feedback(other[0].request_id, comment="kept")]
    own = make_feedback(other[1].request_id, comment=PLANTED)
    mixed = [one for pair in zip(meant, other, strict=True) for one in pair]
    spool = await spooled(tmp_path, *mixed, *said, own, segment_bytes=60_000)
    assert len(segments(tmp_path / "spool").segments) > 2
    assert holding(tmp_path)

    ids = {record.request_id for record in meant}
    done = erasure.erase(tmp_path / "spool", ids, {own.feedback_id})
    assert (done.rows, done.unreached) == (22, ())
    assert holding(tmp_path) == []
    assert sorted(kinds(tmp_path)) == sorted([ERASED] * 20 + ["record"] * 20 + [UNSAID] * 2 + ["feedback"])
    assert unfinished(tmp_path / "spool") == set(), "the record of each is still known to be there"
    assert sum(len(segment.ids()[1]) for segment in segments(tmp_path / "spool").segments) == 40
    await spool.append(make_record(prompt_text="later"))
    await spool.close()
    assert erasure.erase(tmp_path / "spool", ids, {own.feedback_id}).rows == 0


async def test_no_sink_takes_what_was_erased(
    tmp_path: Path, make_record: Callable[..., Record], make_feedback: Callable[..., Feedback]
) -> None:
    meant, other = make_record(prompt_text=PLANTED), make_record(prompt_text="kept")
    spool = await spooled(tmp_path, meant, other, make_feedback(meant.request_id, comment=PLANTED))
    erasure.erase(tmp_path / "spool", {meant.request_id}, ())
    lake, letters = Lake(str(tmp_path / "lake")), DeadLetters(tmp_path)
    sink = LakeSink(lake, Dropped(letters, LAKE))
    (segment,) = segments(tmp_path / "spool").segments
    assert sink.step(segment) == 3
    assert sink.position(segment) == segment.last
    assert lake.query("SELECT prompt_text FROM interactions").column(0).to_pylist() == ["kept"]
    assert lake.query("SELECT * FROM feedback").num_rows == letters.count() == 0
    letters.close()
    await spool.close()


async def test_what_waits_is_read_whole_and_what_cannot_be_is_named(
    tmp_path: Path, make_record: Callable[..., Record], make_feedback: Callable[..., Feedback]
) -> None:
    record = make_record(user="ana")
    said = make_feedback(record.request_id)
    spool = await spooled(tmp_path, record, said)
    await spool.close()
    assert list(erasure.waiting(tmp_path / "spool")) == [record, said]
    (path,) = (tmp_path / "spool").rglob("*.log")
    torn = path.with_name("7.log")
    torn.write_bytes(b"this is no segment" * 400)
    assert list(erasure.waiting(tmp_path / "spool")) == [record, said]
    done = erasure.erase(tmp_path / "spool", {record.request_id}, ())
    assert done.rows == 2
    assert [line.split(":")[0] for line in done.unreached] == [str(torn)]


async def test_erasing_that_is_cut_off_is_finished_the_next_time_and_nobody_holds_the_file_for_torn(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    record, other = make_record(prompt_text=PLANTED), make_record(prompt_text="kept")
    spool = await spooled(tmp_path, record, other)
    written = os.pwrite
    calls: list[int] = []

    def cut_off(descriptor: int, data: bytes, at: int) -> int:
        calls.append(at)
        if len(calls) == 2:  # the first says that it is erased
            raise OSError("killed")
        return written(descriptor, data, at)

    with monkeypatch.context() as patched:
        patched.setattr("watchkeeper.telemetry.frames.os.pwrite", cut_off)
        assert erasure.erase(tmp_path / "spool", {record.request_id}, ()).unreached
    assert holding(tmp_path)
    assert kinds(tmp_path) == [ERASED, "record"]
    assert erasure.erase(tmp_path / "spool", {other.request_id}, ()).rows == 2, "whatever is erased now"
    assert holding(tmp_path) == []
    assert kinds(tmp_path) == [ERASED, ERASED]
    await spool.close()


async def test_who_reads_a_row_while_it_is_erased_gets_it_whole_or_not_at_all(
    tmp_path: Path, make_record: Callable[..., Record]
) -> None:
    record = make_record(prompt_text=PLANTED)
    spool = await spooled(tmp_path, record)
    (segment,) = segments(tmp_path / "spool").segments
    with reading(segment.path) as file:
        (head,) = file.rows(0)
        erasure.erase(tmp_path / "spool", {record.request_id}, ())
        assert file.row(head).kind == ERASED
    await spool.close()
