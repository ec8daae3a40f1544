"""The ledger: is every request that was served in the spool, in MLflow and in the lake, once each?

Every side is asked itself: accepts and records in the spool's files (and the ids kept of retired ones), traces by id in
MLflow, rows in the lake. No side is believed about another. A number that a side cannot give is None, and nothing is `ok`
then. Counts are of request ids; what others logged to the same MLflow or lake does not count.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import msgspec

from watchkeeper.lake.lake import Lake, LakeUnavailable
from watchkeeper.settings import Settings
from watchkeeper.telemetry.dead_letters import DeadLetters
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.segment import Found, Segment, SegmentUnreadable, segments
from watchkeeper.telemetry.sinks import LAKE, MLFLOW, lake_positions
from watchkeeper.telemetry.spans.staging import Staging, StagingUnavailable
from watchkeeper.tracking import Tracking, TrackingUnavailable

SPOOL: Final = "spool"
LISTED: Final = 100

T = TypeVar("T")


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """`served`: accepted; `spooled`: with a record; `scored`: of those served, with a score of any scorer.
    `dead_lettered`: refused by a sink. `sampled_out`: MLflow is spared them, by policy; `erased`: deleted everywhere, on
    somebody's word; `expired`: dropped from a sink by retention; all three are meant, and missing nowhere. `pending`:
    accepted without a record yet (`spool`), or not delivered yet. `missing`: delivered, by the shipper's own account, but
    not there; `unerased`: erased, but there (100 ids of each at most). `doubled`: ids that are somewhere twice."""

    served: int
    spooled: int
    mlflow: int | None
    lake: int | None
    scored: int | None
    dead_lettered: int
    sampled_out: int
    erased: int
    expired: dict[str, int]
    pending: dict[str, int]
    missing: dict[str, list[str]]
    unerased: dict[str, list[str]]
    doubled: dict[str, int]
    unreadable: list[str]
    errors: list[str]

    @property
    def ok(self) -> bool:
        """Everything is where it is meant to be, nothing is doubled, nothing is pending, and everyone could be asked."""
        if self.mlflow is None or self.lake is None:
            return False
        gone = {sink: self.erased + count for sink, count in self.expired.items()}
        in_mlflow, in_lake = self.mlflow + self.sampled_out + gone[MLFLOW], self.lake + gone[LAKE]
        whole = self.served == self.spooled == in_mlflow == in_lake
        gaps = any((*self.pending.values(), *self.missing.values(), *self.unerased.values(), *self.doubled.values()))
        return whole and not gaps and not self.unreadable and not self.errors


class _Spooled(msgspec.Struct):
    """What the spool says, at one moment. `behind`: per sink the ids that it need not have yet; `erased`: that nobody may
    have any more."""

    served: set[str]
    spooled: set[str]
    doubled: set[str]
    behind: dict[str, set[str]]
    unreadable: list[str]
    erased: set[str] = set()


def verify(settings: Settings) -> Ledger:
    """Counts all sides. Takes seconds for 100,000 requests, most of it MLflow's pages."""
    errors: list[str] = []
    lake = _lake(settings)
    # The spool comes first, the cursors with it and the sinks last: what a cursor says is delivered must be found then,
    # even while everything goes on moving.
    spool = _spool(settings, lake, errors)
    letters = DeadLetters(settings.data, writable=False)
    dead: dict[str, set[str]] = {MLFLOW: set(), LAKE: set()} | letters.records()
    letters.close()
    found = {
        MLFLOW: _asked(errors, lambda: _traces(settings)),
        LAKE: _asked(errors, lambda: _rows(lake)),
    }
    scored = _asked(errors, lambda: set(_column(lake, "SELECT DISTINCT request_id FROM scores")))
    # What is erased or spared meanwhile is gone by now, and meant to be.
    erased, spared, expired = _meant(settings)
    meant = {MLFLOW: erased | spared | expired[MLFLOW], LAKE: erased | expired[LAKE]}
    counts: dict[str, int | None] = {}
    missing: dict[str, list[str]] = {}
    unerased: dict[str, list[str]] = {}
    doubled = {SPOOL: len(spool.doubled)}
    for sink, ids in found.items():
        if ids is None:
            counts[sink], missing[sink], unerased[sink], doubled[sink] = None, [], [], 0
            continue
        there = spool.spooled.intersection(ids) - dead[sink] - erased
        gone = spool.spooled - there - dead[sink] - spool.behind[sink] - meant[sink]
        counts[sink] = len(there)
        missing[sink] = sorted(gone)[:LISTED]
        unerased[sink] = sorted(spool.erased.intersection(ids))[:LISTED]
        doubled[sink] = sum(ids[name] > 1 for name in there)
    waiting = {sink: ids - set(found[sink] or ()) - dead[sink] - meant[sink] for sink, ids in spool.behind.items()}
    spared = spool.spooled & spared - erased - set(found[MLFLOW] or ())
    old = {sink: spool.spooled & ids - erased - set(found[sink] or ()) for sink, ids in expired.items()}
    old[MLFLOW] -= spared
    return Ledger(
        served=len(spool.served),
        spooled=len(spool.spooled),
        mlflow=counts[MLFLOW],
        lake=counts[LAKE],
        scored=None if scored is None else len(spool.served & scored),
        dead_lettered=len(set().union(*dead.values())),
        sampled_out=len(spared),
        erased=len(spool.spooled & erased),
        expired={sink: len(ids) for sink, ids in old.items()},
        pending={SPOOL: len(spool.served - spool.spooled), **{sink: len(ids) for sink, ids in waiting.items()}},
        missing=missing,
        unerased=unerased,
        doubled=doubled,
        unreadable=spool.unreadable,
        errors=list(dict.fromkeys(errors)),
    )


def pending(settings: Settings) -> tuple[dict[str, int], list[str]]:
    """How many records each sink has yet to get, and the segments that cannot be read. Does not load mlflow.

    Raises `LakeUnavailable`.
    """
    deliveries = Deliveries(settings.data, writable=False)
    lake = _lake(settings)
    found = segments(settings.spool_folder)
    waiting = {MLFLOW: 0, LAKE: 0}
    unreadable = set(found.unreadable)
    for segment in found.segments:
        try:
            waiting[MLFLOW] += segment.count(_mlflow_position(segment, deliveries))
            waiting[LAKE] += segment.count(_lake_position(segment, lake))
        except FileNotFoundError:
            continue  # delivered and retired meanwhile
        except SegmentUnreadable:
            unreadable.add(str(segment.path))
    deliveries.close()
    return waiting, sorted(unreadable)


def watermark(settings: Settings) -> int | None:
    """The time (µs) before which every request that was accepted is in the lake, rows and rollups; None: nothing at all is
    pending. Requests under way count as pending, and traces of others whose root is there. Raises `LakeUnavailable`."""
    lake = _lake(settings)
    # Before the spool, where they go from there. A file that cannot be read holds up no window: its gateway complains.
    oldest: list[int] = []
    with contextlib.suppress(StagingUnavailable), contextlib.closing(Staging(settings.data)) as staging:
        oldest += [at for at in (staging.oldest_whole(),) if at is not None]
    for segment in segments(settings.spool_folder).segments:
        try:
            found = segment.oldest(_lake_position(segment, lake))
        except (SegmentUnreadable, FileNotFoundError):
            continue  # delivered and retired meanwhile; or it is for the ledger to complain
        if found is not None:
            oldest.append(found)
    return min(oldest, default=None)


def _lake(settings: Settings) -> Lake:
    return Lake(settings.lake_uri, settings.lake.storage_options)


def _mlflow_position(segment: Segment, deliveries: Deliveries) -> int:
    return max(deliveries.cursor(MLFLOW, segment.uid), segment.first - 1)


def _lake_position(segment: Segment, lake: Lake) -> int:
    return min(lake_positions(lake, segment).values())


def _spool(settings: Settings, lake: Lake, errors: list[str]) -> _Spooled:
    found: Found = segments(settings.spool_folder)
    deliveries = Deliveries(settings.data, writable=False)
    spool = _Spooled(set(), set(), set(), {MLFLOW: set(), LAKE: set()}, sorted(found.unreadable))
    live: set[str] = set()
    for segment in found.segments:
        positions = {MLFLOW: _mlflow_position(segment, deliveries)}
        in_lake = _asked(errors, functools.partial(_lake_position, segment, lake))
        positions[LAKE] = segment.first - 1 if in_lake is None else in_lake
        try:
            accepted, records = segment.ids()
        except FileNotFoundError:
            continue  # retired since: its ids come below
        except SegmentUnreadable:
            spool.unreadable.append(str(segment.path))
            continue
        live.add(segment.uid)
        _count(spool, accepted, [name for _, name in records])
        for sink, position in positions.items():
            spool.behind[sink] |= {name for sequence, name in records if sequence > position}
    # After the files: a segment that goes meanwhile is kept here before.
    for uid, accepted, spooled in deliveries.retired():
        if uid not in live:
            _count(spool, accepted, spooled)
    spool.erased = deliveries.erased()
    deliveries.close()
    return spool


def _count(spool: _Spooled, accepted: Iterable[str], records: Iterable[str]) -> None:
    spool.served.update(accepted)
    for name in records:
        if name in spool.spooled:
            spool.doubled.add(name)
        spool.spooled.add(name)


def _meant(settings: Settings) -> tuple[set[str], set[str], dict[str, set[str]]]:
    """The ids of erased requests, of those that MLflow is spared, and by sink of those that retention dropped."""
    deliveries = Deliveries(settings.data, writable=False)
    expired = {sink: deliveries.expired(sink) for sink in (MLFLOW, LAKE)}
    found = deliveries.erased(), deliveries.sampled_out(), expired
    deliveries.close()
    return found


def _traces(settings: Settings) -> dict[str, int]:
    """Trace ids in MLflow, and how often each came."""
    counts: dict[str, int] = {}
    for name in Tracking(settings.mlflow.uri).trace_ids(settings.mlflow.experiment):
        counts[name] = counts.get(name, 0) + 1
    return counts


def _rows(lake: Lake) -> dict[str, int]:
    """Request ids in the lake, and how many rows each has."""
    sql = "SELECT request_id, count(*) AS n FROM interactions WHERE source IN ('gateway', 'otlp') GROUP BY request_id"
    rows = lake.query(sql)
    return dict(zip(rows.column("request_id").to_pylist(), rows.column("n").to_pylist(), strict=True))


def _column(lake: Lake, sql: str) -> Iterable[str]:
    names: list[str] = lake.query(sql).column(0).to_pylist()
    return names


def _asked(errors: list[str], question: Callable[[], T]) -> T | None:
    try:
        return question()
    except (TrackingUnavailable, LakeUnavailable) as error:
        errors.append(str(error))
        return None
