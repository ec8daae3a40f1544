"""Two releases held against each other, a metric a row: the difference with its interval on a line, wins, ties and losses.

A table with bars: it costs no script, and a screen reader reads it row by row. Scores in [0, 1] share one scale of
differences; metrics in units of their own (ms, tokens, dollars) are drawn as a share of the base, on another. Takes what
`comparisons.result` holds and knows nothing of how it was computed.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dash import html
from dash.development.base_component import Component

from watchkeeper_dashboards import parts, units
from watchkeeper_dashboards.metrics import Metric, metric_of

Row = Mapping[str, Any]

OUTCOMES: Final = {"better": "pass", "worse": "fail", "same": "skipped", "unclear": "unknown"}
"""How sure we are → the tone of its badge."""

_STEPS: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Ends of a scale."""


def tables(result: Mapping[str, Any], base: str, candidate: str) -> list[Component]:
    """The metrics of a comparison: scores first, then what an answer costs in time and money."""
    rows: list[Row] = [row for row in result.get("metrics") or [] if isinstance(row, dict)]
    scores = [row for row in rows if _metric(row).is_score]
    others = [row for row in rows if not _metric(row).is_score]
    drawn = []
    if scores:
        drawn.append(_table(scores, base, candidate, "Scores", relative=False))
    if others:
        drawn.append(_table(others, base, candidate, "Time, tokens and money", relative=True))
    return drawn


def _metric(row: Row) -> Metric:
    return metric_of(str(row.get("name")), row.get("kind"))


def _table(rows: Sequence[Row], base: str, candidate: str, caption: str, *, relative: bool) -> Component:
    end = scale_end([value for row in rows for value in _interval(row, relative) if value is not None])
    columns: tuple[tuple[str, str], ...] = (
        (caption, "wk-metric"), (base, "wk-num wk-optional"), (candidate, "wk-num wk-optional"), ("Difference", "wk-num"),
        ("", "wk-lane"), ("Wins, ties, losses", "wk-optional wk-wtl-column"), ("p", "wk-num wk-optional"),
        ("adjusted p", "wk-num wk-optional"), ("", ""),
    )  # fmt: skip
    headings = [(_scale(end, relative) if style == "wk-lane" else name, style) for name, style in columns]
    shown = [parts.cells(columns, _cells(row, end, relative)) for row in rows]
    return parts.table(headings, shown, f"{caption}: {candidate} against {base}", "wk-deltas")


def _cells(row: Row, end: float, relative: bool) -> tuple[parts.Children, ...]:
    metric = _metric(row)
    outcome = str(row.get("outcome"))
    n, low, high = row.get("n"), row.get("low"), row.get("high")
    words = f"95% interval {metric.difference(low)} to {metric.difference(high)}" if low is not None else "no interval"
    clusters = f", {units.count(row['clusters'])} sessions" if row.get("clusters") else ""
    return (
        html.Div(
            [
                html.Span(metric.label),
                html.Span("primary", className="wk-tag") if row.get("primary") else None,
                html.Div(f"n = {units.count(n or 0)}{clusters}", className="wk-card-note"),
            ],
            title=f"{row.get('name')}: {row.get('test') or ''}",
        ),
        metric.shown(row.get("base")),
        metric.shown(row.get("candidate")),
        html.Div(
            [html.Strong(metric.difference(row.get("delta"))), html.Div(_range(metric, row), className="wk-card-note")]
        ),
        _whisker(_interval(row, relative), end, outcome, words),
        _wins(row),
        probability(row.get("p")),
        probability(row.get("adjusted_p")),
        parts.badge(outcome, OUTCOMES.get(outcome, "unknown")),
    )


def _range(metric: Metric, row: Row) -> str:
    if row.get("low") is None or row.get("high") is None:
        return ""
    return f"{metric.difference(row['low'])} to {metric.difference(row['high'])}"


def _interval(row: Row, relative: bool) -> tuple[float | None, float | None, float | None]:
    """low, delta, high as they are drawn; None where there is none."""
    base = row.get("base")
    divisor = abs(base) if relative and base else None if relative else 1.0
    values = [row.get(name) for name in ("low", "delta", "high")]
    low, delta, high = (
        None if value is None or divisor is None or not math.isfinite(value) else value / divisor for value in values
    )
    return low, delta, high


def scale_end(values: Sequence[float]) -> float:
    """Where a scale around zero ends, so that all values lie on it; the last step at the most."""
    largest = max((abs(value) for value in values), default=0.0)
    return next((step for step in _STEPS if step >= largest), _STEPS[-1])


def _scale(end: float, relative: bool) -> Component:
    def words(value: float) -> str:
        if value == 0:
            return "0"
        size = f"{abs(value) * 100:g}%" if relative else f"{abs(value):g}"
        return f"{'+' if value > 0 else '−'}{size}"

    marks = [html.Span(words(end * (quarter - 2) / 2), style={"left": f"{quarter * 25}%"}) for quarter in range(5)]
    return html.Div(marks, className="wk-scale")


def _whisker(interval: tuple[float | None, float | None, float | None], end: float, outcome: str, words: str) -> Component:
    def place(value: float) -> float:
        return min(max((value / end + 1) / 2, 0.0), 1.0)

    low, delta, high = interval
    drawn: list[Component] = [html.Div(className="wk-zero")]
    if low is not None and high is not None:
        left, right = place(low), place(high)
        drawn.append(html.Div(className="wk-whisker", style={"left": f"{left:.2%}", "width": f"{right - left:.2%}"}))
    if delta is not None:
        drawn.append(html.Div(className="wk-whisker-dot", style={"left": f"{place(delta):.2%}"}))
    tone = OUTCOMES.get(outcome, "unknown")
    return html.Div(drawn, className="wk-bar-track wk-whisker-track", title=words, **parts.attributes(data_tone=tone))


def _wins(row: Row) -> Component:
    counts = [int(row.get(name) or 0) for name in ("wins", "ties", "losses")]
    words = ", ".join(f"{n} {name}" for n, name in zip(counts, ("wins", "ties", "losses"), strict=True))
    bars = [
        html.Div(className="wk-wtl-part", style={"flexGrow": n}, **parts.attributes(data_kind=kind))
        for n, kind in zip(counts, ("win", "tie", "loss"), strict=True)
        if n
    ]
    return html.Div(
        [html.Div(bars, className="wk-wtl"), html.Div(" / ".join(map(str, counts)), className="wk-card-note wk-num")],
        title=words,
        role="img",
        **parts.attributes(aria_label=words),
    )


def probability(p: float | None) -> str:
    """`0.032`, `<0.001`; an en dash where there is none."""
    if p is None or not math.isfinite(p):
        return units.NONE
    return "<0.001" if p < 0.001 else f"{p:.3f}"
