"""The sink of a collector: any server that takes OTLP over HTTP gets the requests that our gateways served, as GenAI spans.

Each at least once, with the same ids when it comes again. Cursor and dead letters are its own, and it is tried for ever;
what it has cannot be counted or erased from here. Requests that others sent us as traces are not passed on: who sent them
can send them there. Knows nothing of threads, of pauses or of when a segment may go.
"""

import os
from collections.abc import Sequence
from typing import Final

from watchkeeper.record import Record
from watchkeeper.settings import Collector
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.exporter import Exporter
from watchkeeper.telemetry.genai import export_request
from watchkeeper.telemetry.sinks import Dropped, Progress, SinkUnavailable, Tray, decoded

LIMIT: Final = 100
"""Requests at a time: collectors refuse bodies of more than some megabytes."""


class CollectorSink:
    """One of `[[collectors]]`, under its name."""

    linger_s = 1.0

    def __init__(self, collector: Collector, deliveries: Deliveries, dropped: Dropped, *, limit: int = LIMIT) -> None:
        self.name = collector.name
        self.limit = limit
        self._collector = collector
        self._exporter = Exporter(collector.url, self._write, self._headers, limit=limit)
        self._dropped = dropped
        self._progress = Progress(deliveries, self.name)

    def position(self, tray: Tray) -> int:
        return self._progress.position(tray)

    def step(self, tray: Tray) -> int:
        rows = tray.rows(self.position(tray), limit=self._exporter.batch)
        if not rows:
            return 0
        batch = decoded(rows)
        refused = batch.refused
        self._exporter.deliver([made for made in batch.records if made[1].source == "gateway"], refused)
        self._dropped(tray, refused)
        self._progress.advance(tray, rows[-1].sequence)
        return len(rows)

    def tend(self) -> None:
        """Nothing waits here."""

    def _write(self, records: Sequence[Record]) -> bytes:
        return export_request(records, content=self._collector.content)

    def _headers(self) -> dict[str, str]:
        name = self._collector.headers_env
        if name is None:
            return {}
        text = os.environ.get(name)
        if text is None:
            raise SinkUnavailable(f"the environment variable {name} (collectors.headers_env of {self.name}) is not set")
        pairs = (pair.partition("=") for pair in text.split(",") if pair.strip())
        return {key.strip(): value.strip() for key, _, value in pairs}
