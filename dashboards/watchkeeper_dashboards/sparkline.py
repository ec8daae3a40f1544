"""A series as an SVG shape that CSS uses as a mask: its colour then follows the scheme, and it costs no script."""

import math
from collections.abc import Sequence
from typing import Final

WIDTH: Final = 120
HEIGHT: Final = 30
_PAD: Final = 2.0
_FEW: Final = 3


def shape(series: Sequence[float | None]) -> str:
    """An SVG of the series: a line over a faint area; bars where there are too few points for a line; a gap for None.

    The scale begins at zero where that does not flatten what happens, else at the smallest value.
    """
    values = [None if value is None or not math.isfinite(value) else value for value in series]
    known = [value for value in values if value is not None]
    if not known:
        return _svg("")
    low, high = min(known), max(known)
    base = low if low > 0.6 * high and len(known) > _FEW else min(0.0, low)
    spread = (high - base) or 1.0

    def y(value: float) -> float:
        return round(HEIGHT - _PAD - (value - base) / spread * (HEIGHT - 2 * _PAD), 1)

    if len(known) <= _FEW:
        return _svg(_bars(known, y(base), [y(value) for value in known]))
    step = WIDTH / (len(values) - 1)
    runs: list[list[tuple[float, float]]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((round(index * step, 1), y(value)))
    return _svg("".join(_run(run) for run in runs if run))


def _run(points: list[tuple[float, float]]) -> str:
    if len(points) == 1:
        points = [points[0], (points[0][0] + 1, points[0][1])]
    line = "L".join(f"{x} {y}" for x, y in points)
    area = f"M{points[0][0]} {HEIGHT}L{line}L{points[-1][0]} {HEIGHT}Z"
    return (
        f'<path d="{area}" fill="#000" fill-opacity=".18"/><path d="M{line}" fill="none" stroke="#000" '
        'stroke-width="1.5" stroke-linejoin="round" vector-effect="non-scaling-stroke"/>'
    )


def _bars(known: Sequence[float], floor: float, tops: Sequence[float]) -> str:
    width = WIDTH / 12
    parts = []
    for index, top in enumerate(tops):
        height = round(max(floor - top, 1.5), 1) if known[index] else 1.0
        parts.append(
            f'<rect x="{index * (width + 3):.1f}" y="{floor - height:.1f}" width="{width:.1f}" height="{height}" rx="1.5"/>'
        )
    return f'<g fill="#000" fill-opacity=".75">{"".join(parts)}</g>'


def _svg(body: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">{body}</svg>'
