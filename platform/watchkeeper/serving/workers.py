"""`watchkeeper serve`: one gateway worker in this process, or several that share one socket and are kept running.

A worker that dies is replaced; the next of its name ends what it left in the spool. Workers end with the process that
started them, however that ends: else they would go on serving unseen, and hold the port against the next one.
"""

import gc
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

import uvicorn

from watchkeeper.release import champion
from watchkeeper.serving.app import application
from watchkeeper.serving.connection import Connection
from watchkeeper.serving.keys import keys_of
from watchkeeper.serving.labels import labels
from watchkeeper.settings import Settings

WATCH_S: Final = 0.2
"""How often it is looked whether a worker has died."""

STEADY_S: Final = 30.0
"""A worker that ran this long did not die of its start: it is replaced at once."""

LONGEST_PAUSE_S: Final = 10.0
DRAIN_S: Final = 30
"""How long answers under way may take once a worker is to stop."""


COLLECT: Final = (10_000, 20, 20)
"""How many new objects Python looks through for garbage at a time, and how often through older ones."""


class PortTaken(Exception):
    """Something else listens where the gateway is to. The message is one line that names the setting."""


class Worker:
    """One of several, kept running. `clock`: monotonic seconds."""

    def __init__(self, settings: Settings, listening: socket.socket, clock: Callable[[], float] = time.monotonic) -> None:
        self._start = multiprocessing.get_context("spawn")
        self._arguments = (settings, listening)
        self._clock = clock
        self._pause = 0.0
        self._again_at: float | None = None
        self._begin()

    def _begin(self) -> None:
        self._started_at = self._clock()
        self._process = self._start.Process(target=_serve_child, args=self._arguments)
        self._process.start()

    def keep(self) -> None:
        """Replaces the worker if it has died: at once, or after a pause that doubles while it keeps dying soon."""
        if self._process.is_alive():
            return
        now = self._clock()
        if self._again_at is None:
            steady = now - self._started_at > STEADY_S
            self._again_at = now + (0.0 if steady else self._pause)
            self._pause = 0.0 if steady else min(LONGEST_PAUSE_S, self._pause * 2 or WATCH_S)
        if now >= self._again_at:
            self._again_at = None
            self._begin()

    def terminate(self) -> None:
        self._process.terminate()

    def join(self) -> None:
        self._process.join()


def run(settings: Settings) -> None:
    """Serves until SIGTERM; answers what is in flight first.

    Raises `ReleaseBroken` when what should serve cannot be read, `RedactionKeyBroken`, `KeysBroken`, and, of several
    workers, `PortTaken`: they would only die of it again and again.
    """
    champion(settings.data)
    labels(settings)
    keys_of(settings)
    gateway = settings.gateway
    if gateway.workers == 1:
        _serve(settings, None)
        return
    try:
        listening = socket.create_server((gateway.host, gateway.port), backlog=2048)
    except OSError as error:
        message = f"gateway.port: cannot listen on {gateway.host}:{gateway.port}: {error.strerror}"
        raise PortTaken(message) from error
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    workers = [Worker(settings, listening) for _ in range(gateway.workers)]
    while not stopping.wait(WATCH_S):
        for worker in workers:
            worker.keep()
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join()


def _serve_child(settings: Settings, listening: socket.socket) -> None:
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    _serve(settings, listening)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _serve(settings: Settings, listening: socket.socket | None) -> None:
    """One worker, on a socket that is listening already or on its own."""
    # What was loaded stays: looking through it again and again for garbage was 6% of a request.
    gc.freeze()
    gc.set_threshold(*COLLECT)
    config = uvicorn.Config(
        application(settings),
        host=settings.gateway.host,
        port=settings.gateway.port,
        loop="uvloop",
        http=Connection,
        proxy_headers=False,  # nobody asks from where a request came
        access_log=False,
        server_header=False,  # nor does it help anybody to know what serves
        log_level="warning",
        timeout_graceful_shutdown=DRAIN_S,
    )
    uvicorn.Server(config).run(sockets=[listening] if listening else None)
