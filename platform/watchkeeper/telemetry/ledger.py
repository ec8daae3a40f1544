"""The ledger: is every request that was served in the spool, in MLflow and in the lake, once each?

Every side is asked itself: accepts and records in the spool's files (and the ids kept of retired ones), traces by id in
MLflow, rows in the lake. No side is believed about another. A number that a side cannot give is None, and nothing is `ok`
then. Counts are of request ids; what others logged to the same MLflow or lake does not count.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import msgspec

from watchkeeper.lake.lake import Lake, LakeUnavailable
from watchkeeper.settings import Settings
from watchkeeper.telemetry.accounts import Account, account, gaps
from watchkeeper.telemetry.dead_letters import DeadLetters
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.hours import Hour
from watchkeeper.telemetry.hours import by_hour as hours_of
from watchkeeper.telemetry.segment import Found, Segment, SegmentUnreadable, segments
from watchkeeper.telemetry.sinks import LAKE, MLFLOW, lake_positions
from watchkeeper.telemetry.spans.staging import Staging, StagingUnavailable
from watchkeeper.tracking import Tracking, TrackingUnavailable
from watchkeeper.tracking.stored import stored_trace_ids

SPOOL: Final = "spool"
LISTED: Final = 100

T = TypeVar("T")


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """`served`: accepted; `spooled`: with a record; `scored`: of those served, with a score of any scorer.
    `dead_lettered`: refused by a sink. `sampled_out`: MLflow is spared them, by policy; `erased`: deleted everywhere, on
    somebody's word; `expired`: dropped from a sink by retention; all three are meant, and missing nowhere. `pending`:
    accepted without a record yet (`spool`), or not delivered yet. `missing`: delivered, by the shipper's own account, but
    not there; `unerased`: erased, but there (100 ids of each at most). `doubled`: ids that are somewhere twice. `gaps`:
    numbers of a worker that are missing, a line each. `hours`: the same by hour, where it was asked for."""

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
    gaps: list[str]
    unreadable: list[str]
    errors: list[str]
    hours: list[Hour] | None = None

    @property
    def ok(self) -> bool:
        """Everything is where it is meant to be, nothing is doubled, nothing is pending but for a collector, and everyone
        could be asked."""
        if self.mlflow is None or self.lake is None:
            return False
        gone = {sink: self.erased + count for sink, count in self.expired.items()}
        in_mlflow, in_lake = self.mlflow + self.sampled_out + gone[MLFLOW], self.lake + gone[LAKE]
        whole = self.served == self.spooled == in_mlflow == in_lake
        # A collector cannot be asked what it has, so nothing is proven by what it still waits for, nor disproven.
        waiting = (self.pending.get(side) for side in (SPOOL, MLFLOW, LAKE))
        gaps = any((*waiting, *self.missing.values(), *self.unerased.values(), *self.doubled.values()))
        return whole and not gaps and not self.gaps and not self.unreadable and not self.errors


class _Spooled(msgspec.Struct):
    """What the spool says, at one moment. `hours`: of each request that was accepted, its hour. `behind`: per sink the ids
    that it need not have yet; `erased`: that nobody may have any more."""

    hours: dict[str, int]
    spooled: set[str]
    doubled: set[str]
    behind: dict[str, set[str]]
    gaps: list[str]
    unreadable: list[str]
    erased: set[str] = set()


class _Held(msgspec.Struct):
    """The ids that a sink has, and those that it has twice. `answered`: those that the lake knows as such."""

    ids: set[str]
    doubled: set[str]
    answered: set[str] = set()


def verify(settings: Settings, *, by_hour: bool = False) -> Ledger:
    """Counts all sides. What it costs with a million requests stands in the README."""
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
    sides: dict[str, set[str] | None] = {}
    missing: dict[str, list[str]] = {}
    unerased: dict[str, list[str]] = {}
    doubled = {SPOOL: len(spool.doubled)}
    pending = {SPOOL: len(spool.hours.keys() - spool.spooled)}
    for sink, held in found.items():
        ids = _ids(held)
        pending[sink] = len(spool.behind[sink] - ids - dead[sink] - meant[sink])
        if held is None:
            sides[sink], missing[sink], unerased[sink], doubled[sink] = None, [], [], 0
            continue
        sides[sink] = there = (spool.spooled & ids) - dead[sink] - erased
        missing[sink] = sorted(spool.spooled - there - dead[sink] - spool.behind[sink] - meant[sink])[:LISTED]
        unerased[sink] = sorted(spool.erased & ids)[:LISTED]
        doubled[sink] = len(there & held.doubled)
    pending |= {one.name: len(spool.behind[one.name] - dead.get(one.name, set()) - erased) for one in settings.collectors}
    in_lake = found[LAKE]
    sampled_out = (spool.spooled & spared) - erased - _ids(found[MLFLOW])
    old = {sink: (spool.spooled & ids) - erased - _ids(found[sink]) for sink, ids in expired.items()}
    old[MLFLOW] -= sampled_out
    sides |= {
        "answered": in_lake.answered if in_lake else None,
        "spooled": spool.spooled,
        "scored": None if scored is None else spool.hours.keys() & scored,
        "dead_lettered": set().union(*dead.values()),
        "sampled_out": sampled_out,
        "erased": spool.spooled & erased,
    }
    counts = {side: None if ids is None else len(ids) for side, ids in sides.items() if side != "answered"}
    plain = {
        **counts,
        "served": len(spool.hours),
        "expired": {sink: len(ids) for sink, ids in old.items()},
        "pending": pending,
        "missing": missing,
        "unerased": unerased,
        "doubled": doubled,
        "gaps": spool.gaps,
        "unreadable": spool.unreadable,
        "errors": list(dict.fromkeys(errors)),
    }
    ledger = msgspec.convert(plain, Ledger)
    return msgspec.structs.replace(ledger, hours=hours_of(spool.hours, sides)) if by_hour else ledger


def pending(settings: Settings) -> tuple[dict[str, int], list[str]]:
    """How many records each sink has yet to get, and the segments that cannot be read. Does not load mlflow.

    Raises `LakeUnavailable`.
    """
    deliveries = Deliveries(settings.data, writable=False)
    lake = _lake(settings)
    found = segments(settings.spool_folder)
    waiting = {MLFLOW: 0, LAKE: 0} | {one.name: 0 for one in settings.collectors}
    unreadable = set(found.unreadable)
    for segment in found.segments:
        try:
            for sink, position in _positions(settings, segment, deliveries).items():
                waiting[sink] += segment.count(position)
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


def _positions(settings: Settings, segment: Segment, deliveries: Deliveries) -> dict[str, int]:
    """Up to where the sinks have a segment that keep no cursors of their own."""
    names = (MLFLOW, *(one.name for one in settings.collectors))
    return {name: max(deliveries.cursor(name, segment.uid), segment.first - 1) for name in names}


def _lake_position(segment: Segment, lake: Lake) -> int:
    return min(lake_positions(lake, segment).values())


def _spool(settings: Settings, lake: Lake, errors: list[str]) -> _Spooled:
    found: Found = segments(settings.spool_folder)
    deliveries = Deliveries(settings.data, writable=False)
    behind: dict[str, set[str]] = {name: set() for name in (MLFLOW, LAKE, *(one.name for one in settings.collectors))}
    spool = _Spooled({}, set(), set(), behind, [], sorted(found.unreadable))
    accounts: dict[str, Account] = {}
    for segment in found.segments:
        positions = _positions(settings, segment, deliveries)
        in_lake = _asked(errors, functools.partial(_lake_position, segment, lake))
        positions[LAKE] = segment.first - 1 if in_lake is None else in_lake
        try:
            accounts[segment.uid] = kept = account(segment)
            records = segment.ids()[1] if min(positions.values()) < kept.rows[1] else []
        except FileNotFoundError:
            accounts.pop(segment.uid, None)  # retired since: it comes below
            continue
        except SegmentUnreadable:
            spool.unreadable.append(str(segment.path))
            continue
        for sink, position in positions.items():
            spool.behind[sink] |= {name for sequence, name in records if sequence > position}
    # After the files: a segment that goes meanwhile is kept here before.
    numbers: list[Account] = []
    for one in itertools.chain(accounts.values(), (gone for gone in deliveries.retired() if gone.segment not in accounts)):
        _count(spool, one)
        numbers.append(msgspec.structs.replace(one, accepted=(), hours=(), spooled=()))
    spool.gaps = gaps(numbers)
    spool.erased = deliveries.erased()
    deliveries.close()
    return spool


def _count(spool: _Spooled, account: Account) -> None:
    # An id is one object, wherever it stands: a million of them are told a few times over here.
    hours = spool.hours
    own = dict(zip(account.accepted, account.hours, strict=True))
    hours |= own
    names = {name: name for name in own}
    for name in account.spooled:
        if name in spool.spooled:
            spool.doubled.add(name)
        spool.spooled.add(names.get(name, name))


def _meant(settings: Settings) -> tuple[set[str], set[str], dict[str, set[str]]]:
    """The ids of erased requests, of those that MLflow is spared, and by sink of those that retention dropped."""
    deliveries = Deliveries(settings.data, writable=False)
    expired = {sink: deliveries.expired(sink) for sink in (MLFLOW, LAKE)}
    found = deliveries.erased(), deliveries.sampled_out(), expired
    deliveries.close()
    return found


def _traces(settings: Settings) -> _Held:
    """What MLflow has: by its database where that is ours, else page by page."""
    tracking = Tracking(settings.mlflow.uri)
    names = stored_trace_ids(tracking, settings.data, settings.mlflow.experiment) if settings.mlflow.start else None
    held = _Held(set(), set())
    for name in tracking.trace_ids(settings.mlflow.experiment) if names is None else names:
        if name in held.ids:
            held.doubled.add(name)
        held.ids.add(name)
    return held


def _rows(lake: Lake) -> _Held:
    """What the lake has of what came through the spool."""
    sql = """SELECT request_id, count(*) > 1 AS doubled, bool_and(error IS NULL AND status < 400) AS answered
        FROM interactions WHERE source IN ('gateway', 'otlp') GROUP BY request_id"""
    rows = lake.query(sql)
    names = rows.column("request_id")
    ids, doubled, answered = (
        set(names.filter(rows.column(column)).to_pylist()) if column else set(names.to_pylist())
        for column in ("", "doubled", "answered")
    )
    return _Held(ids, doubled, answered)


def _ids(held: _Held | None) -> set[str]:
    return held.ids if held else set()


def _column(lake: Lake, sql: str) -> Iterable[str]:
    names: list[str] = lake.query(sql).column(0).to_pylist()
    return names


def _asked(errors: list[str], question: Callable[[], T]) -> T | None:
    try:
        return question()
    except (TrackingUnavailable, LakeUnavailable) as error:
        errors.append(str(error))
        return None
