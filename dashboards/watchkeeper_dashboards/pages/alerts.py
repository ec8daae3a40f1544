"""What is wrong now, and what was: open alerts first, then all that happened to alerts in the chosen time.

An alert fires when a job's verdict turns to fail, and is resolved when it comes back. Somebody who looks after one says so.
"""

import json
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, ctx, html
from dash.development.base_component import Component

from watchkeeper.lake.alerts import AlertUnknown, acknowledge, alert_log, open_alerts
from watchkeeper_dashboards import actions, alarms, dialog, evidence, parts, shell, units
from watchkeeper_dashboards.evidence import Row
from watchkeeper_dashboards.page import Page, Sources
from watchkeeper_dashboards.period import between, chosen, period

_LOG: Final = (
    ("When (UTC)", "wk-nowrap"), ("What", "wk-nowrap"), ("Job", "wk-nowrap"), ("Why", "wk-wide"),
    ("Window", "wk-nowrap wk-optional"), ("By", "wk-optional"),
)  # fmt: skip
_EVENT_TONES: Final = {"fired": "fail", "resolved": "pass", "acknowledged": "flag", "silenced": "unknown"}
_KEY: Final = "acknowledge"
_LOG_SHOWN: Final = 300


def layout(sources: Sources, _: str) -> Component:
    return shell.live(
        "alerts",
        parts.head("Alerts", "What needs somebody now?"),
        html.Div(id="alerts-body", className="wk-stack"),
        dialog.dialog(
            "alerts", (_KEY,), "Acknowledge",
            dmc.TextInput(id="alerts-by", label="Your name", required=True, size="sm", persistence=True),
            dialog.words("alerts-note", "Note", "What you found, or what you will do.", required=False),
        ),
    )  # fmt: skip


def register(app: Dash, sources: Sources) -> None:
    shell.keep_ticking(app, "alerts")
    dialog.register(app, "alerts", "alerts-by")

    @app.callback(
        Output("alerts-body", "children"),
        Input("alerts-url", "search"),
        Input("alerts-tick", "data"),
        running=shell.while_running("alerts"),
    )
    def read(search: str | None, _: object) -> list[Component]:
        began = time.perf_counter()
        now = sources.now()
        waiting = open_alerts(sources.lake).to_pylist()
        served = evidence.served(sources.lake)
        span = period(chosen(search), now, served[0] if served else None)
        events = alert_log(sources.lake, span.start, span.end).to_pylist()
        refused = actions.refusal(sources.settings)
        shown = [_open(sources, row, search, refused, now) for row in waiting] or [_all_well()]
        shell.report_success(now, time.perf_counter() - began)
        return [*shown, _log(events, span.words)]

    @app.callback(
        Output("alerts-dialog", "title"),
        Output("alerts-question", "children"),
        Output("alerts-note", "value"),
        Input("alerts-url", "search"),
    )
    def ask(search: str | None) -> tuple[str, str, str]:
        alert_id = asked(search)
        row = next((row for row in open_alerts(sources.lake).to_pylist() if row["alert_id"] == alert_id), None)
        if row is None:
            return "", "This alert is not open any more.", ""
        words = "Others see that you look after it; it stays open until its job's verdict comes back."
        return f"Acknowledge: {row['job']}", words, ""

    @app.callback(
        Output("alerts-said", "children"),
        Input("alerts-do", "n_clicks"),
        Input("alerts-url", "search"),
        State("alerts-by", "value"),
        State("alerts-note", "value"),
        running=[(Output("alerts-do", "loading"), True, False)],
        prevent_initial_call=True,
    )
    def do(_: int | None, search: str | None, by: str | None, note: str | None) -> Component | None:
        if ctx.triggered_id != "alerts-do":  # another question: what came of the last one is gone
            return None
        refused, alert_id, who = actions.refusal(sources.settings), asked(search), (by or "").strip()
        if refused or alert_id is None or not who:
            return parts.notice(refused or "Say who you are.")
        try:
            acknowledge(sources.lake, alert_id, who, sources.now(), (note or "").strip())
        except AlertUnknown as error:
            return parts.notice(str(error))
        return parts.done(f"Acknowledged by {who}.")


def asked(search: str | None) -> str | None:
    """The alert that the URL asks to be acknowledged."""
    return parse_qs((search or "").lstrip("?")).get(_KEY, [None])[-1]


def _open(sources: Sources, row: Row, search: str | None, refused: str | None, now: datetime) -> Component:
    since = f"since {units.day_and_clock(row['at'])} UTC, {units.duration((now - row['at']).total_seconds())}"
    links: list[Component | None] = []
    if row["evaluation_id"]:
        links.append(shell.link("evaluation", f"/quality?{urlencode({'evaluation': row['evaluation_id']})}"))
    if row["window_start"] and row["window_end"]:
        window = units.window(row["window_start"], row["window_end"])
        address = f"/traces{between(row['window_start'], row['window_end'])}"
        links.append(shell.link(f"requests of {window}", address))
    run_id = _evidence(row).get("mlflow_run_id")
    run = sources.links.run(str(run_id)) if run_id else None
    links.append(parts.outside("run in MLflow", run) if run else None)
    button = None if refused else shell.link("Acknowledge", _address(search, row["alert_id"]), class_name="wk-button")
    return parts.card(
        row["job"],
        html.Span([parts.badge(row["verdict"] or "fail"), since], className="wk-pair"),
        html.P(row["reason"] or "The job gave no reason.", className="wk-reason"),
        _numbers(row),
        html.Div([link for link in links if link is not None], className="wk-links"),
        _looked_after(row),
        aside=button,
        class_name="wk-alert",
    )


def _looked_after(row: Row) -> Component | None:
    """Who said that they look after it, and whether the webhook is silent about it."""
    words = []
    if row["acknowledged_at"]:
        note = f": {row['acknowledged_note']}" if row["acknowledged_note"] else ""
        words.append(
            f"{row['acknowledged_by']} looks after it since {units.day_and_clock(row['acknowledged_at'])} UTC{note}"
        )
    if row["silenced_at"]:
        words.append(f"silenced {units.day_and_clock(row['silenced_at'])} UTC")
    return html.P("; ".join(words), className="wk-looked-after") if words else None


def _numbers(row: Row) -> Component | None:
    """The first few numbers of its evidence."""
    metrics = _evidence(row).get("metrics")
    numbers = {
        name: value
        for name, value in (metrics.items() if isinstance(metrics, dict) else ())
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    words = " · ".join(f"{name} {value:.4g}" for name, value in list(numbers.items())[:6])
    return html.P(words, className="wk-card-note") if words else None


def _evidence(row: Row) -> dict[str, Any]:
    try:
        value = json.loads(row["evidence"] or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _all_well() -> Component:
    return html.Div(
        parts.empty(
            "No alert is open",
            "An alert fires when the schedule finds that a job's verdict has turned to fail. To let the jobs run:",
            command="watchkeeper schedule",
        ),
        className="wk-card",
    )


def _log(events: Sequence[Row], words: str) -> Component:
    if not events:
        return parts.card("What happened", words, parts.empty(f"Nothing happened to alerts in {words}.", small=True))
    rows = [
        parts.cells(
            _LOG,
            (
                units.day_and_clock(event["at"]),
                parts.badge(event["event"], _EVENT_TONES.get(event["event"], "skipped")),
                event["job"],
                event["reason"] or "",
                units.window(event["window_start"], event["window_end"]) if event["window_start"] else units.NONE,
                event["by"] or "",
            ),
        )
        for event in events[:_LOG_SHOWN]
    ]
    more = f"; the newest {_LOG_SHOWN} of {units.count(len(events))}" if len(events) > _LOG_SHOWN else ""
    return parts.card(
        "What happened", f"in {words}, newest first{more}", parts.table(_LOG, rows, "What happened to alerts")
    )


def _address(search: str | None, alert_id: str) -> str:
    query = {name: values[-1] for name, values in parse_qs((search or "").lstrip("?")).items()}
    return f"/alerts?{urlencode(query | {_KEY: alert_id})}"


PAGE: Final = Page("/alerts", "Alerts", layout, register, icon="bell", pending=alarms.pending)
