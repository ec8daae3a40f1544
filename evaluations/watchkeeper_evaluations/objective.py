"""Objectives: what a figure should reach or stay within, and what a window that was measured says of it.

Fails when the whole interval lies on the wrong side, warns when only the estimate does. Knows nothing of what was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from watchkeeper_evaluations.case import Verdict
from watchkeeper_evaluations.interval import Estimate

SHOWN: Final = 4
"""So many figures stand in a reason."""

Side = Literal["at least", "at most"]


@dataclass(frozen=True)
class Objective:
    """`what`: in words, as the reason says it. `setting`: under `[objectives]`. `side`: on which the figure should be.
    `unit`: how figures are written."""

    what: str
    setting: str
    side: Side
    limit: float
    unit: Literal["share", "score", "ms"]

    def judge(self, found: Estimate) -> Verdict:
        """pass, warn or fail."""
        most = self.side == "at most"
        if found.lower > self.limit if most else found.upper < self.limit:
            return "fail"
        return "warn" if (found.value > self.limit if most else found.value < self.limit) else "pass"

    def described(self, found: Estimate) -> str:
        """`refusals 31.0% (95% interval 22.0% to 41.0%, 90 requests; at most 20.0%)`."""
        low, high = (self.written(bound) for bound in (found.lower, found.upper))
        return (
            f"{self.what} {self.written(found.value)} (95% interval {low} to {high}, {found.n} requests; "
            f"{self.side} {self.written(self.limit)})"
        )

    def written(self, value: float) -> str:
        if value in (float("inf"), float("-inf")):
            return "no bound"
        return {"share": f"{value:.1%}", "score": f"{value:.2f}", "ms": f"{value:,.0f} ms"}[self.unit]


@dataclass(frozen=True)
class Judged:
    """An objective and what was found; `unknown` where it could not be measured, and `why`."""

    objective: Objective
    found: Estimate | None
    why: str = ""

    @property
    def verdict(self) -> Verdict:
        return "unknown" if self.found is None else self.objective.judge(self.found)

    def __str__(self) -> str:
        return f"{self.objective.what}: {self.why}" if self.found is None else self.objective.described(self.found)


def overall(judged: Sequence[Judged], nothing: str) -> tuple[Verdict, str]:
    """The verdict of several: the worst, and the reason names those that made it. `nothing`: the reason where no objective
    was set. What could not be measured (`unknown`) outweighs a warning, and never hides a failure."""
    if not judged:
        return "unknown", nothing
    order: tuple[Verdict, ...] = ("fail", "unknown", "warn", "pass")
    worst = next(verdict for verdict in order if any(one.verdict == verdict for one in judged))
    named = [one for one in judged if one.verdict == worst]
    if worst == "pass":
        return "pass", f"{_listed(named)}: as set under [objectives]"
    if worst == "unknown":
        return "unknown", _listed(named)
    certain = "certainly" if worst == "fail" else "though it may be chance"
    return worst, f"{len(named)} of {len(judged)} objectives missed, {certain}: {_listed(named)}"


def _listed(judged: Sequence[Judged]) -> str:
    more = len(judged) - SHOWN
    return "; ".join(map(str, judged[:SHOWN])) + (f"; and {more} more" if more > 0 else "")
