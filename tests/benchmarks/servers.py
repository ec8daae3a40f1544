"""The servers that benchmarks measure against: real processes on free ports that end with the measurement."""

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import requests

from watchkeeper.settings import Mlflow, Settings
from watchkeeper.tracking import BEHIND, server_command

START_S: Final = 180.0
STOP_S: Final = 60.0
WHOLE: Final = """
SELECT count(*) FROM (
    SELECT trace_info.request_id FROM trace_info
    JOIN experiments ON experiments.experiment_id = trace_info.experiment_id AND experiments.name = ?
    JOIN spans ON spans.trace_id = trace_info.request_id
    WHERE trace_info.status = 'OK' GROUP BY trace_info.request_id HAVING count(*) = ?)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: list[str], ready: Callable[[], bool], log: Path, env: dict[str, str] | None = None) -> Iterator[int]:
    """A command while the block runs, from when it is `ready`. Yields its process id."""
    with log.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **(env or {})})
    try:
        deadline = time.monotonic() + START_S
        while not ready():
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[:4]} does not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield child.pid
    finally:
        child.terminate()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def process(command: list[str], ready: str, log: Path, env: dict[str, str] | None = None) -> Iterator[int]:
    """A command that answers at `ready` while the block runs. Yields its process id."""
    with running(command, lambda: _answers(ready), log, env) as pid:
        yield pid


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process and its children have used so far, in all their threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(cpu_s(int(child)) for child in children)


def resident_mb(pid: int) -> float:
    """Memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int | None = None) -> Iterator[tuple[str, int]]:
    """An MLflow server as `watchkeeper up` starts it. Yields its URI and its process id."""
    folder.mkdir(parents=True, exist_ok=True)
    uri = f"http://127.0.0.1:{port or free_port()}"
    command, env = server_command(Settings(mlflow=Mlflow(uri=uri)), folder)
    with process(command, f"{uri}/health", folder / "mlflow.log", env) as pid:
        yield uri, pid


def whole_traces(folder: Path, experiment: str, spans: int) -> int:
    """How many traces of that many spans the MLflow server in `folder` has finished, by its own database."""
    where = f"{(folder / 'mlflow' / 'mlflow.db').absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(where, uri=True, timeout=30)) as database:
        return int(database.execute(WHOLE, (experiment, spans)).fetchone()[0])


@contextlib.contextmanager
def shipper(config: Path) -> Iterator[int]:
    """A shipper as `watchkeeper up` starts it, whose data folder is beside `config`. Yields its process id."""
    status = config.parent / "data" / "shipper.json"
    status.unlink(missing_ok=True)
    command = [*BEHIND, sys.executable, "-m", "watchkeeper", "ship", "--config", str(config)]
    with running(command, status.is_file, config.parent / "shipper.log") as pid:
        yield pid


@contextlib.contextmanager
def gateway(folder: Path, toml: str, program: Sequence[str] = ("-m", "watchkeeper")) -> Iterator[tuple[str, int]]:
    """A gateway with these settings, in `folder / "watchkeeper.toml"`. Yields its URL and its process id."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = folder / "watchkeeper.toml"
    config.write_text(f'data = "{folder / "data"}"\n[gateway]\nport = {port}\n{toml}')
    command = [sys.executable, *program, "serve", "--config", str(config)]
    url = f"http://127.0.0.1:{port}"
    with process(command, f"{url}/health/live", folder / "gateway.log") as pid:
        yield url, pid
