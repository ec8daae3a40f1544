"""What every chart shares: type, margins, axes, even times, patterns. Colours are tokens (`$blue`) that the browser paints.

Times are the starts of buckets of `width_s` seconds, evenly spaced. Knows nothing of what is drawn.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from watchkeeper_dashboards.theme import FONT

Figure = dict[str, Any]
Times = NDArray[np.datetime64]
Series = NDArray[np.float64]

_LEAST_SPAN: Final = 8
"""A time axis is at least so many buckets wide: two bars do not fill a chart."""


def figure(traces: list[dict[str, Any]], height: int) -> Figure:
    """What all charts share: transparent, our type, a legend above, no zooming (it would take the scroll of a touch)."""
    layout = {
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 10, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12, "color": "$dim"},
        "showlegend": False,
        "hoverlabel": {"bgcolor": "$card", "bordercolor": "$border",
                       "font": {"family": FONT, "size": 12, "color": "$text"}},
        "dragmode": False,
        "xaxis": axis(),
        "yaxis": axis(),
        "bargap": 0.15,
        "uirevision": "keep",
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def axis() -> dict[str, Any]:
    return {
        "gridcolor": "$grid",
        "linecolor": "$border",
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
        "ticklabelstandoff": 4,
    }


def even(times: Times, width_s: int, *, middle: bool) -> dict[str, Any]:
    """x0/dx in place of a list of times; `middle` puts a mark into the middle of its bucket."""
    if not len(times):
        return {"x": []}
    first = times[0].astype("datetime64[s]") + np.timedelta64(width_s // 2 if middle else 0, "s")
    return {"x0": str(first), "dx": width_s * 1000, "xperiodalignment": "middle"}


def time_range(times: Times, width_s: int, ticks: int = 5) -> dict[str, Any]:
    """A time axis around the buckets, at least `_LEAST_SPAN` of them wide."""
    if not len(times):
        return {"type": "date"}
    spare = max(_LEAST_SPAN - len(times), 0) * width_s // 2
    first = times[0].astype("datetime64[s]") - np.timedelta64(spare, "s")
    last = times[-1].astype("datetime64[s]") + np.timedelta64(width_s + spare, "s")
    day = (last - first) <= np.timedelta64(3, "D")
    words = "%H:%M\n%-d %b" if day else "%-d %b"
    return {"type": "date", "range": [str(first), str(last)], "nticks": ticks, "tickangle": 0, "tickformat": words}


def pattern(shape: str) -> dict[str, Any]:
    """`overlay`: the colour stays and the pattern lies over it in the colour of the card."""
    return {"shape": shape, "fillmode": "overlay", "fgcolor": "$card/55", "size": 7, "solidity": 0.25}
