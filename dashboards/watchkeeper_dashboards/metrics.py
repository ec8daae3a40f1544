"""How the numbers of experiments are read: shares, scores, milliseconds, tokens, dollars; and their differences, signed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from watchkeeper_dashboards import units
from watchkeeper_dashboards.scores import score_of_one, words_of

Unit = Literal["share", "score", "ms", "count", "usd"]

_MEASURED: Final[dict[str, tuple[str, Unit]]] = {
    "total_ms": ("Total time", "ms"),
    "ttft_ms": ("Time to first token", "ms"),
    "total_ms.p50": ("Total time, p50", "ms"),
    "total_ms.p95": ("Total time, p95", "ms"),
    "input_tokens": ("Input tokens", "count"),
    "output_tokens": ("Output tokens", "count"),
    "cost_usd": ("Cost", "usd"),
}
_ENDINGS: Final[tuple[tuple[str, Unit], ...]] = (("_ms", "ms"), ("_tokens", "count"), ("_usd", "usd"))
"""What a measure that is not listed is, by the end of its name."""


def _count(n: float) -> str:
    return f"{n:,.0f}" if n >= 100 else f"{n:.3g}"


_WRITTEN: Final[dict[Unit, Callable[[float], str]]] = {
    "share": units.share,
    "score": units.score,
    "ms": units.milliseconds,
    "count": _count,
    "usd": units.dollars,
}


@dataclass(frozen=True)
class Metric:
    """One metric of an experiment, as it is called and written here."""

    name: str
    label: str
    unit: Unit

    @property
    def is_score(self) -> bool:
        """Lies in [0, 1], so that differences of several such metrics can be compared."""
        return self.unit in ("share", "score")

    def shown(self, value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return units.NONE
        return _WRITTEN[self.unit](value)

    def of_one(self, value: float | None) -> str:
        """The value of one answer: yes or no where a mean is a share."""
        return score_of_one(words_of(self.name), value) if self.unit == "share" else self.shown(value)

    def difference(self, value: float | None) -> str:
        """`+3.2 pt`, `−0.12`, `+35 ms`: with its sign, and a real minus."""
        if value is None or not math.isfinite(value):
            return units.NONE
        size = abs(value)
        words = (
            f"{size * 100:.1f} pt" if self.unit == "share" else f"{size:.3f}" if self.unit == "score" else self.shown(size)
        )
        return words if size == 0 else f"{'+' if value > 0 else '−'}{words}"


def metric_of(name: str, kind: str | None = None) -> Metric:
    """`kind`: `assertion` or `number`, where the comparison says it."""
    if name in _MEASURED:
        return Metric(name, *_MEASURED[name])
    words = words_of(name)
    unit = next((unit for ending, unit in _ENDINGS if name.endswith(ending)), None)
    if unit is not None:
        return Metric(name, words.label, unit)
    return Metric(name, words.label, "share" if words.share or kind == "assertion" else "score")
