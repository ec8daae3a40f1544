"""The verdicts of the jobs over time, a strip of windows for each job, and what is known of the one that was chosen.

A window is a link (`?evaluation=<id>`), so that a verdict can be sent to somebody. Of windows that lie over each other each
gets its own lane; of very many, neighbours are drawn as one, under the worst of their verdicts.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from dash import html
from dash.development.base_component import Component

from watchkeeper_dashboards import parts, shell, units
from watchkeeper_dashboards.evidence import Row
from watchkeeper_dashboards.page import Sources
from watchkeeper_dashboards.period import between

MOST: Final = 60
"""Windows that one strip shows."""

_LANES: Final = 3
_LEAST_SHARE: Final = 0.011
"""Of the strip's width: what a short window takes all the same."""

_TOUCH: Final = 0.008
"""Windows that share no more than this of the strip's width stand in one lane."""

_WORST_FIRST: Final = ("fail", "unknown", "warn", "pass")
_QUARTERS: Final = 4
_FIRST: Final = ("mean", "lower", "upper", "n")


def strips(rows: Sequence[Row], search: str | None, chosen: str | None) -> Component:
    """Rows of `evaluations`, oldest window first, by job → the strips on one time line."""
    begin: datetime = min(row["window_start"] for row in rows)
    end: datetime = max(row["window_end"] for row in rows)
    span = max((end - begin).total_seconds(), 1.0)

    def position(when: datetime) -> float:
        return (when - begin).total_seconds() / span

    lines = [
        _strip(job, merged(list(windows)), position, search, chosen)
        for job, windows in groupby(rows, key=lambda row: str(row["job"]))
    ]
    return html.Div([*lines, _axis(begin, end)], className="wk-strips", tabIndex=-1)


def merged(rows: list[Row]) -> list[list[Row]]:
    """Neighbouring windows in groups, so that no more than `MOST` are drawn."""
    size = -(-len(rows) // MOST)
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def worst(rows: Sequence[Row]) -> Row:
    """The worst of some verdicts, the newest of these."""
    return min(reversed(rows), key=lambda row: _WORST_FIRST.index(row["verdict"]))


def _strip(
    job: str, groups: list[list[Row]], position: Callable[[datetime], float], search: str | None, chosen: str | None
) -> Component:
    newest = groups[-1][-1]
    placed = [(position(group[0]["window_start"]), position(group[-1]["window_end"]), group) for group in groups]
    lanes = lanes_of([(left, right) for left, right, _ in placed])
    blocks = [
        _block(left, right, lane, group, search, chosen) for (left, right, group), lane in zip(placed, lanes, strict=True)
    ]
    return html.Div(
        [
            html.Div([html.Strong(job), parts.badge(newest["verdict"])], className="wk-strip-name"),
            html.Div(blocks, className="wk-strip", style={"--lanes": max(lanes) + 1}),
        ],
        className="wk-strip-row",
        role="group",
        **parts.attributes(aria_label=f"Windows of {job}, oldest first"),
    )


def lanes_of(spans: Sequence[tuple[float, float]]) -> list[int]:
    """The lane of each span, so that those in one lane do not lie over each other; the last lane takes what is left."""
    free: list[float] = []
    lanes = []
    for left, right in spans:
        lane = next((number for number, until in enumerate(free) if until <= left + _TOUCH), len(free))
        lane = min(lane, _LANES - 1)
        if lane == len(free):
            free.append(0.0)
        free[lane] = max(free[lane], right)
        lanes.append(lane)
    return lanes


def _block(left: float, right: float, lane: int, group: Sequence[Row], search: str | None, chosen: str | None) -> Component:
    row = worst(group)
    words = f"{row['verdict']}, {units.window(row['window_start'], row['window_end'])}, n = {units.count(row['n'])}"
    words += f": {row['reason']}" if row["reason"] else ""
    if len(group) > 1:
        words = f"the worst of {len(group)} windows: {words}"
    width = max(right - left, _LEAST_SHARE)
    link = shell.link(
        html.Span(className="wk-mark-shape"), address(search, row["evaluation_id"]), words, class_name="wk-window"
    )
    marked = {"data_tone": row["verdict"]}
    if chosen in {other["evaluation_id"] for other in group}:
        marked["data_chosen"] = "true"
    return html.Div(
        link,
        className="wk-window-place",
        style={"left": f"{min(left, 1 - width):.3%}", "width": f"{width:.3%}", "--lane": lane},
        **parts.attributes(**marked),
    )


def _axis(begin: datetime, end: datetime) -> Component:
    step = (end - begin) / _QUARTERS
    marks = []
    for quarter in range(_QUARTERS + 1):
        when = begin + step * quarter
        words = units.day_and_clock(when)[:-3]
        marks.append(html.Span(words if quarter in (0, _QUARTERS) else words[-5:], style={"left": f"{quarter * 25}%"}))
    return html.Div([html.Div(className="wk-strip-name"), html.Div(marks, className="wk-scale")], className="wk-strip-row")


def address(search: str | None, evaluation_id: str | None) -> str:
    """The page with this evaluation chosen, or none; the rest of the query stays."""
    query = {name: values[-1] for name, values in parse_qs((search or "").lstrip("?")).items() if name != "evaluation"}
    if evaluation_id:
        query["evaluation"] = evaluation_id
    return f"/quality?{urlencode(query)}" if query else "/quality"


def panel(sources: Sources, row: Row, rows: Sequence[Row], search: str | None) -> Component:
    """One evaluation, all of it; `rows`: those on the page, for the way to its neighbours."""
    of_job = [other for other in rows if other["job"] == row["job"]]
    at = next((n for n, other in enumerate(of_job) if other["evaluation_id"] == row["evaluation_id"]), None)
    older = of_job[at - 1] if at else None
    newer = of_job[at + 1] if at is not None and at + 1 < len(of_job) else None
    run = sources.links.run(row["mlflow_run_id"]) if row["mlflow_run_id"] else None
    end = row["window_end"]
    head = html.Div(
        [
            html.H3(f"{row['job']}, {units.window(row['window_start'], end)}"),
            parts.badge(row["verdict"]),
            html.Span(className="wk-grow"),
            shell.link("older", address(search, older["evaluation_id"])) if older else None,
            shell.link("newer", address(search, newer["evaluation_id"])) if newer else None,
            shell.link(parts.icon("x"), address(search, None), "Close"),
        ],
        className="wk-panel-head",
    )
    facts: list[tuple[str, parts.Children]] = [
        ("Requests in the window", units.count(row["n"])),
        ("Judged (UTC)", units.day_and_clock(row["evaluated_at"])),
        ("By", row["judged_by"]),
        ("Asked for by", None if row["scheduled"] is None else "the schedule" if row["scheduled"] else "hand"),
        ("Lake version", None if row["lake_version"] is None else str(row["lake_version"])),
    ]
    table, numbers = arranged(parsed(row["metrics"]))
    others = [(name, number(value)) for name, value in numbers.items()]
    links = [
        shell.link("requests of this window", f"/traces{between(row['window_start'], end)}"),
        parts.outside("run in MLflow", run) if run else None,
    ]
    return html.Div(
        [
            head,
            html.P(row["reason"] or "The job gave no reason.", className="wk-reason"),
            html.Div([item for item in links if item is not None], className="wk-links"),
            parts.facts([(name, value) for name, value in [*facts, *others] if value]),
            *_measured(table),
        ],
        className="wk-panel",
    )


def _measured(table: Mapping[str, Mapping[str, float]]) -> list[Component]:
    """A row for each thing that was measured."""
    if not table:
        return []
    found = dict.fromkeys(name for row in table.values() for name in row)
    names = [*(name for name in _FIRST if name in found), *(name for name in found if name not in _FIRST)]
    columns = (("Measured", "wk-nowrap"), *((name, "wk-num") for name in names))
    rows = [parts.cells(columns, (measured, *(number(row.get(name)) for name in names))) for measured, row in table.items()]
    return [parts.table(columns, rows, "What the job measured")]


def arranged(metrics: Mapping[str, Any]) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Numbers → those of a name with parts (`grounded.mean`), by name; and the others. What is no number is left out."""
    table: dict[str, dict[str, float]] = {}
    others: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        before, dot, last = name.rpartition(".")
        if dot:
            table.setdefault(before, {})[last] = value
        else:
            others[name] = value
    return table, others


def parsed(text: str | None) -> dict[str, Any]:
    """JSON of an object; what is none is empty."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def number(value: float | None) -> str:
    """A measured number, whatever it is: whole ones as they are, others with four digits."""
    if value is None:
        return units.NONE
    return units.count(value) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"
