"""Many small appends become few files, and nobody can tell by what is read."""

from pathlib import Path

import pytest

from watchkeeper.lake import upkeep
from watchkeeper.lake.interactions import DAY, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import Rollups, roll_up
from watchkeeper.lake.upkeep import tidy
from watchkeeper.record import Record

START = 20_602 * DAY


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake to which twelve batches over two days were appended, and where six files too many are too many."""
    monkeypatch.setattr(upkeep, "SMALL_FILES", 6)
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
    assert sorted(tidy(lake)) == ["interactions", "rollups"]
    for table in ("interactions", "rollups"):
        assert [len(sizes) for sizes in lake.files(table).values()] == [1, 1]
    assert lake.query("SELECT * FROM rollups").num_rows == 2, "partial rows were summed"
    assert counted(lake) == before
    assert before[0] == [6, 6]


def test_what_was_appended_before_is_still_known_to_be_there(lake: Lake) -> None:
    tidy(lake)
    append(lake, 11)
    append(lake, 12)
    assert counted(lake)[2] == [str(number) for number in range(13)]


def test_there_is_nothing_to_do_twice(lake: Lake) -> None:
    tidy(lake)
    versions = [lake.version(table) for table in ("interactions", "rollups")]
    assert tidy(lake) == []
    assert [lake.version(table) for table in ("interactions", "rollups")] == versions


def test_an_empty_lake_needs_nothing(tmp_path: Path) -> None:
    assert tidy(Lake(str(tmp_path))) == []


def test_joined_files_are_joined_again_when_there_are_many(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first size is so small here that each joined file is done with; the second takes them all."""
    monkeypatch.setattr(upkeep, "TIERS", (10, 1_000_000))
    assert "interactions" in tidy(lake)
    assert [len(sizes) for sizes in lake.files("interactions").values()] == [1, 1]
