"""The shipper: takes what the gateways' spools hold to every sink, for as long as it takes.

Each sink has a thread, so that one that is away holds up nobody else, and so has the publisher of releases. The main thread
adopts the segments of dead workers, retires those that every sink has, and says in `shipper.json` how far things are. It
may be killed at any moment: what it knows is in the sinks, in `ledger.sqlite` and in the spool. One shipper at a time works
on a data folder.
"""

import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.carrying import carrying
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record
from watchkeeper.settings import Settings
from watchkeeper.telemetry.accounts import account
from watchkeeper.telemetry.adoption import adopt, mend_all
from watchkeeper.telemetry.collector_sink import CollectorSink
from watchkeeper.telemetry.dead_letters import DeadLetters
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.housekeeping import Housekeeping
from watchkeeper.telemetry.locks import lock
from watchkeeper.telemetry.mlflow_sink import MlflowSink
from watchkeeper.telemetry.pace import Pace
from watchkeeper.telemetry.publisher import Publisher, PublisherStatus
from watchkeeper.telemetry.sampling import keeps
from watchkeeper.telemetry.segment import ENDING, Found, Segment, SegmentTorn, SegmentUnreadable, segments
from watchkeeper.telemetry.sinks import LAKE, MLFLOW, Dropped, LakeSink, Sink
from watchkeeper.tracking import Tracking
from watchkeeper.tracking.prompts import Releases

STATUS: Final = "shipper.json"
LOCK: Final = "shipper.lock"

TIDY_S: Final = 1.0
UPKEEP_S: Final = 30.0
GRACE_S: Final = 10.0
"""How long a batch under way may take once the shipper is to stop; it would be delivered again, which costs time only."""

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 30.0

_log = logging.getLogger(__name__)


class SinkStatus(msgspec.Struct, frozen=True):
    """`delivered`: records and feedback since this shipper started; `lag_s`: age of the oldest that the sink does not
    have. `per_s`: delivered a second in the last minute; `done_in_s`: when nothing is pending any more, at the pace of that
    minute, 0 when nothing is; None where it is not known, or the sink falls behind."""

    delivered: int
    pending: int
    lag_s: float | None
    error: str | None
    per_s: float | None = None
    done_in_s: float | None = None


class ShipperStatus(msgspec.Struct, frozen=True):
    """What `shipper.json` holds. `at`, `started_at`: µs. `waiting`: feedback whose trace is still to come. `releases`: None
    where this shipper publishes none."""

    at: int
    started_at: int
    sinks: dict[str, SinkStatus]
    dead_lettered: int
    unreadable: dict[str, str]
    waiting: int = 0
    releases: PublisherStatus | None = None


class Feed:
    """One sink's thread: round after round it takes every segment on by a batch.

    `pause` waits that many seconds, less when the shipper is to stop.
    """

    def __init__(
        self, sink: Sink, spool: Path, stop: threading.Event, *, rng: random.Random, pause: Callable[[float], object]
    ) -> None:
        self.sink = sink
        self.delivered = 0
        self.error: str | None = None
        self.positions: dict[str, int] = {}
        self.unreadable: dict[str, str] = {}
        self.torn: dict[Path, str] = {}
        self.pace = Pace()
        self._spool = spool
        self._stop = stop
        self._rng = rng
        self._pause = pause
        self._failures = 0
        self._there: set[str] = set()

    def run(self, goal: Sequence[Segment] | None) -> None:
        """Until `stop`, or until the sink has what `goal` names. Outlives every failure of the sink."""
        while not self._stop.is_set():
            delivered = self.delivered
            try:
                full = self._round()
            except Exception as error:  # the sink is away, or something is wrong with it that time may heal
                self._failed(error)
                self._pause(self._backoff())
                continue
            self._recovered()
            if goal is not None and self._reached(goal):
                return
            if not full and (goal is None or self.delivered == delivered):
                self._pause(self.sink.linger_s)

    def _round(self) -> bool:
        """One batch of every segment. Whether some segment has more, so that it is not worth waiting for it."""
        full = False
        unreadable: dict[str, str] = {}
        there = segments(self._spool).segments
        self._there = {segment.uid for segment in there}
        for segment in there:
            if self._stop.is_set():
                break
            try:
                if self.sink.position(segment) < segment.last:
                    with carrying(self._spool.parent, "shipping"):
                        count = self.sink.step(segment)
                    self.delivered += count
                self.positions[segment.uid] = self.sink.position(segment)
                full = full or self.positions[segment.uid] < segment.last
            except SegmentUnreadable as error:
                unreadable[str(segment.path)] = str(error)
                if isinstance(error, SegmentTorn):
                    self.torn[segment.path] = error.why
            except FileNotFoundError:
                if segment.path.exists():
                    raise
        self.unreadable = unreadable
        with carrying(self._spool.parent, "shipping"):
            self.sink.tend()
        return full

    def _reached(self, goal: Sequence[Segment]) -> bool:
        return all(
            self.positions.get(segment.uid, 0) >= segment.last
            or str(segment.path) in self.unreadable
            or segment.uid not in self._there
            for segment in goal
        )

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self.error = f"{type(error).__name__}: {error}"
        if self._failures == 1:
            _log.warning("%s takes nothing for now: %s", self.sink.name, self.error)

    def _recovered(self) -> None:
        if self._failures:
            _log.warning("%s is back after %d tries", self.sink.name, self._failures)
        self._failures, self.error = 0, None

    def _backoff(self) -> float:
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 30))
        return longest * self._rng.uniform(0.5, 1.0)


class Shipper:
    """All feeds of one data folder, and the housekeeping around them. `clock`: seconds since the epoch. `upkeep`: what is
    to be done each `UPKEEP_S` with what was delivered, such as joining the lake's small files."""

    def __init__(
        self,
        settings: Settings,
        sinks: Sequence[Sink],
        deliveries: Deliveries,
        dead: DeadLetters,
        stop: threading.Event,
        *,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        pause: Callable[[float], object] | None = None,
        upkeep: Callable[[], object] = lambda: None,
        publisher: Publisher | None = None,
    ) -> None:
        self._upkeep = upkeep
        self._publisher = publisher
        self._kept_at = clock()
        self._data = settings.data
        self._spool = settings.spool_folder
        self._deliveries = deliveries
        self._dead = dead
        self._stop = stop
        self._clock = clock
        self._started_at = int(clock() * 1e6)
        rng, pause = rng or random.Random(), pause or stop.wait
        self.feeds = [Feed(sink, self._spool, stop, rng=rng, pause=pause) for sink in sinks]
        self._threads: list[threading.Thread] = []
        self._stuck: set[str] = set()
        self._mended = False

    def run(self, once: bool) -> int:
        """Until `stop` (0), or, `once`, until what is there now is delivered (0; 1 when stopped before)."""
        self._adopt(segments(self._spool))
        self._mend(segments(self._spool))
        self._mended = False
        goal = segments(self._spool).segments if once else None
        publishing = self._publish(once)
        for feed in self.feeds:
            thread = threading.Thread(target=feed.run, args=(goal,), name=f"ship-{feed.sink.name}", daemon=True)
            thread.start()
            self._threads.append(thread)
        stopped_at: float | None = None
        while self.working:
            self.tidy()
            for thread in self.working[:1]:
                thread.join(TIDY_S / 5 if once else TIDY_S)
            if self._stop.is_set():
                stopped_at = stopped_at or time.monotonic()
                if time.monotonic() - stopped_at > GRACE_S:
                    break
        if once and publishing:
            publishing.join(GRACE_S)
        self.tidy()
        if once and self._mended and not self._stop.is_set():
            return self.run(once)  # a feed came upon a tear: what is whole behind it is there only now
        return 1 if once and self._stop.is_set() else 0

    def _publish(self, once: bool) -> threading.Thread | None:
        if self._publisher is None:
            return None
        thread = threading.Thread(target=self._publisher.run, args=(once,), name="publish-releases", daemon=True)
        thread.start()
        return thread

    @property
    def working(self) -> list[threading.Thread]:
        """The feeds' threads that have not ended."""
        return [thread for thread in self._threads if thread.is_alive()]

    def tidy(self) -> None:
        """Adopts, retires, reports and keeps up. What fails is tried again the next time."""
        try:
            found = segments(self._spool)
            self._adopt(found)
            if self._mend(found):
                found = segments(self._spool)
            self._retire(found)
            self._report(found)
            if not 0 <= self._clock() - self._kept_at < UPKEEP_S:  # also once the clock was set back
                self._kept_at = self._clock()
                self._upkeep()
        except Exception as error:  # a full disk, say: the feeds go on meanwhile
            _log.warning("housekeeping failed: %s: %s", type(error).__name__, error)

    def _adopt(self, found: Found) -> None:
        for segment in found.segments:
            if segment.sealed:
                continue
            try:
                interrupted = adopt(segment.path.parent)
            except (SegmentUnreadable, OSError) as error:  # no room to end it, say: it waits, and nobody for it
                if segment.worker not in self._stuck:
                    _log.warning("what worker %s left cannot be ended yet: %s", segment.worker, error)
                self._stuck.add(segment.worker)
                continue
            self._stuck.discard(segment.worker)
            if interrupted:
                _log.warning("worker %s died with %d requests under way", segment.worker, interrupted)

    def _mend(self, found: Found) -> bool:
        """Mends what is torn, also where only a feed came upon it. Whether anything was."""
        torn = dict(found.torn)
        for feed in self.feeds:
            torn |= feed.torn
            feed.torn = {}
        if not torn:
            return False
        with carrying(self._data, "shipping"):  # else what is erased meanwhile could go on in the new file
            told = mend_all(torn)
        for line in told:
            _log.warning("mended: %s", line)
        self._mended = self._mended or bool(told)
        return bool(told)

    def _retire(self, found: Found) -> None:
        """Retires what every sink has. A worker's oldest first: its newest segment left alone says what is still open, and
        an older one must never be taken for it."""
        kept = {Path(name).parent.name for name in found.unreadable if name.endswith(ENDING)}
        for segment in found.segments:
            everywhere = all(feed.positions.get(segment.uid, -1) >= segment.last for feed in self.feeds)
            if segment.worker in kept or not segment.sealed or not everywhere:
                kept.add(segment.worker)
                continue
            try:
                kept_of = account(segment)
            except SegmentUnreadable as error:  # delivered, but it cannot be said what
                kept.add(segment.worker)
                if isinstance(error, SegmentTorn):
                    self.feeds[0].torn[segment.path] = error.why
                continue
            # Ids first, then the file: between the two it is merely kept twice.
            self._deliveries.retire(kept_of, int(self._clock() * 1e6))
            segment.remove()

    def _report(self, found: Found) -> None:
        now = self._clock()
        unreadable = dict(found.unreadable)
        for feed in self.feeds:
            unreadable |= feed.unreadable
        status = ShipperStatus(
            at=int(now * 1e6),
            started_at=self._started_at,
            sinks={feed.sink.name: _status(feed, found.segments, now) for feed in self.feeds},
            dead_lettered=self._dead.count(),
            unreadable=unreadable,
            waiting=self._dead.waiting(),
            releases=self._publisher.status if self._publisher else None,
        )
        draft = self._data / f"{STATUS}.new"
        draft.write_bytes(msgspec.json.encode(status))
        os.replace(draft, self._data / STATUS)


def _status(feed: Feed, found: Sequence[Segment], now: float) -> SinkStatus:
    pending = 0
    oldest: int | None = None
    for segment in found:
        position = max(feed.positions.get(segment.uid, 0), segment.first - 1)
        pending += segment.last - position
        if position < segment.last and oldest is None:
            with contextlib.suppress(SegmentUnreadable, FileNotFoundError):
                oldest = next((row.received_at for row in segment.rows(position, limit=1)), None)
    feed.pace.look(now, feed.delivered, pending)
    lag_s = None if oldest is None else max(0.0, now - oldest / 1e6)
    return SinkStatus(feed.delivered, pending, lag_s, feed.error, feed.pace.per_s, feed.pace.done_in_s)


def ship(settings: Settings, *, once: bool, stop: threading.Event) -> int:
    """Delivers until `stop` is set, or, `once`, until all that was there at the start is delivered.

    Returns 0; 1 when `once` was cut short, or another shipper is at work on the same data folder. Without `once` it waits
    for that one to end and takes over. What takes longer than `GRACE_S` to end is left at work in its thread.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    held = lock(settings.data / LOCK)
    while held is None:
        if once:
            _log.error("another shipper is at work on %s", settings.data)
            return 1
        if stop.wait(TIDY_S):
            return 0
        held = lock(settings.data / LOCK)
    deliveries, dead = Deliveries(settings.data), DeadLetters(settings.data)
    lake = lake_of(settings)
    policy, spool = settings.mlflow.sampling, settings.spool_folder
    sinks: list[Sink] = [
        mlflow_of(settings, deliveries, Dropped(dead, MLFLOW), keeps=lambda record: keeps(policy, record), spool=spool),
        LakeSink(lake, Dropped(dead, LAKE)),
        *(CollectorSink(one, deliveries, Dropped(dead, one.name)) for one in settings.collectors),
    ]
    publisher = Publisher(Releases(Tracking(settings.mlflow.uri), settings.mlflow.prompt), settings.data, stop)
    housekeeping = Housekeeping(settings, lake, stop)
    shipper = Shipper(settings, sinks, deliveries, dead, stop, upkeep=housekeeping, publisher=publisher)
    try:
        return shipper.run(once)
    finally:
        housekeeping.wait(GRACE_S)
        if not shipper.working:  # else a batch is still under way, and the lock goes with the process
            deliveries.close()
            dead.close()
            os.close(held)


def lake_of(settings: Settings) -> Lake:
    return Lake(settings.lake_uri, settings.lake.storage_options)


def mlflow_of(
    settings: Settings,
    deliveries: Deliveries,
    dropped: Dropped,
    *,
    keeps: Callable[[Record], bool] = lambda record: True,
    spool: Path | None = None,
) -> MlflowSink:
    """The sink for the experiment of the settings, which is made where there is none."""

    def experiment_id() -> str:
        return Tracking(settings.mlflow.uri).experiment_id(settings.mlflow.experiment)

    return MlflowSink(settings.mlflow.uri, experiment_id, deliveries, dropped, keeps=keeps, spool=spool)
