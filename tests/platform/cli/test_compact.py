"""`watchkeeper compact`, as it is typed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from watchkeeper.lake.interactions import DAY, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import roll_up
from watchkeeper.record import Record


def type_in(data: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "watchkeeper", "compact", *words, "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, cwd=data, timeout=60)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake of three files a table."""
    lake = Lake(str(tmp_path / "lake"))
    for number in range(3):
        one = Record(request_id=f"{number:032x}", received_at=20_602 * DAY)
        lake.append("interactions", to_arrow([one]))
        lake.append("rollups", roll_up([one]))
    return lake


def test_files_are_joined_and_told_as_one_document(lake: Lake, tmp_path: Path) -> None:
    done = type_in(tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["tables"]
    assert {table: (sizes["before"]["files"], sizes["after"]["files"]) for table, sizes in told.items()} == {
        "interactions": (3, 1),
        "rollups": (3, 1),
    }
    assert told["interactions"]["after"]["bytes"] == sum(sum(sizes) for sizes in lake.files("interactions").values())
    assert "cleaning rollups" in done.stderr
    assert lake.query("SELECT count(*) AS n FROM interactions").to_pylist() == [{"n": 3}]


def test_people_get_a_table_and_an_empty_lake_is_fine(lake: Lake, tmp_path: Path) -> None:
    shown = type_in(tmp_path)
    assert shown.returncode == 0
    assert "files before" in shown.stdout
    assert "interactions" in shown.stdout
    empty = tmp_path / "empty"
    empty.mkdir()
    assert json.loads(type_in(empty, "--json").stdout) == {"tables": {}}


def test_a_lake_that_cannot_be_read_is_one_line(lake: Lake, tmp_path: Path) -> None:
    for file in Path(lake.uri, "interactions", "_delta_log").iterdir():
        file.write_text("no json")
    done = type_in(tmp_path)
    assert done.returncode == 2
    assert "interactions: cannot be opened" in done.stderr
    assert "Traceback" not in done.stderr
