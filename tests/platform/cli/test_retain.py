"""`watchkeeper retain`, as it is typed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from watchkeeper.lake.interactions import DAY, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record

LIMITED = {"WATCHKEEPER_RETENTION__INTERACTIONS": "30d"}


def type_in(data: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "watchkeeper", "retain", *words, "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, cwd=data, env={**os.environ, **environment}, timeout=60)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A request of today and one of 40 days ago."""
    lake = Lake(str(tmp_path / "lake"))
    for ago in (0, 40):
        at = int(time.time() * 1e6) - ago * DAY
        text = "my number is 079 444 55 66" if ago else ""
        lake.append("interactions", to_arrow([Record(request_id=f"{ago:032x}", received_at=at, prompt_text=text)]))
    return lake


def holding(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and b"079 444 55 66" in path.read_bytes()]


def test_old_days_go_with_their_files(lake: Lake, tmp_path: Path) -> None:
    looked = json.loads(type_in(tmp_path, "--dry-run", "--json", **LIMITED).stdout)
    assert looked["dry_run"]
    assert {one["what"]: one["dropped"] for one in looked["dropped"]} == {"interactions": 1, "scores": 0, "feedback": 0}
    assert lake.query("SELECT count(*) AS n FROM interactions").to_pylist() == [{"n": 2}]
    assert holding(tmp_path)
    done = type_in(tmp_path, "--json", **LIMITED)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["dropped"][0] | {"before": None} == {
        "what": "interactions", "days": 30, "before": None, "dropped": 1, "error": None, "elsewhere": None
    }  # fmt: skip
    assert "interactions: 1 gone" in done.stderr
    assert lake.query("SELECT request_id FROM interactions").column(0).to_pylist() == ["0" * 32]
    assert not holding(tmp_path)
    again = type_in(tmp_path, **LIMITED)
    assert "interactions: 0 gone" in again.stderr
    assert "from before" in again.stdout


def test_where_nothing_is_limited_everything_stays_and_it_says_so(lake: Lake, tmp_path: Path) -> None:
    done = type_in(tmp_path)
    assert done.returncode == 0
    assert "everything is kept for ever" in done.stderr
    assert json.loads(type_in(tmp_path, "--json").stdout) == {"dry_run": False, "dropped": []}
    assert holding(tmp_path)


def test_what_cannot_be_reached_is_named_and_exits_1(lake: Lake, tmp_path: Path) -> None:
    for file in Path(lake.uri, "interactions", "_delta_log").iterdir():
        file.write_text("no json")
    done = type_in(tmp_path, "--json", **LIMITED)
    assert done.returncode == 1
    assert "cannot be opened" in json.loads(done.stdout)["dropped"][0]["error"]


@pytest.mark.parametrize("value", ["36h", "0d", "soon"])
def test_only_whole_days_are_taken(tmp_path: Path, value: str) -> None:
    done = type_in(tmp_path, WATCHKEEPER_RETENTION__INTERACTIONS=value)
    assert done.returncode == 2
    assert f"WATCHKEEPER_RETENTION__INTERACTIONS: is whole days, such as 90d, not '{value}'" in done.stderr
