"""The key figures of the overview: what each is, how it changed against the window before, and whether that is good."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from dash.development.base_component import Component

from watchkeeper.lake.rollup import Rollups
from watchkeeper_dashboards import parts, units
from watchkeeper_dashboards.canvas import Series
from watchkeeper_dashboards.evidence import TOXICITY

ENOUGH: Final = 20
"""Fewer requests in the window before, and a change says nothing."""

SAME: Final = 0.005
"""Changes smaller than this are no change: of a number as a share of it, of a share in percentage points."""


@dataclass(frozen=True)
class KeyFigure:
    """One tile. `value` and `series` of a window; `worse_up`: whether more of it is bad (None: neither)."""

    label: str
    token: str
    explanation: str
    value: Callable[[Rollups], float]
    series: Callable[[Rollups], Series]
    shown: Callable[[float], str]
    worse_up: bool | None
    is_share: bool = False


def key_figures(current: Rollups, prior: Rollups | None) -> list[Component]:
    """A tile for each figure; `prior` None: there is no window before to compare with."""
    return [_tile(figure, current, prior) for figure in _figures(current)]


def _tile(figure: KeyFigure, current: Rollups, prior: Rollups | None) -> Component:
    value = figure.value(current)
    before = figure.value(prior) if prior is not None and prior.n.sum() >= ENOUGH else math.nan
    change, tone = describe_change(value, before, figure.is_share, figure.worse_up)
    begin = int(np.argmax(current.n > 0))
    series = [float(point) if math.isfinite(point) else None for point in figure.series(current)[begin:]]
    return parts.tile(figure.label, figure.shown(value), change, tone, series, figure.token, figure.explanation)


def describe_change(value: float, before: float, is_share: bool, worse_up: bool | None) -> tuple[str, parts.Tone]:
    """`▲ 12% vs prior` and its tone: numbers change by a share of themselves, shares by percentage points."""
    if not math.isfinite(value) or not math.isfinite(before) or (before == 0 and not is_share):
        return "no prior window", "neutral"
    change = value - before if is_share else value / before - 1
    if abs(change) < SAME:
        return "≈ same as prior", "neutral"
    size = f"{abs(change) * 100:.1f}"
    words = f"{'▲' if change > 0 else '▼'} {size}{' pt' if is_share else '%'} vs prior"
    if worse_up is None:
        return words, "neutral"
    return words, "bad" if (change > 0) == worse_up else "good"


def _figures(current: Rollups) -> tuple[KeyFigure, ...]:
    return (
        KeyFigure(
            "Requests", "blue", "Chat requests that reached the gateway",
            lambda window: float(window.n.sum()), lambda window: window.n.astype(float), units.count, None,
        ),
        KeyFigure(
            "p95 latency", "blue", "95% of the requests had their whole answer within this time; refused ones are left out",
            lambda window: window.percentile("total", 0.95), lambda window: window.percentile_series("total", 0.95),
            units.milliseconds, True,
        ),
        KeyFigure(
            "Error rate", "block", "Requests that failed: 5xx, broken streams, callers who left; not refused ones (4xx)",
            lambda window: _share(window, _errors(window)), lambda window: _shares(window, _errors(window)),
            units.share, True, is_share=True,
        ),
        KeyFigure(
            "Not passed by safety", "flag", "Requests flagged, redacted, blocked, or unknown: a guard could not judge",
            lambda window: _share(window, _not_passed(window)), lambda window: _shares(window, _not_passed(window)),
            units.share, True, is_share=True,
        ),
        _spending(current),
        KeyFigure(
            "Toxicity, mean", "purple", "Mean score (0 to 1) of the toxicity judge over the answers it has scored so far",
            _toxicity, lambda window: window.score_mean(TOXICITY), units.score, True, is_share=True,
        ),
    )  # fmt: skip


def _spending(current: Rollups) -> KeyFigure:
    """Dollars where the model has a price, else tokens."""
    if current.cost.sum() > 0:
        return KeyFigure(
            "Cost / 1k requests", "green", "What a thousand requests cost, at the prices of the upstreams",
            lambda window: float(window.cost.sum()) / max(int(window.n.sum()), 1) * 1000,
            lambda window: window.cost, units.dollars, True,
        )  # fmt: skip
    return KeyFigure(
        "Tokens", "green", "Input and output tokens; the model has no price",
        lambda window: float(window.tokens.sum()), lambda window: window.tokens.astype(float), units.short_count, None,
    )  # fmt: skip


def _errors(window: Rollups) -> Series:
    return window.counts("statuses")["error"].astype(np.float64)


def _not_passed(window: Rollups) -> Series:
    actions = window.counts("actions")
    return sum((series.astype(np.float64) for name, series in actions.items() if name != "pass"), np.zeros(len(window.n)))


def _share(window: Rollups, part: Series) -> float:
    return float(part.sum() / window.n.sum()) if window.n.sum() else math.nan


def _shares(window: Rollups, part: Series) -> Series:
    shares: Series = np.divide(part, window.n, out=np.full(len(part), np.nan), where=window.n > 0)
    return shares


def _toxicity(window: Rollups) -> float:
    counts = window.score_counts(TOXICITY).sum(axis=0)
    middles = (np.arange(len(counts)) + 0.5) / len(counts)
    return float(counts @ middles / counts.sum()) if counts.sum() else math.nan
