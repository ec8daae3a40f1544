"""Many small appends become few files, and nobody can tell by what is read."""

import contextlib
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest

from watchkeeper.lake import upkeep
from watchkeeper.lake.interactions import DAY, to_arrow
from watchkeeper.lake.lake import Lake, LakeUnavailable
from watchkeeper.lake.rollup import Rollups, roll_up
from watchkeeper.lake.upkeep import clean, tidy
from watchkeeper.record import Record

START = 20_602 * DAY


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake to which twelve batches over two days were appended."""
    lake = Lake(str(tmp_path))
    for number in range(12):
        append(lake, number)
    return lake


def append(lake: Lake, number: int) -> None:
    one = Record(request_id=f"{number}", received_at=START + number // 6 * DAY + number, total_ms=float(number))
    lake.append("interactions", to_arrow([one]), app_id="shipper", version=number)
    lake.append("rollups", roll_up([one]), app_id="shipper", version=number)


def counted(lake: Lake) -> tuple[list[int], float, list[str]]:
    rollups = Rollups.read(lake, START, START + 2 * DAY, bucket_s=86_400)
    found = lake.query("SELECT request_id FROM interactions ORDER BY request_id::INT")
    return rollups.n.tolist(), rollups.percentile("total", 1.0), found.column(0).to_pylist()


def test_few_files_say_the_same(lake: Lake) -> None:
    before = counted(lake)
    assert sorted(tidy(lake, 5)) == ["interactions", "rollups"]
    for table in ("interactions", "rollups"):
        assert [len(sizes) for sizes in lake.files(table).values()] == [1, 1]
    parts = lake.query("SELECT count(*) AS rows, count(DISTINCT part) AS parts FROM rollups GROUP BY date").to_pylist()
    assert parts == [{"rows": 3, "parts": 3}] * 2, "partial rows were summed"
    assert counted(lake) == before
    assert before[0] == [6, 6]


def test_what_was_appended_before_is_still_known_to_be_there(lake: Lake) -> None:
    tidy(lake, 5)
    append(lake, 11)
    append(lake, 12)
    assert counted(lake)[2] == [str(number) for number in range(13)]


def test_there_is_nothing_to_do_twice(lake: Lake) -> None:
    tidy(lake, 5)
    versions = [lake.version(table) for table in ("interactions", "rollups")]
    assert tidy(lake, 5) == []
    assert [lake.version(table) for table in ("interactions", "rollups")] == versions


def test_an_empty_lake_needs_nothing(tmp_path: Path) -> None:
    assert tidy(Lake(str(tmp_path))) == []


def test_joined_files_are_joined_again_when_there_are_many(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first size is so small here that each joined file is done with; the second takes them all."""
    monkeypatch.setattr(upkeep, "TIERS", (10, 1_000_000))
    assert "interactions" in tidy(lake, 5)
    assert [len(sizes) for sizes in lake.files("interactions").values()] == [1, 1]


def files(lake: Lake, pattern: str) -> list[str]:
    return sorted(path.name for path in Path(lake.uri).rglob(pattern))


def test_old_versions_end_with_their_files_and_their_log(lake: Lake) -> None:
    tidy(lake, 5)
    clean(lake, 3600)
    assert len(files(lake, "*.parquet")) > 26, "twelve batches in two tables, and what they became"
    assert lake.query("SELECT * FROM interactions", version={"interactions": 3}).num_rows == 3
    before = counted(lake)
    reader = Lake(lake.uri)
    assert counted(reader) == before
    for table in ("interactions", "rollups"):
        lake.vacuum(table, 0)
        lake.trim(table, 0)
    time.sleep(1.1)  # what is less than a second old stays
    for table in ("interactions", "rollups"):
        lake.trim(table, 0)
    assert len([name for name in files(lake, "*.parquet") if "checkpoint" not in name]) == 4
    assert len(files(lake, "*.json")) <= 4
    append(lake, 12)
    assert counted(reader)[2] == counted(Lake(lake.uri))[2] == [str(number) for number in range(13)]
    assert lake.transaction_version("interactions", "shipper") == 12


def test_what_a_crash_left_goes_when_no_writer_can_be_at_it_any_more(lake: Lake) -> None:
    left = [Path(lake.uri, "interactions", "date=2026-05-29", f"part-{name}.parquet") for name in ("fresh", "old")]
    for path in left:
        path.write_bytes(b"my number is 079 444 55 66")
    os.utime(left[1], (time.time() - 7300,) * 2)
    clean(lake, 60)
    assert [path.exists() for path in left] == [True, False]
    assert len(counted(lake)[2]) == 12


WRITER = """
import sys
from watchkeeper.lake.interactions import DAY, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import roll_up
from watchkeeper.record import Record
lake = Lake(sys.argv[1])
for number in range(int(sys.argv[2])):
    one = Record(request_id=str(number), received_at=20_602 * DAY + number % 2 * DAY, total_ms=1.0)
    lake.append("interactions", to_arrow([one]), app_id="writer", version=number + 1)
    lake.append("rollups", roll_up([one]), app_id="writer", version=number + 1)
"""


def test_upkeep_beside_a_writer_and_readers_loses_nothing_and_disturbs_nobody(tmp_path: Path) -> None:
    """A real writer appends; here files are joined, days dropped, old versions ended at once; readers go on counting."""
    lake, reader = Lake(str(tmp_path)), Lake(str(tmp_path))
    old = [Record(request_id=f"old {number}", received_at=START - DAY) for number in range(3)]
    lake.append("interactions", to_arrow(old))
    lake.append("rollups", roll_up(old))
    writer = subprocess.Popen([sys.executable, "-c", WRITER, lake.uri, "60"])
    seen, joined = 0, set[str]()
    while writer.poll() is None:
        # On a busy machine the writer may be first twenty times in a row: then it is the next round's to join.
        with contextlib.suppress(LakeUnavailable):
            joined.update(tidy(lake, 3))
        for table in ("interactions", "rollups"):
            lake.drop(table, date(2026, 5, 29))
            lake.vacuum(table, 0)
            lake.trim(table, 1)
        rows = reader.query("SELECT count(*) AS n, count(DISTINCT request_id) AS ids FROM interactions").to_pylist()[0]
        assert rows["n"] == rows["ids"] >= seen, "never fewer than before, none twice"
        seen = rows["n"]
        Rollups.read(reader, START, START + 2 * DAY)
    assert writer.returncode == 0
    joined.update(tidy(lake, 3))
    assert joined
    found = lake.query("SELECT request_id FROM interactions ORDER BY request_id::INT").column(0).to_pylist()
    assert found == [str(number) for number in range(60)]
    assert Rollups.read(reader, START, START + 2 * DAY).n.sum() == 60
    assert lake.transaction_version("interactions", "writer") == 60
