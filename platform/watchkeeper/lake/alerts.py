"""The table `alerts`: rows of its event log, what people do with an alert, and what pages ask of it.

An alert begins with a `fired` event, whose `alert_id` all its further events carry, and ends with `resolved`. `notified`
says that the webhook took the event named in `reason`; in `acknowledged` and `silenced`, `reason` is a person's note.

Knows nothing of when an alert fires.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import pyarrow as pa

from watchkeeper.lake.interactions import Time, microseconds, text
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.tables import ALERTS
from watchkeeper.record import SCHEMA_VERSION

AlertEvent = Literal["fired", "resolved", "acknowledged", "silenced", "notified"]


class AlertUnknown(Exception):
    """There is no alert of this id; the message is one line."""


def alert_row(
    *,
    alert_id: str,
    event: AlertEvent,
    at: Time,
    job: str,
    evaluation_id: str | None = None,
    window_start: Time | None = None,
    window_end: Time | None = None,
    verdict: str | None = None,
    reason: str = "",
    evidence: Mapping[str, Any] | None = None,
    by: str | None = None,
) -> pa.Table:
    """One row of `alerts`; `date` is the day of `at`. `evidence` is kept as JSON."""
    times = pa.array([at], ALERTS.field("at").type)
    columns = {
        "date": times.cast(pa.date32()),
        "alert_id": [alert_id],
        "event": [event],
        "at": times,
        "job": [job],
        "evaluation_id": [evaluation_id],
        "window_start": [window_start],
        "window_end": [window_end],
        "verdict": [verdict],
        "reason": text([reason]),
        "evidence": text([None if evidence is None else msgspec.json.encode(evidence, order="deterministic").decode()]),
        "by": text([by]),
        "schema_version": [SCHEMA_VERSION],
    }
    return pa.table(columns, schema=ALERTS)


def acknowledge(lake: Lake, alert_id: str, by: str, now: Time, note: str = "") -> None:
    """Somebody looks after it. Raises `AlertUnknown`, `LakeUnavailable`."""
    _said(lake, alert_id, "acknowledged", by, now, note)


def silence(lake: Lake, alert_id: str, by: str, now: Time, note: str = "") -> None:
    """The webhook hears no more of this alert, nor that it is resolved. Raises `AlertUnknown`, `LakeUnavailable`."""
    _said(lake, alert_id, "silenced", by, now, note)


def _said(lake: Lake, alert_id: str, event: AlertEvent, by: str, now: Time, note: str) -> None:
    fired = lake.query("SELECT job FROM alerts WHERE alert_id = $id AND event = 'fired' LIMIT 1", {"id": alert_id})
    if fired.num_rows == 0:
        raise AlertUnknown(f"there is no alert {alert_id!r}")
    lake.append(
        "alerts", alert_row(alert_id=alert_id, event=event, at=now, job=fired.column("job")[0].as_py(), reason=note, by=by)
    )


def open_alerts(lake: Lake) -> pa.Table:
    """The `fired` rows of alerts that are not resolved, newest first, with `acknowledged_at`, `acknowledged_by`,
    `acknowledged_note` and `silenced_at`: of the newest such event, or null."""
    return lake.query(
        f"""
        SELECT f.*, a."at" AS acknowledged_at, a."by" AS acknowledged_by, a.reason AS acknowledged_note,
            s."at" AS silenced_at
        FROM (SELECT * FROM alerts WHERE event = 'fired') AS f
        ANTI JOIN (SELECT alert_id FROM alerts WHERE event = 'resolved') AS r ON f.alert_id = r.alert_id
        LEFT JOIN ({_newest("acknowledged")}) AS a ON f.alert_id = a.alert_id
        LEFT JOIN ({_newest("silenced")}) AS s ON f.alert_id = s.alert_id
        ORDER BY f."at" DESC, f.alert_id
        """
    )


def _newest(event: str) -> str:
    return f"""SELECT * FROM alerts WHERE event = '{event}'
        QUALIFY row_number() OVER (PARTITION BY alert_id ORDER BY "at" DESC, "by", reason) = 1"""


def alert_log(lake: Lake, start: Time, end: Time) -> pa.Table:
    """All events of alerts in [start, end), newest first."""
    return lake.query(
        """
        SELECT * FROM alerts WHERE "at" >= make_timestamptz($start) AND "at" < make_timestamptz($end)
            AND date BETWEEN make_timestamptz($start)::DATE AND make_timestamptz($end)::DATE
        ORDER BY "at" DESC, alert_id, event
        """,
        {"start": microseconds(start), "end": microseconds(end)},
    )


def last_turn(lake: Lake, job: str) -> dict[str, Any] | None:
    """The newest `fired` or `resolved` row of a job; None: it never fired."""
    rows = lake.query(
        """SELECT * FROM alerts WHERE job = $job AND event IN ('fired', 'resolved') ORDER BY "at" DESC LIMIT 1""",
        {"job": job},
    ).to_pylist()
    return rows[0] if rows else None


def untold(lake: Lake, since: Time) -> list[dict[str, Any]]:
    """The `fired` and `resolved` rows since then that the webhook has not taken, of alerts that nobody silenced, oldest
    first."""
    rows: list[dict[str, Any]] = lake.query(
        """
        SELECT e.* FROM (
            SELECT * FROM alerts WHERE event IN ('fired', 'resolved') AND "at" >= make_timestamptz($since)
                AND date >= make_timestamptz($since)::DATE
        ) AS e
        ANTI JOIN (SELECT alert_id, reason AS told FROM alerts WHERE event = 'notified') AS n
            ON e.alert_id = n.alert_id AND e.event = n.told
        ANTI JOIN (SELECT alert_id FROM alerts WHERE event = 'silenced') AS s ON e.alert_id = s.alert_id
        ORDER BY e."at"
        """,
        {"since": microseconds(since)},
    ).to_pylist()
    return rows
