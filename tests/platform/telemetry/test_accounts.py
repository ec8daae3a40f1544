"""What a segment leaves in the books, and every number that is missing, inside a segment and between those of a worker."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from watchkeeper.record import Record, encode
from watchkeeper.telemetry.accounts import Account, account, gaps
from watchkeeper.telemetry.frames import ACCEPT, RECORD, frame
from watchkeeper.telemetry.pen import Pen
from watchkeeper.telemetry.segment import Tail, segments
from watchkeeper.telemetry.spool import Spool

Make = Callable[..., Record]


def kept(number: int, accepts: tuple[int, int], rows: tuple[int, int], worker: str = "w0") -> Account:
    return Account(
        segment=f"{worker}-{number}",
        worker=worker,
        number=number,
        accepted=(),
        hours=(),
        spooled=(),
        accepts=accepts,
        rows=rows,
    )


def test_what_stands_for_a_lost_record_is_delivered_and_makes_no_gap_whatever_number_it_got(
    tmp_path: Path, make_record: Make
) -> None:
    """Where none was free its number is from before the segment that is mended."""
    records = {4: make_record(), 6: make_record()}
    (tmp_path / "w0").mkdir()
    pen = Pen.create(tmp_path / "w0" / "2.log", "process", Tail(5, 5), [(3, records[4].request_id, 1)], mended=True)
    pen.write([frame(ACCEPT, 6, 1, records[6].request_id)])
    pen.write([frame(RECORD, number, 1, one.request_id, encode(one)) for number, one in records.items()])
    pen.seal(Tail(6, 6))
    pen.release()
    (segment,) = segments(tmp_path).segments
    assert [row.sequence for row in segment.rows(segment.first - 1)] == [4, 6]
    found = account(segment)
    assert (found.gaps, found.accepts, found.rows) == ((), (6, 6), (6, 6))
    assert len(found.spooled) == 2


def test_many_small_segments_with_accepts_carried_on_have_no_gap(tmp_path: Path, make_record: Make) -> None:
    records = [make_record() for _ in range(40)]

    async def run() -> None:
        spool = Spool.open(tmp_path, "w0", segment_bytes=4_000)
        for record in records:
            spool.accept(record.request_id, record.received_at)
        for record in reversed(records):
            await spool.append(record)
        await spool.close()

    asyncio.run(run())
    accounts = [account(segment) for segment in segments(tmp_path).segments]
    assert len(accounts) > 5
    assert gaps(accounts) == []
    assert accounts[0].accepts == (1, 40)
    assert {one.accepts for one in accounts[1:]} == {(41, 40)}, "the others only carry them on"
    assert {name for one in accounts for name in one.accepted} == {record.request_id for record in records}
    assert set(accounts[0].hours) == {records[0].received_at // 3_600_000_000}
    del accounts[2]
    (gap,) = gaps(accounts)
    assert gap.startswith("worker w0: row")


@pytest.mark.parametrize(
    ("accounts", "expected"),
    [
        ([kept(1, (1, 5), (1, 4)), kept(2, (6, 9), (5, 9))], []),
        ([kept(1, (1, 5), (1, 4)), kept(2, (6, 5), (5, 4)), kept(3, (6, 7), (5, 6))], []),
        ([kept(1, (1, 5), (1, 4)), kept(1, (1, 9), (1, 9))], []),
        ([kept(2, (6, 9), (5, 9))], ["worker w0: accepts 1 to 5 are missing", "worker w0: rows 1 to 4 are missing"]),
        ([kept(1, (1, 5), (1, 4)), kept(3, (7, 9), (5, 9))], ["worker w0: accept 6 is missing"]),
        ([kept(1, (1, 5), (1, 4)), kept(2, (6, 9), (5, 9), "w1")], [
            "worker w1: accepts 1 to 5 are missing",
            "worker w1: rows 1 to 4 are missing",
        ]),
    ],
)  # fmt: skip
def test_each_segment_follows_on_another_of_its_worker(accounts: list[Account], expected: list[str]) -> None:
    assert gaps(accounts) == expected
