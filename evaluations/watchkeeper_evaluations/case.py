"""A case: a window of the lake, put before a job; and the finding: what the job found.

Knows how a window is asked for in SQL; nothing of scorers, verdict rules or MLflow.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from watchkeeper.lake.interactions import microseconds
from watchkeeper.lake.lake import Lake
from watchkeeper.settings import Objectives
from watchkeeper_evaluations.window import Window

Verdict = Literal["pass", "warn", "fail", "unknown"]


@dataclass(frozen=True)
class Finding:
    """`reason`: one sentence for people. `params`, `artifacts`: for the MLflow run, beside what every run has. `plain`:
    the reason where it may be sent elsewhere, when words of users stand in it; None: it has none."""

    verdict: Verdict
    reason: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, bytes | str | dict[str, Any]] = field(default_factory=dict)
    plain: str | None = None


@dataclass(frozen=True)
class Case:
    """`version`: of `interactions`, so that rows which arrive meanwhile do not change the case. `min_n`: fewer rows are no
    evidence. `objectives`: what the settings ask for."""

    lake: Lake
    window: Window
    reference: Window | None
    version: int | None
    min_n: int
    objectives: Objectives = field(default_factory=Objectives)

    def query(self, sql: str, parameters: Mapping[str, Any]) -> pa.Table:
        """`sql` with `interactions` as it was at the case's version."""
        return self.lake.query(sql, parameters, version={} if self.version is None else {"interactions": self.version})

    def rows(self, window: Window) -> int:
        """How many requests there are in a window; replays are none."""
        found = self.query(f"SELECT count(*) AS n FROM interactions WHERE {inside('w')}", bounds("w", window))
        count: int = found.column("n")[0].as_py()
        return count


def inside(name: str) -> str:
    """SQL: a row of `interactions` lies in the window `name`, whose times `bounds` gives."""
    return f"({during(name)} AND source <> 'replay')"


def during(name: str) -> str:
    """SQL: a row of any table that has `received_at` lies in the window `name`, replays included."""
    start, end = f"make_timestamptz(${name}_start)", f"make_timestamptz(${name}_end)"
    return f"(received_at >= {start} AND received_at < {end} AND date BETWEEN {start}::DATE AND {end}::DATE)"


def bounds(name: str, window: Window) -> dict[str, int]:
    """The parameters of `inside` and `during`."""
    return {f"{name}_start": microseconds(window.start), f"{name}_end": microseconds(window.end)}
