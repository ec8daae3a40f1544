"""The shipper's housekeeping: rounds that outlive what fails, and old days that go without being asked."""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from watchkeeper.lake.interactions import DAY, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record
from watchkeeper.settings import Retention, Settings
from watchkeeper.telemetry.housekeeping import Housekeeping

SHIP = """
import sys
from watchkeeper.cli.main import main
from watchkeeper.telemetry import shipper

shipper.UPKEEP_S, shipper.GRACE_S = 0.0, 0.3  # it begins at once, and is waited for less than it takes
sys.argv[1:] = ["ship", "--once", "--config", sys.argv[1]]
main()
"""

NOW = 20_602 * DAY
"""2026-05-29 (µs)."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, retention=Retention(interactions="30d"))


def append(lake: Lake, name: str, ago: int) -> None:
    lake.append("interactions", to_arrow([Record(request_id=name, received_at=NOW - ago * DAY)]))


def names(lake: Lake) -> list[str]:
    found: list[str] = lake.query("SELECT request_id FROM interactions ORDER BY 1").column(0).to_pylist()
    return found


def test_old_days_go_hourly(settings: Settings) -> None:
    now = NOW / 1e6
    lake = Lake(settings.lake_uri)
    keeping = Housekeeping(settings, lake, threading.Event(), clock=lambda: now)
    append(lake, f"{1:032x}", 31)
    append(lake, f"{2:032x}", 1)
    keeping()
    keeping.wait()
    assert names(lake) == [f"{2:032x}"]
    append(lake, f"{3:032x}", 31)
    now += 3599
    keeping()
    keeping.wait()
    assert len(names(lake)) == 2
    now += 1
    keeping()
    keeping.wait()
    assert names(lake) == [f"{2:032x}"]
    assert datetime.fromtimestamp(now, UTC).hour == 1


def test_what_fails_is_said_and_tried_again(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    lake = Lake(settings.lake_uri)
    append(lake, f"{1:032x}", 31)
    log = Path(lake.uri, "interactions", "_delta_log", f"{0:020}.json")
    whole = log.read_bytes()
    log.write_bytes(b"no json")
    keeping = Housekeeping(settings, Lake(lake.uri), threading.Event(), clock=lambda: NOW / 1e6)
    with caplog.at_level(logging.WARNING):
        keeping()
        keeping.wait()
    assert "cannot be opened" in caplog.text
    log.write_bytes(whole)
    keeping()
    keeping.wait()
    assert names(lake) == []


def test_a_shipper_that_ends_amid_housekeeping_ends_well(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """Not with the crash of a thread that is inside the lake's native code when the interpreter is taken down."""
    lake = Lake(str(tmp_path / "lake"))
    for batch in range(60):
        told = [Record(request_id=f"{batch * 1000 + n:032x}", received_at=NOW, total_ms=1.0) for n in range(1000)]
        lake.append("interactions", to_arrow(told))
    config = tmp_path / "watchkeeper.toml"
    config.write_text(f'data = "{tmp_path}"\n[mlflow]\nuri = "http://127.0.0.1:{free_port()}"\n')
    done = subprocess.run([sys.executable, "-c", SHIP, str(config)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
