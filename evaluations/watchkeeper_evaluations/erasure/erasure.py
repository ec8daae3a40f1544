"""An erasure, in order.

    look, and have it confirmed → journal → noted in the ledger → what gives texts to new requests (`GIVING`) → answers
    under way arrive → everybody who carries texts stands still → look again → every store of `STORES` → audit line

The journal makes it one thing: cut off anywhere, or with a store that could not be reached, the next erasure finishes it.
Texts cannot come back: from then on no new request is given them, those that were have arrived, and what was read
before by the shipper, a job or an experiment has arrived too, or is named. Knows nothing of what the stores are.
"""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from watchkeeper.carrying import standstill
from watchkeeper.settings import Settings
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.segment import unfinished
from watchkeeper_evaluations.erasure import selection as journal
from watchkeeper_evaluations.erasure.asked import Asked
from watchkeeper_evaluations.erasure.finding import find
from watchkeeper_evaluations.erasure.report import Report
from watchkeeper_evaluations.erasure.selection import Selection
from watchkeeper_evaluations.erasure.stores import GIVING, STORES

AUDIT: Final = "erasures.jsonl"

ANSWERS_S: Final = 60.0
"""How long answers under way are waited for."""

PATIENCE_S: Final = 120.0
"""How long whoever carries texts is waited for; the shipper rests meanwhile, gateways do not."""

LOOK_AGAIN_S: Final = 0.1


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """`requests`: how many belong to what was asked for; `resumed`: some of them were left by an erasure before.
    `feedback`: said by the user. `removed`: place → rows, traces, cases, files.

    `left`: what could not be reached, a line each, to be finished by running it again; `elsewhere`: what is not ours to
    reach. `lake_versions`: table → the version before which none can be read any more: no older `lake_version` can be
    replayed."""

    at: datetime
    requests: int
    feedback: int
    replays: int
    resumed: bool = False
    dry_run: bool = False
    removed: dict[str, int] = {}
    left: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    lake_versions: dict[str, int] = {}

    @property
    def nothing(self) -> bool:
        """There was nothing to erase."""
        return not self.requests and not self.feedback

    @property
    def complete(self) -> bool:
        """Nothing is known to be left anywhere."""
        return not self.left and not self.elsewhere


def utc_now() -> datetime:
    return datetime.now(UTC)


def look(settings: Settings, asked: Asked, *, clock: Callable[[], datetime] = utc_now) -> Erasure:
    """What an erasure would find now, of what has arrived; nothing is changed."""
    report = Report()
    begun = journal.begun(settings.data)
    found = find(settings, asked, begun or Selection(), report)
    return _erasure(found, report, clock(), resumed=begun is not None, dry_run=True)


def erase(
    settings: Settings,
    asked: Asked,
    *,
    by: str,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
    answers_s: float = ANSWERS_S,
    patience_s: float = PATIENCE_S,
) -> Erasure:
    """Erases what was asked for, and what an erasure before left. `by`: who erases, for the audit."""
    report = Report()
    begun = journal.begun(settings.data)
    _arrived(settings, report, answers_s, sleep)
    found = find(settings, asked, begun or Selection(), report)
    if not found and begun is None:
        return _erasure(found, report, clock())
    _begin(settings, found, clock())
    for store in GIVING:
        with report.reaching():
            store(settings, found, report, False)
    _arrived(settings, report, answers_s, sleep)
    with standstill(settings.data, patience_s, sleep=sleep) as under_way:
        for what in under_way:
            report.could_not(f"{what} was still under way after {patience_s:g} s: what it carries may arrive yet")
        found = find(settings, asked, found, report)
        _begin(settings, found, clock())
        for store in STORES:
            with report.reaching():
                store(settings, found, report, not under_way)
    erasure = _erasure(found, report, clock(), resumed=begun is not None)
    _audit(settings.data, erasure, asked, by)
    if not erasure.left:
        journal.end(settings.data)
    return erasure


def _begin(settings: Settings, found: Selection, now: datetime) -> None:
    """From here on it will be finished, and the ledger misses nothing."""
    journal.begin(settings.data, found)
    deliveries = Deliveries(settings.data)
    deliveries.note_erased(found.requests, int(now.timestamp() * 1e6))
    deliveries.close()


def _arrived(settings: Settings, report: Report, answers_s: float, sleep: Callable[[float], None]) -> None:
    """Waits until the requests that are being answered have their records: whose they are only those say."""
    began = time.monotonic()
    waited_for = unfinished(settings.spool_folder)
    while waited_for and time.monotonic() - began < answers_s:
        sleep(LOOK_AGAIN_S)
        waited_for &= unfinished(settings.spool_folder)
    if waited_for:
        report.could_not(f"{len(waited_for)} requests were still being answered after {answers_s:g} s")


def _erasure(found: Selection, report: Report, at: datetime, *, resumed: bool = False, dry_run: bool = False) -> Erasure:
    return Erasure(
        at=at,
        requests=len(found.requests),
        feedback=len(found.feedback),
        replays=len(found.replays),
        resumed=resumed,
        dry_run=dry_run,
        removed={place: number for place, number in report.removed.items() if number},
        left=tuple(report.left),
        elsewhere=tuple(report.elsewhere),
        lake_versions=report.versions,
    )


def _audit(data: Path, erasure: Erasure, asked: Asked, by: str) -> None:
    """A line that says that something was erased, and nothing of what it was; on the disk when it returns."""
    line: dict[str, Any] = {"at": erasure.at, "by": by, "asked": asked.named(data)}
    plain = msgspec.to_builtins(erasure)
    line |= {key: value for key, value in plain.items() if key not in ("at", "dry_run")}
    descriptor = os.open(data / AUDIT, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")
        file.flush()
        os.fsync(file.fileno())
