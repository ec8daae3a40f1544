"""The stages of one request on a time line, as a table with bars: no script, and a screen reader reads it row by row."""

from typing import Any, Final

from dash import html
from dash.development.base_component import Component

from watchkeeper.record import UNGUARDED
from watchkeeper_dashboards import parts, units
from watchkeeper_dashboards.figures import STAGE_LABELS

_COLUMNS: Final = (
    ("Stage", "wk-nowrap"),
    ("", "wk-lane"),
    ("Took", "wk-num"),
    ("Began at", "wk-num wk-optional"),
    ("Status", ""),
)


def waterfall(row: dict[str, Any]) -> Component:
    """A row of the lake's `interactions` → its stages. The line is as long as the request, or as its last stage."""
    stages = row["stages"] or []
    if not stages:
        why = "none of its spans is one" if row["source"] in UNGUARDED else "the request ended before it was let in"
        return parts.empty(f"No stage was recorded: {why}.", small=True)
    length = max([row["total_ms"] or 0.0, *(stage["offset_ms"] + stage["ms"] for stage in stages), 0.01])
    columns = [(_scale(length) if style == "wk-lane" else name, style) for name, style in _COLUMNS]
    rows = [parts.cells(_COLUMNS, _cells(stage, length, row["ttft_ms"])) for stage in stages]
    return parts.table(columns, rows, "Stages of the request", "wk-waterfall")


def _scale(length: float) -> Component:
    """The times at the quarters of the line, over the lines that CSS draws there."""
    marks = [
        html.Span(units.milliseconds(length * quarter / 4) if quarter else "0", style={"left": f"{quarter * 25}%"})
        for quarter in range(5)
    ]
    return html.Div(marks, className="wk-scale")


def _cells(stage: dict[str, Any], length: float, ttft_ms: float | None) -> tuple[parts.Children, ...]:
    bars = [_bar(stage["offset_ms"] / length, stage["ms"] / length, stage["status"])]
    if stage["name"] == "generate" and ttft_ms is not None and ttft_ms <= length:
        bars.append(_mark(ttft_ms / length, f"first token after {units.milliseconds(ttft_ms)}"))
    return (
        STAGE_LABELS.get(stage["name"], stage["name"]),
        html.Div(bars, className="wk-bar-track"),
        units.milliseconds(stage["ms"]),
        units.milliseconds(stage["offset_ms"]),
        html.Span("ok", className="wk-dim") if stage["status"] == "ok" else parts.badge(stage["status"]),
    )


def _bar(left: float, width: float, status: str) -> Component:
    return html.Div(
        className="wk-bar",
        style={"left": f"{left:.3%}", "width": f"{width:.3%}"},
        **parts.attributes(data_tone=status),
    )


def _mark(left: float, words: str) -> Component:
    return html.Div(className="wk-bar", style={"left": f"{left:.3%}"}, title=words, **parts.attributes(data_kind="ttft"))
