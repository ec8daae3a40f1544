"""The supervisor: what ends is started again, what is asked to stop stops, and what cannot start is named."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from watchkeeper.cli.output import WrongUse
from watchkeeper.cli.up import Child, Supervisor, check_ports, children, claim
from watchkeeper.settings import Gateway, Settings

WAIT = "import time; time.sleep(600)"


def child(folder: Path, code: str, ready_url: str | None = None) -> Child:
    return Child("it", [sys.executable, "-c", code], folder / "it.log", env={}, ready_url=ready_url)


def test_what_ends_is_started_again_and_stops_when_told(tmp_path: Path, wait_for: Callable[..., None]) -> None:
    told: list[str] = []
    kept = child(tmp_path, WAIT)
    supervisor = Supervisor([kept], told.append)
    supervisor.start()
    supervisor.wait_ready(within_s=20)
    first = kept.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: kept.restarts == 1, what="a second start")
    assert kept.pid != first
    assert told == [f"it ended with code -9; starting it again (log: {tmp_path / 'it.log'})"]
    supervisor.stop()
    assert not kept.ready()


def test_what_does_not_start_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    kept = child(tmp_path, "raise SystemExit('no such luck')", ready_url="http://127.0.0.1:9/")
    supervisor = Supervisor([kept], lambda line: None)
    supervisor.start()
    with pytest.raises(WrongUse, match="it does not start") as error:
        supervisor.wait_ready(within_s=30)
    assert "no such luck" in str(error.value)
    supervisor.stop()


def test_a_port_that_is_taken_names_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(WrongUse, match=rf"port {port} is in use; set another one for gateway\.port"):
            check_ports(Settings(gateway=Gateway(port=port)))


def test_one_up_runs_on_a_data_folder(tmp_path: Path) -> None:
    with claim(tmp_path), pytest.raises(WrongUse, match="already running"):
        claim(tmp_path)
    claim(tmp_path).close()


def test_what_is_started_stops_in_order_the_schedule_before_mlflow(tmp_path: Path) -> None:
    names = [child.name for child in children(Settings(data=tmp_path), None)]
    assert names == ["serve", "ship", "schedule", "dashboard", "model", "encoder", "mlflow"]
