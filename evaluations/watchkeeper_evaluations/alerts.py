"""Alerts: a verdict that turns to fail, or comes back; written to the lake exactly once, told to a webhook at least once.

    pass, warn ──fail──▶ fired          fail ──pass, warn──▶ resolved          unknown changes nothing

Only a window that is not older than the newest one with a verdict changes anything. The event is written before the
evaluation's row, so that a crash between the two judges the window again and loses no alert. The turns of a job are a
numbered sequence that the lake takes each once, as with scores: of two evaluations at the same time one finds its number
taken, and looks again at how things stand.

What the webhook gets has no words of users in it: a drift's telling words stay in the evaluation's row.
"""

import hashlib
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
import requests

from watchkeeper.lake.alerts import alert_row, last_turn, untold
from watchkeeper.lake.interactions import microseconds
from watchkeeper.lake.lake import Lake, LakeUnavailable
from watchkeeper.settings import Settings, seconds
from watchkeeper_evaluations.case import Verdict
from watchkeeper_evaluations.window import Window, written

TOLD_FOR: Final = timedelta(days=7)
"""What is older is no news: a webhook that is set later, or was away for longer, does not get it."""

_log = logging.getLogger(__name__)


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What an alert says of an evaluation. `reason`: without words of users."""

    job: str
    evaluation_id: str
    window: Window
    verdict: Verdict
    reason: str
    metrics: Mapping[str, float]
    mlflow_run_id: str
    run_url: str


def turn(is_open: bool, verdict: Verdict) -> Literal["fired", "resolved"] | None:
    """What a verdict does to a job's alert."""
    if verdict == "fail" and not is_open:
        return "fired"
    return "resolved" if verdict in ("pass", "warn") and is_open else None


def look(lake: Lake, judged: Judged, now: datetime) -> bool:
    """Writes what the verdict turns, if it turns anything; whether it did. Raises `LakeUnavailable`."""
    app_id = f"alerts:{judged.job}"
    while True:
        number = lake.transaction_version("alerts", app_id) or 0
        last = last_turn(lake, judged.job)
        event = turn(last is not None and last["event"] == "fired", judged.verdict)
        if event is None or judged.window.end < _newest(lake, judged.job, last):
            return False
        at = microseconds(now)
        if last is not None:
            at = max(at, microseconds(last["at"]) + 1)  # in the order of time they are in the order of numbers
        row = alert_row(
            alert_id=_alert_id(judged) if last is None or event == "fired" else last["alert_id"],
            event=event,
            at=at,
            job=judged.job,
            evaluation_id=judged.evaluation_id,
            window_start=judged.window.start,
            window_end=judged.window.end,
            verdict=judged.verdict,
            reason=judged.reason,
            evidence={
                "metrics": dict(judged.metrics),
                "mlflow_run_id": judged.mlflow_run_id,
                "run_url": judged.run_url,
            },
        )
        if lake.append("alerts", row, app_id=app_id, version=number + 1):
            return True


def tell(settings: Settings, lake: Lake, now: datetime) -> str | None:
    """Posts to the webhook every event that it has not taken, oldest first; stops at the first that it does not take, and
    returns why, in a line without the URL. Never raises: an alert that cannot be told must not stop what found it."""
    url = settings.alerts.webhook
    if url is None:
        return None
    try:
        for row in untold(lake, now - TOLD_FOR):
            _post(url, row, seconds(settings.alerts.timeout))
            lake.append(
                "alerts",
                alert_row(alert_id=row["alert_id"], event="notified", at=now, job=row["job"], reason=row["event"]),
            )
    except requests.RequestException as error:
        why = f"the webhook was not told: {_said(error)} from {urlsplit(url).hostname}"
    except LakeUnavailable as error:
        why = f"the webhook was not told: {error}"
    else:
        return None
    _log.warning("%s", why)
    return why


def _said(error: requests.RequestException) -> str:
    """Not its message, in which the URL stands: who knows a webhook's path may often post there."""
    return type(error).__name__ if error.response is None else f"HTTP {error.response.status_code}"


def body(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the webhook gets of a row of `alerts`."""
    return {
        "alert_id": row["alert_id"],
        "event": row["event"],
        "job": row["job"],
        "verdict": row["verdict"],
        "reason": row["reason"],
        "window": {"start": written(row["window_start"]), "end": written(row["window_end"])},
        "evaluation_id": row["evaluation_id"],
        "run_url": msgspec.json.decode(row["evidence"])["run_url"],
        "at": written(row["at"]),
    }


def _post(url: str, row: Mapping[str, Any], timeout: float) -> None:
    """The answer's body is not read, and a redirect is not followed: neither can hold this up, nor lead elsewhere."""
    # The same event has the same key however often it is sent.
    headers = {"idempotency-key": f"{row['alert_id']}:{row['event']}"}
    with requests.post(
        url, json=body(row), headers=headers, timeout=timeout, stream=True, allow_redirects=False
    ) as response:
        if not 200 <= response.status_code < 300:
            raise requests.HTTPError(response=response)


def _newest(lake: Lake, job: str, last: Mapping[str, Any] | None) -> datetime:
    """The end of the newest window of the job that has a verdict, or turned something."""
    found = lake.query(
        "SELECT coalesce(max(window_end), make_timestamptz(0)) AS newest FROM evaluations "
        "WHERE job = $job AND verdict <> 'unknown'",
        {"job": job},
    )
    newest: datetime = found.column("newest")[0].as_py()
    return newest if last is None else max(newest, last["window_end"])


def _alert_id(judged: Judged) -> str:
    """Of the evaluation that fires it, so that the same one twice is the same alert."""
    return f"{judged.job}-{judged.window.end:%Y%m%dT%H%M%S}-{hashlib.sha256(judged.evaluation_id.encode()).hexdigest()[:8]}"
