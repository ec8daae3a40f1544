"""One score over time: its mean in each bucket, how many scores that rests on, and the way to the requests behind a point.

Few scores say little: such a point is a ring instead of a dot, and the bars at the foot say how many there are. Colours are
tokens; NaN is a bucket without scores. Knows nothing of the lake.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from watchkeeper_dashboards import canvas, units
from watchkeeper_dashboards.canvas import Figure, Series, Times
from watchkeeper_dashboards.scores import ScoreWords

HEIGHT: Final = 156
ENOUGH: Final = 20
"""Fewer scores than this make a ring."""

_WRITTEN: Final = 3
"""Up to so many points have their value written beside them."""


def score_chart(
    score: ScoreWords, times: Times, width_s: int, mean: Series, n: Series, queries: Sequence[str], token: str = "blue"
) -> Figure:
    """`queries`: the query of the requests behind each bucket, which a click opens."""
    middle = canvas.even(times, width_s, middle=True)
    known = np.isfinite(mean)
    words = [_words(score, value, int(count)) for value, count in zip(mean, n, strict=True)]
    few = int(known.sum()) <= _WRITTEN
    line = {
        "type": "scatter",
        "mode": "lines+markers+text" if few else "lines+markers",
        **middle,
        "y": [round(float(value), 4) if math.isfinite(value) else None for value in mean],
        "customdata": list(queries),
        "hovertext": words,
        "hoverinfo": "text",
        "line": {"color": f"${token}", "width": 2},
        "marker": {
            "size": 8 if few else 6,
            "color": [f"${token}" if count >= ENOUGH else "$card" for count in n],
            "line": {"color": f"${token}", "width": 1.6},
        },
        "cliponaxis": False,
        **({"text": [shown(score, value) for value in mean], "textposition": "top center"} if few else {}),
    }
    counts = {
        "type": "bar",
        **middle,
        "y": [int(count) for count in n],
        "customdata": list(queries),
        "yaxis": "y2",
        "width": width_s * (600 if few else 850),
        "marker": {"color": "$mute/55"},
        "hoverinfo": "skip",
    }
    figure = canvas.figure([line, counts], HEIGHT)
    low, high = _range(score, mean[known])
    figure["layout"]["yaxis"] |= {
        "domain": [0.24, 1], "range": [low, high], "nticks": 4, "tickformat": ".0%" if score.share else "~g",
    }  # fmt: skip
    figure["layout"]["yaxis2"] = canvas.axis() | {
        "domain": [0, 0.17], "range": [0, max(float(n.max(initial=0)), 1.0)], "visible": False,
    }  # fmt: skip
    figure["layout"]["xaxis"] |= canvas.time_range(times, width_s, ticks=4) | {"anchor": "y2"}
    figure["layout"]["hovermode"] = "closest"
    figure["layout"]["margin"] |= {"l": 4, "r": 8, "t": 14 if few else 8, "b": 4}
    figure["layout"]["hoverdistance"] = 30
    return figure


def shown(score: ScoreWords, value: float | None) -> str:
    """A mean as it is read: a share in percent, any other score with two digits."""
    return units.share(value) if score.share else units.score(value)


def _words(score: ScoreWords, value: float, n: int) -> str:
    if not math.isfinite(value):
        return ""
    few = ", too few to say much" if n < ENOUGH else ""
    return f"{shown(score, value)}, n = {units.count(n)}{few}: open these requests"


def _range(score: ScoreWords, known: Series) -> tuple[float, float]:
    """Room around what happened, within [0, 1]; a score that should be low from zero on."""
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    room = max((high - low) * 0.25, 0.04)
    low = 0.0 if score.better == "lower" else max(low - room, 0.0)
    return low - 0.005, min(high + room, 1.02)
