"""The quality job: every answer scored by the scorers of quality, and each score held against its objective.

Metrics, for each score `x`: `x.mean` (of an assertion the share that holds), `x.n`, `x.lower`, `x.upper` (95%; rows of one
session belong together), `x.flagged`. A row that has nothing to score (`x` is null) is in no mean.

An objective is judged where `min_n` rows have its score. It fails when the whole interval lies on the wrong side, warns
when only the estimate does. It is unknown when a scorer could not score over a tenth of the rows, and when nothing was
judged. Knows nothing of how answers are scored (scorers/).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from watchkeeper.settings import Settings
from watchkeeper_evaluations import objective
from watchkeeper_evaluations.case import Case, Finding, bounds, during, inside
from watchkeeper_evaluations.interval import Estimate, mean, share
from watchkeeper_evaluations.objective import Judged, Objective, Side
from watchkeeper_evaluations.report import page
from watchkeeper_evaluations.scorer import Score, Scorer
from watchkeeper_evaluations.scorers import live
from watchkeeper_evaluations.toxic_share import UNSCORED_LIMIT

NAME: Final = "quality"

WORST: Final = 20
"""Flagged requests that a report lists, of each score."""

_WORDS: Final[Mapping[str, tuple[str, Side]]] = {
    "relevance": ("relevance", "at least"),
    "support": ("support in the sources", "at least"),
    "grounded": ("grounded answers", "at least"),
    "language_match": ("answers in the prompt's language", "at least"),
    "repetition": ("repetition", "at most"),
    "refusal": ("refusals", "at most"),
    "truncated": ("answers cut off", "at most"),
}
"""Scores that can have an objective: in words, and the good side."""


class Quality:
    """The job."""

    name = NAME
    version = "1"
    compares = False

    def scorers(self, settings: Settings) -> tuple[Scorer, ...]:
        return live(settings)

    def judge(self, case: Case, scorers: Sequence[Scorer]) -> Finding:
        rows = case.rows(case.window)
        found: dict[str, Estimate] = {}
        table: list[dict[str, Any]] = []
        worst: list[dict[str, Any]] = []
        metrics: dict[str, float] = {}
        failed: dict[str, int] = {}
        for scorer in scorers:
            failed[scorer.name] = _errors(case, scorer)
            for score in scorer.scores:
                values, clusters = _values(case, scorer, score)
                flagged = sum(map(score.flags, values))
                metrics[f"{score.name}.n"] = len(values)
                metrics[f"{score.name}.flagged"] = flagged
                if values:
                    estimate = _estimate(score, values, clusters)
                    found[score.name] = estimate
                    metrics |= _metrics(score.name, estimate)
                    table.append(_row(score, estimate, flagged))
                    worst += _worst(case, scorer, score)
        metrics["errors"] = sum(failed.values())
        judged = _judged(case, found, failed, rows)
        verdict, reason = objective.overall(judged, _nothing(case))
        rule = {one.objective.setting: f"{one.objective.side} {one.objective.limit:g}" for one in judged}
        body = {"verdict": verdict, "reason": reason, "rule": rule, "metrics": metrics, "worst": worst}
        html = page(f"Quality, {case.window}", f"{verdict}: {reason}", {"What was measured": table, "Flagged": worst})
        return Finding(verdict, reason, metrics, {"objectives": rule}, {"report.html": html, "report.json": body})


def _judged(case: Case, found: Mapping[str, Estimate], failed: Mapping[str, int], rows: int) -> list[Judged]:
    """Objectives that are set, and of which there are figures enough (or should be)."""
    judged = []
    for name, (what, side) in _WORDS.items():
        limit: float | None = getattr(case.objectives, name)
        if limit is None or name not in failed:
            continue
        one = Objective(what, name, side, limit, "share" if name in _SHARES else "score")
        errors = failed[name]
        if errors > UNSCORED_LIMIT * rows:
            judged.append(Judged(one, None, f"{errors} of {rows} requests could not be scored; see `error` in scores"))
        elif name in found and found[name].n >= case.min_n:
            judged.append(Judged(one, found[name]))
    return judged


_SHARES: Final = ("grounded", "language_match", "refusal", "truncated")


def _nothing(case: Case) -> str:
    """Why nothing was judged."""
    if any(getattr(case.objectives, name) is not None for name in _WORDS):
        return f"no score of an objective is known of {case.min_n} answers"
    return f"no objective is set: write one under [objectives], one of {', '.join(_WORDS)}"


def _estimate(score: Score, values: Sequence[float], clusters: Sequence[str]) -> Estimate:
    if score.kind == "assertion":
        return share(values, clusters)
    return mean(values, clusters, score.low, score.high)


def _metrics(name: str, found: Estimate) -> dict[str, float]:
    return {f"{name}.mean": found.value, f"{name}.lower": found.lower, f"{name}.upper": found.upper}


def _row(score: Score, found: Estimate, flagged: int) -> dict[str, Any]:
    return {
        "score": score.name,
        "mean": f"{found.value:.3f}",
        "95% interval": f"{found.lower:.3f} to {found.upper:.3f}",
        "answers": found.n,
        "sessions": found.clusters,
        "flagged": flagged,
    }


def _values(case: Case, scorer: Scorer, score: Score) -> tuple[list[float], list[str]]:
    """The values of a score in the window, and the session (else the request) of each."""
    found = case.query(
        "SELECT value, coalesce(i.session, s.request_id) AS unit FROM "
        f"(SELECT request_id, value FROM scores WHERE {_MINE} AND name = $name AND value IS NOT NULL) AS s "
        f"JOIN (SELECT request_id, session FROM interactions WHERE {inside('w')}) AS i ON s.request_id = i.request_id "
        "ORDER BY s.request_id",
        _parameters(case, scorer) | {"name": score.name},
    )
    return found.column("value").to_pylist(), found.column("unit").to_pylist()


def _errors(case: Case, scorer: Scorer) -> int:
    """How many requests this scorer could not score; replays are none."""
    found = case.query(
        f"SELECT count(DISTINCT request_id) AS n FROM scores WHERE {_MINE} AND error IS NOT NULL AND replay IS NOT TRUE",
        _parameters(case, scorer),
    )
    count: int = found.column("n")[0].as_py()
    return count


def _worst(case: Case, scorer: Scorer, score: Score) -> list[dict[str, Any]]:
    """The flagged requests, the worst first: ids and scores only, since a report outlives the text of erased requests."""
    if score.flag_from is None and score.flag_below is None:
        return []
    order = "value DESC" if score.flag_from is not None else "value"
    found: list[dict[str, Any]] = case.query(
        f"SELECT name AS score, round(value, 4) AS value, request_id FROM scores WHERE {_MINE} AND name = $name "
        "AND (value >= $above OR value < $below) AND request_id IN "
        f"(SELECT request_id FROM interactions WHERE {inside('w')}) ORDER BY {order}, request_id LIMIT {WORST}",
        _parameters(case, scorer) | {"name": score.name, "above": score.flag_from, "below": score.flag_below},
    ).to_pylist()
    return found


_MINE: Final = f"scorer = $scorer AND scorer_version = $version AND {during('w')}"


def _parameters(case: Case, scorer: Scorer) -> dict[str, Any]:
    return bounds("w", case.window) | {"scorer": scorer.name, "version": scorer.version}
