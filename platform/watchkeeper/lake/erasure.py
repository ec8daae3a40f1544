"""Erasing from the lake: what of it belongs to a request or a user, its rows deleted, and the files rid of them.

Rows are deleted by id, since predicates are kept in a table's log. What was read at an older version before can no longer
be read after: the files of those versions are gone. Rollups stay: they hold counts and no text. Knows nothing of why
something is erased.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from watchkeeper.lake.lake import Lake
from watchkeeper.lake.upkeep import WRITING_H

BY_REQUEST: Final = ("interactions", "scores", "feedback")
"""The tables that hold what was written in a request, or of its answer."""

TABLES: Final = (*BY_REQUEST, "evaluations")
"""Those whose files are rid of what was erased: `evaluations` has reasons with words of users in them."""

MASKED: Final = re.compile(r"\[[A-Z_]+\]")
"""The name of a session in which something was masked, so that it is no longer one session's."""


def requests_of(lake: Lake, names: Iterable[str], tenant: str | None) -> dict[str, int]:
    """The requests of a user, by the names under which the user is stored: id → when it was received (µs). `tenant` None:
    of any."""
    return _received(
        lake,
        'SELECT request_id, epoch_us(received_at) AS at FROM interactions WHERE "user" IN (SELECT unnest($names)) '
        "AND ($tenant IS NULL OR tenant = $tenant)",
        {"names": sorted(names), "tenant": tenant},
    )


def known(lake: Lake, request_ids: Iterable[str]) -> dict[str, int]:
    """Those of the requests of which the lake has anything: id → when it was received (µs)."""
    every = " UNION ALL ".join(f"SELECT request_id, received_at FROM {table}" for table in BY_REQUEST)
    return _received(
        lake,
        f"SELECT request_id, min(epoch_us(received_at)) AS at FROM ({every}) "
        "WHERE request_id IN (SELECT unnest($ids)) GROUP BY request_id",
        {"ids": sorted(request_ids)},
    )


def sessions_of(lake: Lake, request_ids: Iterable[str]) -> dict[tuple[str, str], int]:
    """The sessions of these requests, by tenant and name → when the first of them was received (µs). Not those with a
    masked name: nobody can tell what else belongs to one."""
    found = lake.query(
        "SELECT tenant, session, min(epoch_us(received_at)) AS since FROM interactions WHERE source <> 'replay' AND "
        "request_id IN (SELECT unnest($ids)) AND session IS NOT NULL AND NOT regexp_matches(session, $masked) "
        "GROUP BY tenant, session",
        {"ids": sorted(request_ids), "masked": MASKED.pattern},
    )
    return {(row["tenant"], row["session"]): row["since"] for row in found.to_pylist()}


def followers(lake: Lake, since: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """The requests of these sessions from then on (µs): each was answered with the turns before it, and its record holds
    them."""
    return _received(
        lake,
        "SELECT i.request_id, epoch_us(i.received_at) AS at FROM interactions AS i JOIN (SELECT unnest($tenants) AS "
        "tenant, unnest($sessions) AS session, unnest($since) AS since) AS s ON i.tenant = s.tenant "
        "AND i.session = s.session WHERE epoch_us(i.received_at) >= s.since AND i.source <> 'replay'",
        {
            "tenants": [tenant for tenant, _ in since],
            "sessions": [session for _, session in since],
            "since": list(since.values()),
        },
    )


def feedback_of(lake: Lake, names: Iterable[str]) -> dict[str, str]:
    """What a user of these names said of answers, whosever: its id → the request that it speaks of."""
    sql = 'SELECT feedback_id, request_id FROM feedback WHERE "user" IN (SELECT unnest($names))'
    found = lake.query(sql, {"names": sorted(names)})
    return dict(zip(found.column(0).to_pylist(), found.column(1).to_pylist(), strict=True))


def of_others(lake: Lake, request_ids: Iterable[str], tenant: str) -> frozenset[str]:
    """Those of the requests that are known to be of another tenant."""
    sql = "SELECT request_id FROM interactions WHERE request_id IN (SELECT unnest($ids)) AND tenant <> $tenant"
    found = lake.query(sql, {"ids": sorted(request_ids), "tenant": tenant})
    return frozenset(found.column(0).to_pylist())


def replays(lake: Lake, request_ids: Iterable[str], case_ids: Iterable[str]) -> frozenset[str]:
    """The requests that experiments made of cases that were made of these requests, or have these ids."""
    found = lake.query(
        "SELECT request_id FROM interactions WHERE source = 'replay' AND (tags->>'request' IN (SELECT unnest($ids)) "
        "OR tags->>'case' IN (SELECT unnest($cases)))",
        {"ids": sorted(request_ids), "cases": sorted(case_ids)},
    )
    return frozenset(found.column(0).to_pylist())


def erase(lake: Lake, request_ids: Collection[str], feedback_ids: Collection[str]) -> dict[str, int]:
    """Deletes all rows of these requests, and the feedback of these ids; table → how many rows. Their files stay until
    `purge`."""
    gone = {table: lake.delete(table, "request_id", request_ids) for table in BY_REQUEST}
    gone["feedback"] += lake.delete("feedback", "feedback_id", feedback_ids)
    return gone


def purge(lake: Lake, *, alone: bool) -> dict[str, int]:
    """Deletes every file that no newest version uses; table → its version, before which none can be read any more.

    `alone`: nobody else is writing, so that what crashed writers left may go too; else, and in a store that is shared, it
    goes when it is so old that nobody can be at it.
    """
    versions: dict[str, int] = {}
    for table in TABLES:
        version = lake.version(table)
        if version is not None:
            sure = alone and "://" not in lake.uri  # a store that is shared may have writers who hold no lock of ours
            lake.vacuum(table, 0, everything=sure)
            if not sure:
                lake.vacuum(table, WRITING_H, everything=True)
            versions[table] = version
    return versions


def _received(lake: Lake, sql: str, parameters: dict[str, object]) -> dict[str, int]:
    found = lake.query(sql, parameters)
    return dict(zip(found.column("request_id").to_pylist(), found.column("at").to_pylist(), strict=True))
