"""What the shipper does beside delivering: joins the lake's small files, lets MLflow's SQLite learn,
and drops what is older than the settings say.

In a thread of its own, since a day's rows take seconds and MLflow's traces minutes. Whatever fails is tried again the next
time. Knows nothing of deliveries under way.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from watchkeeper.carrying import carrying
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.upkeep import clean, tidy
from watchkeeper.settings import Settings, seconds
from watchkeeper.telemetry.retention import retain
from watchkeeper.tracking.statistics import Statistics

HOURLY_S: Final = 3600.0

_log = logging.getLogger(__name__)


class Housekeeping:
    """Called now and then, it starts a round unless one is under way. `clock`: seconds since the epoch."""

    def __init__(
        self, settings: Settings, lake: Lake, stop: threading.Event, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._lake = lake
        self._stop = stop
        self._clock = clock
        self._statistics = Statistics(settings.data)
        self._done_at: float | None = None
        self._thread: threading.Thread | None = None

    def __call__(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._round, name="housekeeping", daemon=True)
            self._thread.start()

    def wait(self, timeout: float | None = None) -> None:
        """Until the round under way is done, or for so long (seconds)."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _round(self) -> None:
        try:
            with carrying(self._settings.data, "upkeep"):
                tidy(self._lake)
            if self._settings.mlflow.start:
                self._statistics.tend()
            now = self._clock()
            if self._done_at is None or now - self._done_at >= HOURLY_S:
                self._hourly(now)
                self._done_at = now
        except Exception as error:  # a full disk, a lake that is away: the next round looks again
            _log.warning("upkeep failed: %s: %s", type(error).__name__, error)

    def _hourly(self, now: float) -> None:
        for one in retain(self._settings, self._lake, datetime.fromtimestamp(now, UTC), stopped=self._stop.is_set):
            if one.error is not None:
                _log.warning("retention: %s", one.error)
            elif one.dropped:
                _log.info("retention: %d of %s from before %s dropped", one.dropped, one.what, one.before)
        with carrying(self._settings.data, "upkeep"):
            clean(self._lake, seconds(self._settings.lake.history))
