"""Retention: what was written longer ago than the settings say is dropped, by whole days (UTC), from the lake and MLflow.

What goes is noted by id before it goes, so that the ledger never calls it missing, whenever this is cut off; done again it
drops what is left. It never waits for writers nor readers, and they never for it. Knows nothing of when it is called.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import msgspec

from watchkeeper.lake.alerts import open_alerts
from watchkeeper.lake.lake import Lake, LakeUnavailable
from watchkeeper.lake.upkeep import WRITING_H
from watchkeeper.settings import Settings
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.sinks import LAKE, MLFLOW
from watchkeeper.tracking import Tracking, TrackingUnavailable
from watchkeeper.tracking.deletion import NotOurs, Traces, clean

TABLES: Final = ("interactions", "scores", "feedback", "rollups", "evaluations", "alerts")
NOTED: Final = "interactions"
"""The table whose rows the ledger counts."""
ALERTS: Final = "alerts"


class Limit(msgspec.Struct, frozen=True):
    """`what`: a table of the lake, or MLflow. The days before `before` go."""

    what: str
    days: int
    before: date


class Dropped(msgspec.Struct, frozen=True):
    """`dropped`: rows or traces; of a dry run those that would be. None: it could not be reached, and `error` says why.
    `elsewhere`: what is left for somebody else to do."""

    what: str
    days: int
    before: date
    dropped: int | None
    error: str | None = None
    elsewhere: str | None = None


def limits(settings: Settings, now: datetime) -> list[Limit]:
    """What the settings limit. A day is old enough when all of it is."""
    kept = ((what, settings.retention.days(what)) for what in (*TABLES, MLFLOW))
    return [Limit(what, days, (now.astimezone(UTC) - timedelta(days=days)).date()) for what, days in kept if days]


def retain(
    settings: Settings,
    lake: Lake,
    now: datetime,
    *,
    dry_run: bool = False,
    purge: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Dropped]:
    """Drops, one after the other, what is limited; each is told when it is done. Until `stopped`.

    Of the lake, older versions hold the rows until they end. `purge`: end them now, and with them everybody's reading of an
    older version.
    """
    deliveries = Deliveries(settings.data, writable=not dry_run)
    try:
        for limit in limits(settings, now):
            if stopped():
                return
            try:
                if limit.what == ALERTS:
                    limit = _unfinished_kept(lake, limit)
                if limit.what == MLFLOW:
                    count = _traces(settings, deliveries, limit, dry_run, stopped)
                else:
                    count = _rows(lake, deliveries, limit, dry_run)
                elsewhere = _purge(settings, lake, limit.what) if purge and not dry_run else None
                yield Dropped(limit.what, limit.days, limit.before, count, elsewhere=elsewhere)
            except (LakeUnavailable, TrackingUnavailable) as error:
                yield Dropped(limit.what, limit.days, limit.before, None, str(error))
    finally:
        deliveries.close()


def _unfinished_kept(lake: Lake, limit: Limit) -> Limit:
    """Of alerts, the day of the oldest that is open stays, and those after it: without its beginning nobody would be told
    of its end."""
    opened: list[date] = open_alerts(lake).column("date").to_pylist()
    return msgspec.structs.replace(limit, before=min([limit.before, *opened]))


def _rows(lake: Lake, deliveries: Deliveries, limit: Limit, dry_run: bool) -> int:
    if dry_run:
        sql = f"SELECT count(*) AS n FROM {limit.what} WHERE date < $before"
        return int(lake.query(sql, {"before": limit.before}).column("n")[0].as_py())

    def note(version: Mapping[str, int]) -> None:
        sql = "SELECT request_id FROM interactions WHERE date < $before AND source IN ('gateway', 'otlp')"
        going = lake.query(sql, {"before": limit.before}, version=version)
        deliveries.note_expired(LAKE, going.column(0).to_pylist())

    return lake.drop(limit.what, limit.before, note) if limit.what == NOTED else lake.drop(limit.what, limit.before)


def _purge(settings: Settings, lake: Lake, what: str) -> str | None:
    """Leaves no byte of what was dropped; what somebody else has to do for that is told."""
    if what == MLFLOW:
        try:
            clean(settings)
        except NotOurs as error:
            return str(error)
    elif lake.version(what) is not None:
        lake.vacuum(what, 0)
        lake.vacuum(what, WRITING_H, everything=True)
    return None


def _traces(settings: Settings, deliveries: Deliveries, limit: Limit, dry_run: bool, stopped: Callable[[], bool]) -> int:
    before = int(datetime.combine(limit.before, time(), UTC).timestamp() * 1000)
    traces, count = Traces(Tracking(settings.mlflow.uri)), 0
    for batch in traces.older(settings.mlflow.experiment, before):
        if stopped():
            break
        if not dry_run:
            deliveries.note_expired(MLFLOW, batch)
        count += len(batch) if dry_run else traces.delete(batch)
    return count
