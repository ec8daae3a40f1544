"""How deep a spool is, with a shipper that reports, one that is gone, and none."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from watchkeeper.record import Record
from watchkeeper.telemetry.depth import Depth, SinkDepth, depth
from watchkeeper.telemetry.shipper import ShipperStatus, SinkStatus
from watchkeeper.telemetry.spool import Spool

NOW = 1_790_000_100.0
LIMIT = 100_000_000


def looked(data: Path, now: float = NOW) -> Depth:
    return depth(data, data / "spool", LIMIT, lambda: now)


def spooled(data: Path, make_record: Callable[..., Record], worker: str, *ages: float) -> None:
    async def append() -> None:
        spool = Spool.open(data / "spool", worker)
        for age in ages:
            await spool.append(make_record(received_at=int((NOW - age) * 1e6)))
        await spool.close()

    asyncio.run(append())


def test_rows_bytes_and_age_are_read_off_the_files(tmp_path: Path, make_record: Callable[..., Record]) -> None:
    spooled(tmp_path, make_record, "w0", 30, 10, 5)
    spooled(tmp_path, make_record, "w1", 50)
    found = looked(tmp_path)
    assert (found.rows, found.oldest_s, found.unreadable) == (4, 50.0, {})
    assert found.room.used > 4 * 500
    assert found.room.limit == LIMIT
    assert (found.sinks, found.said_s) == ({}, None)


def test_an_empty_spool_is_told_as_such(tmp_path: Path) -> None:
    found = looked(tmp_path)
    assert (found.rows, found.oldest_s, found.room.used) == (0, None, 0)


def test_a_clock_that_was_set_back_makes_nothing_younger_than_now(
    tmp_path: Path, make_record: Callable[..., Record]
) -> None:
    spooled(tmp_path, make_record, "w0", 0)
    assert looked(tmp_path, NOW - 3600).oldest_s == 0.0


def test_what_the_shipper_says_comes_with_its_age(tmp_path: Path) -> None:
    torn = tmp_path / "spool" / "w0" / "1.log"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"this is no database, and was one" * 200)
    os.truncate(torn, 4_000)
    status = ShipperStatus(
        at=int((NOW - 3) * 1e6),
        started_at=0,
        sinks={"mlflow": SinkStatus(5, 7, 2.5, "HTTP 503"), "lake": SinkStatus(12, 0, None, None)},
        dead_lettered=0,
        unreadable={str(torn): "torn", "/gone/1.log": "torn"},
    )
    (tmp_path / "shipper.json").write_bytes(msgspec.json.encode(status))
    found = looked(tmp_path)
    assert found.said_s is not None
    assert abs(found.said_s - 3.0) < 0.001
    assert found.sinks == {"mlflow": SinkDepth(7, 2.5, "HTTP 503"), "lake": SinkDepth(0)}
    assert list(found.unreadable) == [str(torn)], "what is gone is not held against anyone"


def test_a_torn_report_is_none(tmp_path: Path) -> None:
    (tmp_path / "shipper.json").write_bytes(b'{"at": 1')
    assert looked(tmp_path).said_s is None
