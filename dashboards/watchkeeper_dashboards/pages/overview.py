"""Is the service healthy, safe and affordable right now? Key figures, charts, verdicts of the jobs, what needs review.

Figures and charts sum rollups; the tables and the slowest traces are a few single requests, each read with a limit.
"""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from dash import Dash, Input, Output, dcc, html
from dash.development.base_component import Component

from watchkeeper.lake import reading
from watchkeeper.lake.rollup import Rollups
from watchkeeper.record import STAGES
from watchkeeper_dashboards import alarms, evidence, figures, parts, shell, units
from watchkeeper_dashboards.canvas import Figure, Series
from watchkeeper_dashboards.page import Page, Sources
from watchkeeper_dashboards.period import Period, chosen, period
from watchkeeper_dashboards.tiles import key_figures

REVIEWED: Final = 12
_MARKED: Final = 12
_MARKED_UP_TO: Final = 1_000_000
"""Requests in the window; among more, looking for the slowest ones would take longer than all the charts."""

_CHARTS: Final = ("latency", "stages", "interventions", "categories", "tokens")
_METRICS_SHOWN: Final = 4

_REVIEW_COLUMNS: Final = (
    ("Time", "wk-nowrap"), ("Verdict", ""), ("Prompt", "wk-clip"), ("Why", "wk-nowrap"), ("Status", ""),
    ("Trace", "wk-nowrap wk-optional"), ("Model", "wk-optional wk-nowrap"), ("Total", "wk-num wk-optional"),
    ("Support", "wk-num wk-optional"),
)  # fmt: skip
_JOB_COLUMNS: Final = (
    ("Job", "wk-nowrap"), ("Verdict", ""), ("Judged", "wk-nowrap wk-optional"), ("Window", "wk-nowrap wk-optional"),
    ("n", "wk-num"), ("What it found", "wk-wide"), ("", "wk-nowrap"),
)  # fmt: skip


def layout(sources: Sources, _: str) -> Component:
    charts = [
        html.Div(
            [
                parts.card(
                    "End-to-end latency", "until the whole answer was there; a diamond opens the slowest trace around it",
                    parts.legend(("p50", "line", "blue"), ("p50 to p95", "band", "blue"), ("p99", "dotted", "dim"),
                                 ("slowest", "diamond", "orange")),
                    parts.figure("latency", 290, "Latency over time: p50, p95 and p99", clickable=True),
                ),
                parts.card(
                    "Where time goes", "every stage of the loop on a logarithmic scale; p95 in figures",
                    parts.legend(("p50", "dot", "blue"), ("p95", "ring", "blue")),
                    parts.figure("stages", 290, "p50 and p95 of each stage on a logarithmic scale"),
                ),
            ],
            className="wk-row",
        ),
        html.Div(
            [
                parts.card(
                    "Safety interventions", html.Span("share of traffic not passed", id="safety-note"),
                    parts.legend(*((action, f"square {action}", action) for action in figures.SHOWN_ACTIONS)),
                    parts.figure("interventions", 240, "Share of requests flagged, redacted, blocked or not judged"),
                ),
                parts.card(
                    "What the guards found", "requests by category of the verdict",
                    parts.figure("categories", 262, "Requests by category of the verdict"),
                ),
                parts.card(
                    "Tokens and cost", html.Span("", id="tokens-note"),
                    parts.legend(("input", "square", "sky"), ("output", "square redact", "blue"),
                                 ("cost", "square", "green")),
                    parts.figure("tokens", 240, "Input and output tokens over time, and what they cost"),
                ),
            ],
            className="wk-row wk-row-three",
        ),
    ]  # fmt: skip
    tables = [
        parts.card(
            "Evaluations", "the newest verdict of each job over its window; unknown is too little evidence, never a pass",
            html.Div(id="overview-jobs"),
        ),
        parts.card(
            "Needs review", "verdicts that are no pass, and errors, newest first; a row opens its trace",
            html.Div(id="overview-review"),
            aside=dcc.Link("All traces", href="/traces", id={"nav": "review", "path": "/traces"}),
        ),
    ]  # fmt: skip
    return shell.live(
        "overview",
        parts.head("Overview", "Is the service healthy, safe and affordable right now?"),
        html.Div(id="overview-alerts"),
        html.Div(id="overview-empty"),
        html.Div(
            [html.Div(id="overview-tiles", className="wk-tiles"), *charts, *tables],
            id="overview-body",
            className="wk-stack",
        ),
    )


def register(app: Dash, sources: Sources) -> None:
    shell.keep_ticking(app, "overview")

    @app.callback(
        Output("overview-alerts", "children"),
        Output("overview-empty", "children"),
        Output("overview-body", "style"),
        Output("overview-tiles", "children"),
        *(Output(parts.store(name), "data") for name in _CHARTS),
        Output("safety-note", "children"),
        Output("tokens-note", "children"),
        Output("overview-jobs", "children"),
        Output("overview-review", "children"),
        Input("overview-url", "search"),
        Input("overview-tick", "data"),
        running=shell.while_running("overview"),
    )
    def read(search: str | None, _: object) -> tuple[Any, ...]:
        began = time.perf_counter()
        now = sources.now()
        served = evidence.served(sources.lake)
        span = period(chosen(search), now, served[0] if served else None)
        current = Rollups.read(sources.lake, span.start, span.end, bucket_s=span.bucket_s, latencies=("total", *STAGES))
        answer = _filled(sources, span, current) if current.n.sum() else _nothing(sources, span, served)
        open_ones = alarms.notice_of(sources)
        shell.report_success(now, time.perf_counter() - began)
        return (open_ones, *answer)

    shell.browser(app, "openPoint", Input(parts.graph("latency"), "clickData"))


def _nothing(sources: Sources, span: Period, served: tuple[datetime, datetime] | None) -> tuple[Any, ...]:
    """No request in the chosen range: the jobs' verdicts are not shown either."""
    if served is None:
        gateway = sources.settings.gateway
        words = parts.empty(
            "Nothing has been served yet",
            "Send the gateway a request; it shows up here a few seconds after it was answered:",
            command=f"curl http://{gateway.host}:{gateway.port}/v1/chat/completions \\\n"
            "  -H 'content-type: application/json' \\\n"
            '  -d \'{"model": "watchkeeper", "messages": [{"role": "user", "content": "Hello"}]}\'',
        )
    else:
        words = parts.empty(
            f"No requests in {span.words}",
            f"The newest were served about {units.moment(served[1])}. ",
            dcc.Link("Show all time", href="/?range=all"),
        )
    hidden = {"display": "none"}
    return (html.Div(words, className="wk-card"), hidden, [], *(None for _ in _CHARTS), "", "", None, None)


def _filled(sources: Sources, span: Period, current: Rollups) -> tuple[Any, ...]:
    prior = None
    if span.prior:
        prior = Rollups.read(sources.lake, span.prior.start, span.prior.end, bucket_s=span.bucket_s, latencies=("total",))
    begin = int(np.argmax(current.n > 0))
    since = current.times[begin].astype(datetime).replace(tzinfo=UTC)
    marks = min(_MARKED, int((current.n > 0).sum()))
    marked = evidence.slowest(sources.lake, since, span.end, marks) if current.n.sum() <= _MARKED_UP_TO else []
    review = evidence.needs_review(sources.lake, span.start, span.end, REVIEWED)
    jobs = reading.newest_evaluations(sources.lake).to_pylist()
    width = units.duration(span.bucket_s * figures.buckets_a_bar(len(current.n) - begin))
    cost = float(current.cost.sum())
    spent = f"below them the cost, {units.dollars(cost)} in all" if cost else "the model has no price"
    return (
        None,
        {},
        key_figures(current, prior),
        *charts(current, span.bucket_s, marked),
        f"share of traffic not passed, per {width}",
        f"tokens per {width}; {spent}",
        _jobs(sources, jobs),
        _review(review, span),
    )


def charts(current: Rollups, width_s: int, marked: Sequence[evidence.Row] = ()) -> list[Figure]:
    """The charts in the order of `_CHARTS`. Time begins where the data begins: a young system fills its charts."""
    begin = int(np.argmax(current.n > 0))
    times = current.times[begin:]
    total = {q: current.percentile_series("total", q)[begin:] for q in (0.5, 0.95, 0.99)}
    diamonds = [
        (row["received_at"].astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"), row["total_ms"], row["request_id"])
        for row in marked
    ]
    by_stage = {q: {stage: current.percentile(stage, q) for stage in STAGES} for q in (0.5, 0.95)}
    actions = {name: bars(series, begin) for name, series in current.counts("actions").items()}
    found = {name: int(series.sum()) for name, series in current.counts("categories").items()}
    together = figures.buckets_a_bar(len(times))
    bar_times, bar_s = times[::together], width_s * together
    spent = (bars(series, begin) for series in (current.input_tokens, current.output_tokens, current.cost))
    return [
        figures.latency(times, width_s, total[0.5], total[0.95], total[0.99], diamonds),
        figures.stages(by_stage[0.5], by_stage[0.95]),
        figures.interventions(bar_times, bar_s, bars(current.n, begin), actions),
        figures.categories(found),
        figures.tokens(bar_times, bar_s, *spent),
    ]


def bars(series: figures.Counts, begin: int) -> Series:
    """A series from `begin` on, summed into as few entries as a small chart has bars."""
    kept = series[begin:].astype(np.float64)
    return np.add.reduceat(kept, np.arange(0, len(kept), figures.buckets_a_bar(len(kept))))


def _review(rows: Sequence[evidence.Row], span: Period) -> Component:
    if not rows:
        return parts.empty(f"Every request of {span.words} passed, and none failed.", small=True)
    return parts.table(_REVIEW_COLUMNS, [_review_row(row, span) for row in rows], "Requests that need review")


def _review_row(row: evidence.Row, span: Period) -> Component:
    link = shell.link(
        units.day_and_clock(row["received_at"]), f"/traces/{row['request_id']}?range={span.name}", class_name="wk-row-link"
    )
    values = (
        link,
        parts.badge(row["action"]),
        row["prompt"],
        why(row),
        row["status"],
        html.Span(row["request_id"][:10], className="wk-mono", title=row["request_id"]),
        row["model"],
        units.milliseconds(row["total_ms"]),
        units.score(row["support"]),
    )
    return parts.cells(_REVIEW_COLUMNS, values, "wk-linked")


def why(row: evidence.Row) -> str:
    """What made a request one for review: its error, or the categories of its strongest verdicts."""
    if row["status"] == "error":
        return row["error"] or "error"
    strongest = [verdict for verdict in row["verdicts"] if verdict["action"] == row["action"]]
    return ", ".join(dict.fromkeys(f"{verdict['category']} in {verdict['target']}" for verdict in strongest)) or units.NONE


def _jobs(sources: Sources, rows: Sequence[evidence.Row]) -> Component:
    if not rows:
        return parts.empty(
            "", "No job has judged a window yet. Jobs run on their schedule, or now:",
            command="watchkeeper evaluate all --last 1h", small=True,
        )  # fmt: skip
    return parts.table(_JOB_COLUMNS, [_job_row(sources, row) for row in rows], "Newest evaluation of each job")


def _job_row(sources: Sources, row: evidence.Row) -> Component:
    address = sources.links.run(row["mlflow_run_id"]) if row["mlflow_run_id"] else None
    window = units.window(row["window_start"], row["window_end"])
    values = (
        html.Strong(row["job"]),
        parts.badge(row["verdict"]),
        units.day_and_clock(row["evaluated_at"]),
        window,
        units.count(row["n"]),
        _findings(row),
        parts.outside("run in MLflow", address) if address else None,
    )
    return parts.cells(_JOB_COLUMNS, values)


def _findings(row: evidence.Row) -> Component:
    """The reason in words, and the first few numbers among the metrics."""
    try:
        metrics = json.loads(row["metrics"] or "{}")
    except ValueError:
        metrics = {}
    numbers = [
        f"{name} {value:.4g}"
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    words = html.Div(row["reason"]) if row["reason"] else None
    return html.Div([words, html.Div(" · ".join(numbers[:_METRICS_SHOWN]), className="wk-dim")])


PAGE: Final = Page("/", "Overview", layout, register, icon="layout-dashboard")
