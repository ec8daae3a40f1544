"""The lake's table `releases`, an event log: who serves since when, who made it so and why; and the gates that let it.

Knows nothing of MLflow, where releases are kept: a champion that was moved there by hand has no event here.
"""

from datetime import datetime
from typing import Literal

import msgspec
import pyarrow as pa

from watchkeeper.lake.experiments import GATES_SQL, NEWEST_GATE_SQL
from watchkeeper.lake.interactions import Time, text
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.tables import RELEASES
from watchkeeper.record import SCHEMA_VERSION

Event = Literal["registered", "promoted", "rolled_back", "canary_started", "canary_ended"]


class Served(msgspec.Struct, frozen=True):
    """A release's time as champion. `until` None: it serves still. `event`: promoted or rolled_back."""

    release: str
    digest: str
    since: datetime
    until: datetime | None
    event: Event
    previous: str | None
    previous_digest: str | None
    reason: str
    override: bool
    comparison_id: str | None
    by: str


class Gate(msgspec.Struct, frozen=True):
    """The verdict of a gate over two releases: pass, fail or unknown."""

    comparison_id: str
    compared_at: datetime
    verdict: str
    reason: str


def release_row(
    *,
    at: Time,
    event: Event,
    release: str,
    digest: str,
    previous: str | None = None,
    previous_digest: str | None = None,
    reason: str = "",
    override: bool = False,
    comparison_id: str | None = None,
    by: str = "",
) -> pa.Table:
    """One row of `releases`; `date` is the day of `at`."""
    when = pa.array([at], RELEASES.field("at").type)
    columns = {
        "date": when.cast(pa.date32()),
        "at": when,
        "event": [event],
        "release": [release],
        "digest": [digest],
        "previous": [previous],
        "previous_digest": [previous_digest],
        "reason": text([reason]),
        "override": [override],
        "comparison_id": [comparison_id],
        "by": text([by]),
        "schema_version": [SCHEMA_VERSION],
    }
    return pa.table(columns, schema=RELEASES)


def release_events(lake: Lake) -> pa.Table:
    """Every event, newest first."""
    return lake.query('SELECT * FROM releases ORDER BY "at" DESC, event')


def served(lake: Lake) -> list[Served]:
    """Who served since when, newest first."""
    rows = lake.query(
        'SELECT release, digest, "at" AS since, lag("at") OVER (ORDER BY "at" DESC) AS until, event, previous, '
        'previous_digest, reason, override, comparison_id, "by" FROM releases '
        "WHERE event IN ('promoted', 'rolled_back') ORDER BY since DESC"
    )
    return [msgspec.convert(row, Served) for row in rows.to_pylist()]


def newest_gate(lake: Lake, base_digest: str, candidate_digest: str) -> Gate | None:
    """The newest verdict on the newest experiment of which a gate judged exactly these two contents; None: none has.

    A gate whose experiment is not known does not count.
    """
    rows = lake.query(
        f"SELECT comparison_id, compared_at, verdict, coalesce(reason, '') AS reason FROM {GATES_SQL} "
        "WHERE base_digest = $base AND candidate_digest = $candidate AND verdict IS NOT NULL "
        f"ORDER BY {NEWEST_GATE_SQL} LIMIT 1",
        {"base": base_digest, "candidate": candidate_digest},
    )
    return next((msgspec.convert(row, Gate) for row in rows.to_pylist()), None)
