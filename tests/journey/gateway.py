"""A real gateway as a test sees it: the official client in front of it, its records behind it."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai

from watchkeeper.record import Record, decode
from watchkeeper.telemetry.segment import segments


class Running:
    """A gateway and what stands around it."""

    def __init__(self, url: str, data: Path, script: Any) -> None:
        self.url = url
        self.data = data
        self.script = script
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

    def close(self) -> None:
        """Ends the client's connections: one that the collector ends is a warning, in whatever test it then runs."""
        self.client.close()

    def record(self, request_id: str) -> Record:
        """The record of a request, as it stands in the spool now."""
        for segment in segments(self.data / "spool").segments:
            for row in segment.rows(0):
                if row.request_id == request_id:
                    return decode(row.body)
        raise AssertionError(f"{request_id} is not in the spool")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    pause = threading.Event()
    for _ in range(1200):
        if condition():
            return
        pause.wait(0.1)
    raise AssertionError(f"waited for {what}")
