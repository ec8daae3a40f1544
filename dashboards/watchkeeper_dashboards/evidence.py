"""The few single requests and values that stand beside the charts: what needs review, the slowest, scores of listed rows.

Lists and single traces come from `watchkeeper.lake.reading`, charts from rollups; what only the pages ask is asked here.
Every question is bounded by time. Rows are plain dicts, times aware UTC datetimes. Replays are left out.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import STATUS_SQL

Row = dict[str, Any]

TOXICITY: Final = "toxicity.output"
"""The judge's score that the pages show beside a request."""

_PREVIEW: Final = 200
_WINDOW: Final = """source <> 'replay' AND received_at >= $start AND received_at < $end
    AND date BETWEEN $start::DATE AND $end::DATE"""


def served(lake: Lake) -> tuple[datetime, datetime] | None:
    """The starts of the oldest and the newest 5 minutes that were rolled up; None: nothing has been served yet."""
    row = lake.query("SELECT min(bucket) AS first, max(bucket) AS last FROM rollups WHERE source <> 'replay'").to_pylist()[
        0
    ]
    return None if row["first"] is None else (row["first"], row["last"])


def needs_review(lake: Lake, start: datetime, end: datetime, limit: int) -> list[Row]:
    """The newest requests of [start, end) that the guards did not simply pass, or that failed; with their verdicts."""
    rows: list[Row] = lake.query(
        f"""SELECT request_id, received_at, left(prompt_text, {_PREVIEW}) AS prompt, action, status, error, model, total_ms,
        support, verdicts
        FROM (SELECT * REPLACE ({STATUS_SQL} AS status) FROM interactions WHERE {_WINDOW})
        WHERE (action <> 'pass' AND len(verdicts) > 0) OR status = 'error'
        ORDER BY received_at DESC, request_id LIMIT $limit""",
        {"start": start, "end": end, "limit": limit},
    ).to_pylist()
    return rows


def slowest(lake: Lake, start: datetime, end: datetime, parts: int) -> list[Row]:
    """The slowest request (received_at, total_ms, request_id) of each of `parts` equal parts of [start, end)."""
    step = max((end - start).total_seconds() / parts, 1.0)
    rows: list[Row] = lake.query(
        f"""SELECT max_by(received_at, total_ms) AS received_at, max(total_ms) AS total_ms,
        max_by(request_id, total_ms) AS request_id FROM interactions WHERE {_WINDOW} AND {STATUS_SQL} <> 'rejected'
        GROUP BY floor((epoch(received_at) - epoch($start)) / $step) ORDER BY received_at""",
        {"start": start, "end": end, "step": step},
    ).to_pylist()
    return rows


def toxicity(lake: Lake, rows: Sequence[Row]) -> dict[str, float]:
    """The newest toxicity score of each of some rows, by request id; rows that have none are left out."""
    if not rows:
        return {}
    times = [row["received_at"] for row in rows]
    found = lake.query(
        """SELECT request_id, arg_max(value, scored_at) AS value FROM scores WHERE name = $name AND value IS NOT NULL
        AND date BETWEEN $start::DATE AND $end::DATE AND request_id IN (SELECT unnest($ids)) GROUP BY request_id""",
        {"name": TOXICITY, "start": min(times), "end": max(times), "ids": [row["request_id"] for row in rows]},
    ).to_pylist()
    return {row["request_id"]: row["value"] for row in found}


def languages(lake: Lake, start: datetime, end: datetime) -> list[str]:
    """The languages of the requests of [start, end), the most frequent first."""
    rows = lake.query(
        f"""SELECT language, count(*) AS n FROM interactions WHERE {_WINDOW} AND language <> ''
        GROUP BY language ORDER BY n DESC, language LIMIT 100""",
        {"start": start, "end": end},
    )
    found: list[str] = rows["language"].to_pylist()
    return found


def verdicts(lake: Lake, start: datetime, end: datetime) -> list[Row]:
    """The evaluations whose windows end in (start, end], oldest window first. Of a window that a job judged more than once
    the newest."""
    rows: list[Row] = lake.query(
        """SELECT * FROM evaluations WHERE window_end > $start AND window_end <= $end AND date >= $start::DATE
        QUALIFY row_number() OVER
        (PARTITION BY job, window_start, window_end ORDER BY evaluated_at DESC, evaluation_id) = 1
        ORDER BY job, window_start, window_end""",
        {"start": start, "end": end},
    ).to_pylist()
    return rows


def evaluation(lake: Lake, evaluation_id: str) -> Row | None:
    """One evaluation; None: there is none of this id."""
    rows = lake.query("SELECT * FROM evaluations WHERE evaluation_id = $id LIMIT 1", {"id": evaluation_id}).to_pylist()
    return rows[0] if rows else None
