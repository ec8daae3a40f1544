"""gunicorn, told by the settings what to do instead of by a command line: one worker process, a few threads."""

from collections.abc import Callable
from typing import Any, Final

from flask import Flask
from gunicorn.app.base import BaseApplication

from watchkeeper.settings import Dashboard

THREADS: Final = 4


class _Server(BaseApplication):
    """The app is made in the worker, after the fork: DuckDB and the lake's client have threads that a fork would lose."""

    def __init__(self, where: Dashboard, make: Callable[[], Flask]) -> None:
        self._where = where
        self._make = make
        super().__init__()

    def load_config(self) -> None:
        host = f"[{self._where.host}]" if ":" in self._where.host else self._where.host
        given: dict[str, Any] = {
            "bind": [f"{host}:{self._where.port}"],
            "worker_class": "gthread",
            "workers": 1,
            "threads": THREADS,
            "timeout": 60,
            "graceful_timeout": 5,
            "loglevel": "warning",
            # It would put a socket into the home folder.
            "control_socket_disable": True,
        }
        for name, value in given.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self._make()


def serve(where: Dashboard, make: Callable[[], Flask]) -> None:
    """Serves until SIGTERM or SIGINT, then ends the process; with an error when the port is taken."""
    _Server(where, make).run()
