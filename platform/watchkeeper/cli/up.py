"""`watchkeeper up`: starts every process of this set-up, waits until each answers, and keeps them running.

A child that ends is started again, after a pause that doubles while it keeps failing. SIGTERM and SIGINT stop the gateway
first, so that it drains, then the shipper, so that it delivers, then the schedule and the rest. Children stay in our
process group.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TextIO

import requests

from watchkeeper.cli.output import WrongUse, note, on_termination
from watchkeeper.settings import Settings

READY_S: Final = 180.0
DRAIN_S: Final = 35.0
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0
"""A child that ran this long is not failing repeatedly: its next pause is the first one again."""


class Child:
    """One process that is kept running. `ready_url`: answers with 200 once it is up; None: there is nothing to ask."""

    def __init__(self, name: str, command: Sequence[str], log: Path, *, env: dict[str, str], ready_url: str | None) -> None:
        self.name = name
        self.ready_url = ready_url
        self.log = log
        self.restarts = 0
        self._command = list(command)
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._pause = FIRST_PAUSE_S
        self._again_at = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **self._env}
            )
        self._started_at = time.monotonic()

    def keep(self, now: float) -> str | None:
        """Looks after the process; returns a line to tell when it ended or was started again."""
        if self._process is None or self._process.poll() is None:
            return None
        if self._again_at == 0.0:
            if now - self._started_at > STEADY_S:
                self._pause = FIRST_PAUSE_S
            self._again_at = now + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE_S)
            return f"{self.name} ended with code {self._process.returncode}; starting it again (log: {self.log})"
        if now >= self._again_at:
            self._again_at = 0.0
            self.start()
            self.restarts += 1  # what is counted has happened
        return None

    def ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            return False
        if self.ready_url is None:
            return True
        try:
            return requests.get(self.ready_url, timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when it has not drained in time."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(DRAIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def tail(self, lines: int = 5) -> str:
        """The end of its log, for an error message."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


def children(settings: Settings, config: Path | None) -> list[Child]:
    """The processes that this set-up needs, in the order in which they stop."""
    from watchkeeper.tracking import BEHIND, server_command

    def ours(name: str, ready_url: str | None, before: Sequence[str] = ()) -> Child:
        options = ["--data", str(settings.data), *(["--config", str(config)] if config else [])]
        command = [*before, sys.executable, "-m", "watchkeeper", name, *options]
        return Child(name, command, settings.data / "logs" / f"{name}.log", env={}, ready_url=ready_url)

    gateway, board = settings.gateway, settings.dashboard
    found = [
        # Not `ready`: a full spool is emptied by the shipper, which must be kept running.
        ours("serve", f"http://{gateway.host}:{gateway.port}/health/live"),
        ours("ship", None, BEHIND),
        ours("schedule", None, BEHIND),
        ours("dashboard", f"http://{board.host}:{board.port}/health/live"),
    ]
    if settings.starts_model:
        found.append(ours("model", f"http://{settings.model.host}:{settings.model.port}/health/ready"))
    if settings.encoder.base_url is None:
        found.append(ours("encoder", f"http://{settings.encoder.host}:{settings.encoder.port}/health/ready"))
    if settings.mlflow.start:
        command, env = server_command(settings, settings.data)
        log = settings.data / "logs" / "mlflow.log"
        found.append(Child("mlflow", command, log, env=env, ready_url=f"{settings.mlflow.uri}/health"))
    return found


class Supervisor:
    """Keeps the children running, in a thread, until it is stopped."""

    def __init__(self, kept: Sequence[Child], tell: Callable[[str], None] = note) -> None:
        self.children = list(kept)
        self._tell = tell
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self) -> None:
        """Starts all; the ones that others need come first."""
        for child in reversed(self.children):
            child.start()
        self._thread.start()

    def wait_ready(self, *, within_s: float = READY_S) -> None:
        """Waits until every child answers. Raises `WrongUse` with the end of the log of one that does not."""
        deadline = time.monotonic() + within_s
        waiting = list(self.children)
        while waiting and not self._stopping.is_set():
            waiting = [child for child in waiting if not child.ready()]
            failing = next((child for child in waiting if child.restarts >= 3), None)
            if failing or (waiting and time.monotonic() > deadline):
                child = failing or waiting[0]
                raise WrongUse(f"{child.name} does not start; the end of {child.log}:\n{child.tail()}")
            self._stopping.wait(0.2)

    def wait(self) -> None:
        """Until `stop`."""
        self._stopping.wait()

    def request_stop(self) -> None:
        """Ends `wait`; safe in a signal handler."""
        self._stopping.set()

    def stop(self) -> None:
        """Stops all, the gateway first."""
        self._stopping.set()
        self._thread.join()
        for child in self.children:
            child.stop()

    def _watch(self) -> None:
        while not self._stopping.wait(0.2):
            for child in self.children:
                line = child.keep(time.monotonic())
                if line:
                    self._tell(line)


def claim(data: Path) -> TextIO:
    """Makes sure that one `up` runs on a data folder; keep what is returned open. Raises `WrongUse`."""
    import fcntl

    data.mkdir(parents=True, exist_ok=True)
    lock = (data / "up.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise WrongUse(f"something is already running on {data}; stop it, or give another folder with --data") from None
    return lock


def check_ports(settings: Settings) -> None:
    """Raises `WrongUse` naming the setting of a port that something else holds."""
    for setting, host, port in ports(settings):
        if not is_free(host, port):
            raise WrongUse(f"port {port} is in use; set another one for {setting}")


def ports(settings: Settings) -> list[tuple[str, str, int]]:
    """(setting, host, port) of every server that `up` starts."""
    from urllib.parse import urlsplit

    wanted = [
        ("gateway.port", settings.gateway.host, settings.gateway.port),
        ("dashboard.port", settings.dashboard.host, settings.dashboard.port),
    ]
    if settings.starts_model:
        wanted.append(("model.port", settings.model.host, settings.model.port))
    if settings.encoder.base_url is None:
        wanted.append(("encoder.port", settings.encoder.host, settings.encoder.port))
    if settings.mlflow.start:
        parts = urlsplit(settings.mlflow.uri)
        wanted.append(("mlflow.uri", parts.hostname or "127.0.0.1", parts.port or 80))
    return wanted


def is_free(host: str, port: int) -> bool:
    import socket

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def run(settings: Settings, config: Path | None) -> None:
    """The command: runs until it is told to stop."""
    lock = claim(settings.data)
    check_ports(settings)
    supervisor = Supervisor(children(settings, config))
    on_termination(supervisor.request_stop)
    supervisor.start()
    try:
        supervisor.wait_ready()
        gateway, board = settings.gateway, settings.dashboard
        note(f"gateway    http://{gateway.host}:{gateway.port}/v1")
        note(f"dashboard  http://{board.host}:{board.port}")
        note(f"MLflow     {settings.mlflow.uri}")
        supervisor.wait()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        supervisor.stop()
        lock.close()
