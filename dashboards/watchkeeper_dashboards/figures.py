"""The charts of the overview: series in, a Plotly figure as a plain dict out.

Colours are tokens (`$blue`, `$blue/20` for 20% opacity) that the browser paints in its scheme. Times are the starts of
buckets of `width_s` seconds, evenly spaced; NaN is a bucket without data. A chart of one to three buckets draws bars and
marks, because a line needs more. Knows nothing of the lake.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from watchkeeper.record import Action, StageName
from watchkeeper_dashboards import canvas, units
from watchkeeper_dashboards.canvas import Figure, Series, Times
from watchkeeper_dashboards.theme import PATTERNS

Counts = NDArray[np.int64] | NDArray[np.float64]

FEW: Final = 3
"""Up to so many buckets with data are drawn as bars."""

STAGE_LABELS: Final[dict[StageName, str]] = {
    "admit": "Admit",
    "preprocess": "Preprocess",
    "embed": "Embed",
    "ground": "Ground",
    "guard_in": "Input guards",
    "route": "Route",
    "generate": "Generate",
    "check": "Check",
    "guard_out": "Output guards",
    "postprocess": "Postprocess",
}
SHOWN_ACTIONS: Final[tuple[Action, ...]] = ("flag", "redact", "block", "unknown")
"""From the axis upwards; `pass` is what is left of the whole."""

MOST_BARS: Final = 24
"""Bars that a chart of a third of the page can show."""


def latency(
    times: Times, width_s: int, p50: Series, p95: Series, p99: Series, slowest: Sequence[tuple[str, float, str]]
) -> Figure:
    """End-to-end ms over time: the band from p50 to p95, p99 dotted. `slowest`: diamonds at (time, ms, request id)."""
    known = int(np.isfinite(p50).sum())
    traces = _latency_bars(times, width_s, p50, p95, p99) if known <= FEW else _latency_band(times, width_s, p50, p95, p99)
    if slowest:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "slowest",
                "x": [when for when, _, _ in slowest],
                "y": [round(ms, 1) for _, ms, _ in slowest],
                "customdata": [request_id for _, _, request_id in slowest],
                "text": [units.milliseconds(ms) for _, ms, _ in slowest],
                "marker": {"symbol": "diamond", "size": 9, "color": "$orange", "line": {"width": 1, "color": "$card"}},
                "hovertemplate": "%{text}: open this trace<extra></extra>",
            }
        )
    figure = canvas.figure(traces, 290)
    lowest, highest = _extent([p50, p99, np.array([ms for _, ms, _ in slowest])])
    figure["layout"]["yaxis"] |= _log_milliseconds(lowest / 1.6, highest * 1.5)
    figure["layout"]["xaxis"] |= canvas.time_range(times, width_s, ticks=8)
    figure["layout"]["hovermode"] = "x" if known > FEW else "closest"
    return figure


def _latency_band(times: Times, width_s: int, p50: Series, p95: Series, p99: Series) -> list[dict[str, Any]]:
    marks = "lines+markers" if int(np.isfinite(p50).sum()) <= 12 else "lines"
    common = {
        "type": "scatter",
        "mode": marks,
        "connectgaps": False,
        "marker": {"size": 4},
        **canvas.even(times, width_s, middle=True),
    }
    return [
        common | _points(p50) | {"name": "p50", "line": {"color": "$blue", "width": 2}},
        common
        | _points(p95)
        | {"name": "p95", "fill": "tonexty", "fillcolor": "$blue/16", "line": {"color": "$blue", "width": 1.2}},
        common | _points(p99) | {"name": "p99", "line": {"color": "$dim", "width": 1.2, "dash": "dot"}},
    ]


def _latency_bars(times: Times, width_s: int, p50: Series, p95: Series, p99: Series) -> list[dict[str, Any]]:
    middle = canvas.even(times, width_s, middle=True)
    return [
        {
            "type": "bar",
            "name": "p50 to p95",
            **middle,
            "base": _rounded(p50),
            "y": _rounded(p95 - p50),
            "width": width_s * 600,
            "marker": {"color": "$blue/22", "line": {"color": "$blue", "width": 1.2}, "cornerradius": 3},
            "hoverinfo": "skip",
        },
        _tick("p50", middle, p50, "$blue", 3, "bottom center"),
        _tick("p95", middle, p95, "$blue", 1.5, "top center"),
        _tick("p99", middle, p99, "$dim", 1.5, None),
    ]


def _tick(
    name: str, middle: dict[str, Any], values: Series, colour: str, width: float, words: str | None
) -> dict[str, Any]:
    """One level of a bucket as a short horizontal line; `words`: where its value is written beside it."""
    written = [f"{name} {units.milliseconds(value)}" if math.isfinite(value) else "" for value in values]
    return {
        "type": "scatter",
        "mode": "markers" if words is None else "markers+text",
        "name": name,
        **middle,
        **_points(values),
        "marker": {"symbol": "line-ew", "size": 26, "color": colour, "line": {"color": colour, "width": width}},
        **({} if words is None else {"text": written, "textposition": words, "cliponaxis": False}),
    }


def stages(p50: Mapping[StageName, float], p95: Mapping[StageName, float]) -> Figure:
    """Where time goes: a dumbbell from p50 to p95 for every stage of the loop, in its order, on a log scale.

    A stage without data keeps its place. Dumbbells, not bars: the length of a bar means nothing on a log scale.
    """
    names = list(STAGE_LABELS)
    labels = [STAGE_LABELS[name] for name in names]
    low = np.array([p50.get(name, math.nan) for name in names], dtype=float)
    high = np.array([p95.get(name, math.nan) for name in names], dtype=float)
    low, high = np.maximum(low, 0.01), np.maximum(high, 0.01)
    known = [index for index in range(len(names)) if math.isfinite(high[index])]
    line_x: list[float | None] = []
    line_y: list[str | None] = []
    for index in known:
        line_x += [float(low[index]), float(high[index]), None]
        line_y += [labels[index], labels[index], None]
    hover = [
        f"{labels[index]}: p50 {units.milliseconds(low[index])}, p95 {units.milliseconds(high[index])}" for index in known
    ]
    dots = {
        "type": "scatter",
        "mode": "markers",
        "y": [labels[index] for index in known],
        "hovertext": hover,
        "hoverinfo": "text",
    }
    figure = canvas.figure(
        [
            {"type": "scatter", "mode": "lines", "x": line_x, "y": line_y, "hoverinfo": "skip",
             "line": {"color": "$blue/45", "width": 4}},
            dots | {"name": "p50", "x": [round(float(low[index]), 3) for index in known],
                    "marker": {"size": 10, "color": "$blue"}},
            dots | {"name": "p95", "x": [round(float(high[index]), 3) for index in known],
                    "marker": {"size": 10, "color": "$card", "line": {"color": "$blue", "width": 2}}},
        ],
        290,
    )  # fmt: skip
    figure["layout"]["annotations"] = [
        {"text": units.milliseconds(high[index]), "x": 1, "xref": "paper", "xanchor": "left", "xshift": 6,
         "y": labels[index], "showarrow": False, "font": {"color": "$text"}}
        for index in known
    ]  # fmt: skip
    figure["layout"]["margin"]["r"] = 62
    lowest, highest = _extent([low, high])
    figure["layout"]["xaxis"] |= _log_milliseconds(lowest / 1.8, highest * 1.8, most=4)
    figure["layout"]["yaxis"] |= {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": labels[::-1],
        "range": [-0.6, len(labels) - 0.4],
        "showgrid": False,
        "tickfont": {"color": "$text"},
    }
    figure["layout"]["hovermode"] = "closest"
    return figure


def interventions(times: Times, width_s: int, n: Series, actions: Mapping[str, Series]) -> Figure:
    """The share of requests that were not passed, stacked by their strongest action; each action has its pattern."""
    total = np.maximum(n, 1)
    traces = []
    for action in SHOWN_ACTIONS:
        counted = actions.get(action, np.zeros(len(n)))
        traces.append(
            {
                "type": "bar",
                "name": action,
                **canvas.even(times, width_s, middle=True),
                "y": [round(float(value), 5) for value in counted / total],
                "customdata": [[int(part), int(whole)] for part, whole in zip(counted, n, strict=True)],
                "width": width_s * (600 if len(times) <= FEW else 850),
                "marker": _marker(action),
                "hovertemplate": f"{action}: %{{customdata[0]}} of %{{customdata[1]}} (%{{y:.1%}})<extra></extra>",
            }
        )
    figure = canvas.figure(traces, 240)
    highest = max((sum(trace["y"][index] for trace in traces) for index in range(len(times))), default=0.0)
    figure["layout"] |= {"barmode": "stack", "hovermode": "x"}
    figure["layout"]["yaxis"] |= {"tickformat": ".0%" if highest > 0.04 else ".1%", "range": [0, max(highest * 1.12, 0.01)]}
    figure["layout"]["yaxis"] |= {"nticks": 5}
    figure["layout"]["xaxis"] |= canvas.time_range(times, width_s)
    return figure


def categories(counts: Mapping[str, int], most: int = 8) -> Figure:
    """Verdicts that were not a pass, by category: the most frequent `most`, largest on top."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
    names = [name if len(name) <= 26 else name[:25] + "…" for name, _ in ranked]
    values = [n for _, n in ranked]
    figure = canvas.figure(
        [
            {
                "type": "bar",
                "orientation": "h",
                "x": values,
                "y": names,
                "text": [units.count(value) for value in values],
                "textposition": "outside",
                "cliponaxis": False,
                "marker": {"color": "$purple", "cornerradius": 2},
                "hovertemplate": "%{y}: %{x}<extra></extra>",
                "width": 0.62,
            }
        ],
        262,
    )
    rows = max(len(names), 5)
    figure["layout"]["yaxis"] |= {
        "type": "category",
        "autorange": False,
        "range": [rows - 0.5, -0.5],
        "showgrid": False,
        "tickfont": {"color": "$text"},
    }
    figure["layout"]["xaxis"] |= {"range": [0, max(values, default=1) * 1.18], "showticklabels": False}
    figure["layout"]["hovermode"] = "closest"
    return figure


def tokens(times: Times, width_s: int, input_tokens: Series, output_tokens: Series, cost: Series) -> Figure:
    """Tokens in and out a bucket, stacked; below them the cost, on an axis of its own, where anything cost something."""
    even = canvas.even(times, width_s, middle=True)
    width = width_s * (600 if len(times) <= FEW else 850)
    bar = {"type": "bar", **even, "width": width}
    traces = [
        bar | {"name": "input", "y": _rounded(input_tokens), "marker": {"color": "$sky"},
               "hovertemplate": "%{y:,.0f} tokens in<extra></extra>"},
        bar | {"name": "output", "y": _rounded(output_tokens),
               "marker": {"color": "$blue", "pattern": canvas.pattern("/")},
               "hovertemplate": "%{y:,.0f} tokens out<extra></extra>"},
    ]  # fmt: skip
    figure = canvas.figure(traces, 240)
    figure["layout"] |= {"barmode": "stack", "hovermode": "x"}
    figure["layout"]["yaxis"] |= {"tickformat": "~s", "rangemode": "tozero", "nticks": 5}
    figure["layout"]["xaxis"] |= canvas.time_range(times, width_s)
    if float(np.nansum(cost)) > 0:
        figure["layout"]["yaxis"] |= {"domain": [0.42, 1]}
        figure["layout"]["yaxis2"] = canvas.axis() | {
            "domain": [0, 0.28], "tickprefix": "$", "rangemode": "tozero", "nticks": 3, "tickformat": "~g",
        }  # fmt: skip
        figure["layout"]["xaxis"] |= {"anchor": "y2"}
        traces.append(
            bar | {"name": "cost", "yaxis": "y2", "y": [round(float(value), 8) for value in np.nan_to_num(cost)],
                   "marker": {"color": "$green"}, "hovertemplate": "$%{y:.4g}<extra></extra>"}
        )  # fmt: skip
    return figure


def buckets_a_bar(buckets: int) -> int:
    """How many buckets one bar takes in, so that `buckets` of them make no more than `MOST_BARS` bars."""
    return next(n for n in (1, 2, 3, 6, 12, 24, 48, 96, 10_000) if buckets <= n * MOST_BARS)


def _points(values: Series) -> dict[str, Any]:
    readable = [units.milliseconds(value) for value in values]
    return {
        "y": _rounded(values),
        "customdata": readable,
        "hovertemplate": "%{fullData.name}: %{customdata}<extra></extra>",
    }


def _rounded(values: Series) -> list[float | None]:
    return [round(float(value), 3 if value < 10 else 1) if math.isfinite(value) else None for value in values]


def _extent(series: Sequence[Series]) -> tuple[float, float]:
    """The smallest and largest known value that a log axis can show; a plausible second where nothing is known."""
    known = np.concatenate([values[np.isfinite(values) & (values > 0)] for values in series])
    return (float(known.min()), float(known.max())) if len(known) else (100.0, 1_000.0)


def _log_milliseconds(lowest: float, highest: float, most: int = 6) -> dict[str, Any]:
    """A log axis of milliseconds with ticks at 1-2-5 (at 1 alone, or every other decade, where that is too many)."""
    decades = range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1)
    for steps, stride in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
        ticks = [step * 10.0**decade for decade in decades if decade % stride == 0 for step in steps]
        ticks = [tick for tick in ticks if lowest <= tick <= highest]
        if len(ticks) <= most:
            break
    return {
        "type": "log",
        "range": [round(math.log10(lowest), 3), round(math.log10(highest), 3)],
        "tickvals": ticks,
        "ticktext": [units.round_milliseconds(tick) for tick in ticks],
    }


def _marker(action: Action) -> dict[str, Any]:
    pattern = {"pattern": canvas.pattern(PATTERNS[action])} if PATTERNS[action] else {}
    return {"color": f"${action}", "line": {"width": 0}, **pattern}
