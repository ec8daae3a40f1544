"""Are the answers still good, and still like those before? Verdicts of the jobs over time, and every score over time.

Charts sum rollups, sliced by a release that stands in the URL. A point opens the requests behind it, worst first; a verdict
opens what it rests on.
"""

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

import dash_mantine_components as dmc
import numpy as np
from dash import Dash, Input, Output, State, dcc, html
from dash.development.base_component import Component

from watchkeeper.lake import reading
from watchkeeper.lake.rollup import Rollups
from watchkeeper_dashboards import evidence, figures, parts, shell, units
from watchkeeper_dashboards.canvas import Figure, Series, Times
from watchkeeper_dashboards.page import Page, Sources
from watchkeeper_dashboards.pages import quality_verdicts
from watchkeeper_dashboards.period import Period, between, chosen, period
from watchkeeper_dashboards.score_chart import ENOUGH, HEIGHT, score_chart, shown
from watchkeeper_dashboards.scores import ScoreWords, in_order, is_detail, words_of

SLOTS: Final = 18
"""Cards that wait for a score: a chart that stays in its place is not drawn anew with every tick."""

_CARD: Final = "wk-card"
_WAITING: Final = "wk-card wk-waiting"
"""Not `display: none`: a chart that has no width is drawn 700 px wide, and so it would first be shown."""


@dataclass(frozen=True)
class Course:
    """One score over the buckets of a stretch of time."""

    score: ScoreWords
    mean: Series
    n: Series

    @property
    def overall(self) -> float:
        known = self.n > 0
        return float(self.mean[known] @ self.n[known] / self.n.sum()) if known.any() else math.nan


def layout(sources: Sources, _: str) -> Component:
    release = dmc.Select(
        id="quality-release", label="Release", data=[], placeholder="all", clearable=True, size="sm", w=220,
        comboboxProps={"shadow": "md"},
    )  # fmt: skip
    legend = parts.legend(
        ("mean", "line", "blue"), (f"fewer than {ENOUGH} scores", "ring", "blue"), ("how many", "square", "mute")
    )
    return shell.live(
        "quality",
        parts.head("Quality & drift", "Are the answers still good, and still like those before?"),
        html.Div(
            [
                parts.card(
                    "Verdicts",
                    "a block is a window that a job judged; choose one to see why",
                    html.Div(id="quality-verdicts"),
                    html.Div(id="quality-panel"),
                ),
                html.Div(
                    [
                        html.Div(
                            [html.H2("Scores"), html.P("a point opens its requests, worst first", className="wk-card-note"),
                             legend],
                        ),
                        release,
                    ],
                    className="wk-section-head",
                ),
                html.Div(id="quality-empty"),
                html.Div([_slot(number) for number in range(SLOTS)], id="quality-scores", className="wk-scores"),
            ],
            className="wk-stack",
        ),
        dcc.Store(id="quality-names", data=["release"]),
        # The controls' own, or the page's callbacks would wait for them whenever they ask for the address.
        dcc.Location(id="quality-query", refresh="callback-nav"),
    )  # fmt: skip


def _slot(number: int) -> Component:
    return html.Section(
        [
            html.Div(id=f"quality-head-{number}", className="wk-score-head"),
            parts.figure(f"score-{number}", HEIGHT, "Mean of a score over time, and how many scores", clickable=True),
        ],
        id=f"quality-slot-{number}",
        className=_WAITING,
    )


def register(app: Dash, sources: Sources) -> None:
    shell.keep_ticking(app, "quality")
    slots = range(SLOTS)
    shell.browser(app, "openRequests", *(Input(parts.graph(f"score-{number}"), "clickData") for number in slots))
    shell.browser(
        app, "queried",
        Output("quality-query", "search"), Output("quality-release", "value"),
        Input("quality-release", "value"), Input("quality-query", "search"), State("quality-names", "data"),
    )  # fmt: skip

    @app.callback(
        Output("quality-verdicts", "children"),
        Output("quality-panel", "children"),
        Output("quality-release", "data"),
        Output("quality-empty", "children"),
        *(Output(f"quality-head-{number}", "children") for number in slots),
        *(Output(f"quality-slot-{number}", "className") for number in slots),
        *(Output(parts.store(f"score-{number}"), "data") for number in slots),
        Input("quality-url", "search"),
        Input("quality-tick", "data"),
        running=shell.while_running("quality"),
    )
    def read(search: str | None, _: object) -> tuple[Any, ...]:
        began = time.perf_counter()
        now = sources.now()
        served = evidence.served(sources.lake)
        first = served[0] if served else None
        span = period(chosen(search), now, first)
        release = asked(search, "release")
        times, width_s, courses = read_courses(sources, span, release, first)
        cards = [_card(course, times, width_s, release, span) for course in courses[:SLOTS]]
        unused = SLOTS - len(cards)
        answer = (
            *_verdicts(sources, span, search),
            _releases(sources, span, release),
            None if courses else _no_scores(span, release),
            *(head for head, _ in cards), *([None] * unused),
            *([_CARD] * len(cards)), *([_WAITING] * unused),
            *(figure for _, figure in cards), *([None] * unused),
        )  # fmt: skip
        shell.report_success(now, time.perf_counter() - began)
        return answer


def asked(search: str | None, name: str) -> str | None:
    """A value of the URL's query."""
    return parse_qs((search or "").lstrip("?")).get(name, [None])[-1]


def read_courses(
    sources: Sources, span: Period, release: str | None, first: datetime | None
) -> tuple[Times, int, list[Course]]:
    """Every score that somebody gave in `span`: times and width (s) of the buckets, and the scores in their order.
    `first`: when the oldest bucket of all begins.

    Time begins where the scores begin. No more buckets than a small chart can show: those of a young system are narrow.
    """
    start = max(span.start, first or span.start)
    buckets = -(-(span.end - start).total_seconds() // span.bucket_s)
    width_s = span.bucket_s * figures.buckets_a_bar(int(buckets))
    rollups = Rollups.read(sources.lake, start, span.end, release=release, bucket_s=width_s, latencies=())
    names = in_order([name for name in rollups.score_names if not is_detail(name)])
    counts = {name: rollups.score_counts(name).sum(axis=1).astype(float) for name in names}
    courses = [Course(words_of(name), rollups.score_mean(name), counts[name]) for name in names if counts[name].any()]
    if not courses:
        return rollups.times, width_s, []
    begin = min(int(np.argmax(course.n > 0)) for course in courses)
    cut = [Course(course.score, course.mean[begin:], course.n[begin:]) for course in courses]
    return rollups.times[begin:], width_s, cut


def _card(
    course: Course, times: Times, width_s: int, release: str | None, span: Period
) -> tuple[list[parts.Child], Figure]:
    score = course.score
    starts = [when.astype("datetime64[s]").astype(datetime).replace(tzinfo=UTC) for when in times]
    queries = [between(start, start + timedelta(seconds=width_s), score=score.name, release=release) for start in starts]
    every = {"range": span.name, "score": score.name, **({"release": release} if release else {})}
    way = {"higher": "higher is better", "lower": "lower is better", None: "neither way is better"}[score.better]
    head: list[parts.Child] = [
        html.Div(
            [html.H3(score.label), html.P([score.meaning, html.Br(), way], className="wk-card-note")],
        ),
        html.Div(
            [
                html.Div(shown(score, course.overall), className="wk-score-value"),
                shell.link(f"n = {units.count(course.n.sum())}", f"/traces?{urlencode(every)}",
                           f"Requests by {score.label}, worst first"),
            ],
            className="wk-score-number",
        ),
    ]  # fmt: skip
    return head, score_chart(score, times, width_s, course.mean, course.n, queries)


def _verdicts(sources: Sources, span: Period, search: str | None) -> tuple[Component, Component | None]:
    rows = evidence.verdicts(sources.lake, span.start, span.end)
    wanted = asked(search, "evaluation")
    row = next((row for row in rows if row["evaluation_id"] == wanted), None) if wanted else None
    if wanted and row is None:
        row = evidence.evaluation(sources.lake, wanted)
    chosen_one = quality_verdicts.panel(sources, row, rows, search) if row else None
    if wanted and row is None:
        chosen_one = parts.empty(f"There is no evaluation {wanted[:80]!r} in the lake.", small=True)
    if not rows:
        return _no_verdicts(span), chosen_one
    return quality_verdicts.strips(rows, search, wanted), chosen_one


def _releases(sources: Sources, span: Period, release: str | None) -> list[str]:
    found = reading.slices(sources.lake, span.start, span.end)["release"]
    return list(dict.fromkeys([*found, *([release] if release else [])]))


def _no_verdicts(span: Period) -> Component:
    return parts.empty(
        "", f"No job has judged a window in {span.words}. Jobs run on their schedule, or now:",
        command="watchkeeper evaluate all --last 1h", small=True,
    )  # fmt: skip


def _no_scores(span: Period, release: str | None) -> Component:
    of_release = f" of {release}" if release else ""
    return html.Div(
        parts.empty(
            f"No scores in {span.words}",
            f"Nothing{of_release} has been scored: widen the time, or score what is there:",
            command="watchkeeper evaluate quality --last 1h",
        ),
        className="wk-card",
    )


PAGE: Final = Page("/quality", "Quality & drift", layout, register, icon="chart-dots")
