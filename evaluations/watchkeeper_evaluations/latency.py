"""The latency job: percentiles of the whole request, its parts and its stages, exact from the window's rows, and the share
of requests that failed; held against the objectives of the settings.

Metrics: `total_ms.p50` `.p95` `.p99` `.n`, so for `ttft_ms`, `tpot_ms`, `overhead_ms` and each stage
(`stage.embed_ms.p95`); `total_ms.p95.lower`, `.upper` and the like where there is an objective (95%, by order statistics);
`errors.share`, `.lower`, `.upper`, `.n`. As in the rollups, refused requests (4xx) count nowhere, and a stage counts where
it was not skipped.

Fails when a figure is certainly above its objective, warns when it is above. Rows are taken for independent: a busy minute
slows many at once, so that the intervals are too narrow. Knows nothing of why something is slow.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from watchkeeper.lake.rollup import STATUS_SQL
from watchkeeper.record import STAGES
from watchkeeper.settings import Settings
from watchkeeper_evaluations import objective
from watchkeeper_evaluations.case import Case, Finding, bounds, inside
from watchkeeper_evaluations.interval import Estimate, quantile, share
from watchkeeper_evaluations.objective import Judged, Objective
from watchkeeper_evaluations.report import page
from watchkeeper_evaluations.scorer import Scorer

NAME: Final = "latency"
PERCENTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
JUDGED: Final = "p95"
PARTS: Final = ("total_ms", "ttft_ms", "tpot_ms", "overhead_ms")
_WORDS: Final = {
    "total_ms": "95% of requests within",
    "ttft_ms": "95% of first tokens within",
    "tpot_ms": "95% of tokens within",
    "overhead_ms": "95% of overheads within",
}
SLOWEST: Final = 20


class Latency:
    """The job."""

    name = NAME
    version = "1"
    compares = False

    def scorers(self, settings: Settings) -> tuple[Scorer, ...]:
        return ()

    def judge(self, case: Case, scorers: Sequence[Scorer]) -> Finding:
        times = _times(case)
        errors = _errors(case)
        metrics: dict[str, float] = {}
        table: list[dict[str, Any]] = []
        for name, values in times.items():
            metrics[f"{name}.n"] = len(values)
            if values:
                found = {which: float(np.quantile(values, q)) for which, q in PERCENTILES.items()}
                metrics |= {f"{name}.{which}": value for which, value in found.items()}
                table.append({"part": name, "requests": len(values), **{key: f"{ms:,.1f}" for key, ms in found.items()}})
        judged = _judged(case, times, errors)
        for one in judged:
            if one.found is not None and one.objective.unit == "ms":
                metrics |= _bounds(f"{one.objective.setting.removesuffix('_p95_ms')}_ms.{JUDGED}", one.found)
        if errors is not None:
            metrics |= {"errors.share": errors.value, "errors.n": errors.n, **_bounds("errors", errors)}
        verdict, reason = objective.overall(judged, _nothing(case))
        rule = {one.objective.setting: f"at most {one.objective.limit:g}" for one in judged}
        slowest = _slowest(case)
        body = {"verdict": verdict, "reason": reason, "rule": rule, "metrics": metrics, "slowest": slowest}
        tables = {"Milliseconds": table, "The slowest": slowest}
        html = page(f"Latency, {case.window}", f"{verdict}: {reason}", tables)
        return Finding(verdict, reason, metrics, {"objectives": rule}, {"report.html": html, "report.json": body})


def _judged(case: Case, times: Mapping[str, Sequence[float]], errors: Estimate | None) -> list[Judged]:
    judged = []
    for name in PARTS:
        setting = f"{name.removesuffix('_ms')}_p95_ms"
        limit: float | None = getattr(case.objectives, setting)
        if limit is not None and len(times[name]) >= case.min_n:
            found = quantile(times[name], PERCENTILES[JUDGED])
            judged.append(Judged(Objective(_WORDS[name], setting, "at most", limit, "ms"), found))
    limit = case.objectives.errors
    if limit is not None and errors is not None and errors.n >= case.min_n:
        judged.append(Judged(Objective("failed requests", "errors", "at most", limit, "share"), errors))
    return judged


def _nothing(case: Case) -> str:
    """Why nothing was judged."""
    settings = [*(f"{name.removesuffix('_ms')}_p95_ms" for name in PARTS), "errors"]
    if any(getattr(case.objectives, name) is not None for name in settings):
        return f"fewer than {case.min_n} requests of the window were served, none judged by an objective"
    return f"no objective is set: write one under [objectives], one of {', '.join(settings)}"


def _bounds(name: str, found: Estimate) -> dict[str, float]:
    """Those that there are: few rows set no upper one."""
    return {f"{name}.{side}": at for side, at in (("lower", found.lower), ("upper", found.upper)) if np.isfinite(at)}


def _times(case: Case) -> dict[str, list[float]]:
    """Milliseconds by name: the parts, then the stages in their order."""
    parts = case.query(
        f"SELECT {', '.join(PARTS)} FROM interactions WHERE {inside('w')} AND {STATUS_SQL} <> 'rejected'", _window(case)
    )
    times: dict[str, list[float]] = {name: parts.column(name).drop_null().to_pylist() for name in PARTS}
    stages = case.query(
        "SELECT stage.name AS name, list(stage.ms) AS ms FROM (SELECT unnest(stages) AS stage FROM interactions WHERE "
        f"{inside('w')}) WHERE stage.status <> 'skipped' AND stage.ms IS NOT NULL GROUP BY stage.name",
        _window(case),
    ).to_pylist()
    by_stage = {row["name"]: row["ms"] for row in stages}
    return times | {f"stage.{name}_ms": by_stage[name] for name in STAGES if name in by_stage}


def _errors(case: Case) -> Estimate | None:
    """The share of requests that failed, by session; None where all were refused."""
    found = case.query(
        f"SELECT ({STATUS_SQL} = 'error')::DOUBLE AS failed, coalesce(session, request_id) AS unit FROM interactions "
        f"WHERE {inside('w')} AND {STATUS_SQL} <> 'rejected'",
        _window(case),
    )
    return share(found.column("failed").to_pylist(), found.column("unit").to_pylist()) if found.num_rows else None


def _slowest(case: Case) -> list[dict[str, Any]]:
    """Ids and times only."""
    found: list[dict[str, Any]] = case.query(
        f"SELECT request_id, round(total_ms, 1) AS total_ms, round(overhead_ms, 1) AS overhead_ms FROM interactions "
        f"WHERE {inside('w')} AND {STATUS_SQL} <> 'rejected' ORDER BY total_ms DESC, request_id LIMIT {SLOWEST}",
        _window(case),
    ).to_pylist()
    return found


def _window(case: Case) -> dict[str, int]:
    return bounds("w", case.window)
