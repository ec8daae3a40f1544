"""The servers that benchmarks measure against: real processes on free ports that end with the measurement."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import requests

from watchkeeper.settings import Mlflow, Settings
from watchkeeper.tracking import server_command


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def process(command: list[str], ready: str, log: Path, env: dict[str, str] | None = None) -> Iterator[int]:
    """A command that answers at `ready` while the block runs. Yields its process id."""
    with log.open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **(env or {})})
    try:
        deadline = time.monotonic() + 120
        while not _answers(ready):
            if running.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[:4]} does not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield running.pid
    finally:
        running.terminate()
        running.wait(60)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """An MLflow server as `watchkeeper up` starts it. Yields its URI."""
    uri = f"http://127.0.0.1:{free_port()}"
    command, env = server_command(Settings(mlflow=Mlflow(uri=uri)), folder)
    with process(command, f"{uri}/health", folder / "mlflow.log", env):
        yield uri


@contextlib.contextmanager
def gateway(folder: Path, toml: str) -> Iterator[tuple[str, int]]:
    """A gateway with these settings. Yields its URL and its process id."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = folder / "watchkeeper.toml"
    config.write_text(f'data = "{folder / "data"}"\n[gateway]\nport = {port}\n{toml}')
    command = [sys.executable, "-m", "watchkeeper", "serve", "--config", str(config)]
    url = f"http://127.0.0.1:{port}"
    with process(command, f"{url}/health/live", folder / "gateway.log") as pid:
        yield url, pid
