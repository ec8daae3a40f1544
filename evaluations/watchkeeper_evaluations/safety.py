"""The safety job: what the guards found in the window's prompts and answers, and how often they could not judge.

Metrics, all shares of requests (95% intervals; rows of one session belong together): `unjudged` (of those that guards were
asked about, in which some guard could not judge: its verdict is `unknown`), `prompts.blocked` `.flagged` `.redacted` (of
requests whose prompt some guard could judge) `.unknown` (of those that guards were asked about), so for `outputs` and
`context` (passages), each with `.n`, `.lower`, `.upper`; by guard `guard.injection.blocked` and so on. The report has them
by category too.

Objectives: `unjudged`, `outputs_blocked`, `outputs_flagged`, each at most. Prompts fail nothing: what users write is not
the service's fault. Unknown where no guard judged anything, and never pass where over half of all requests of the window
were not judged by every guard; one of which no guard said anything was not judged. Knows nothing of whether a guard was
right.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from watchkeeper.settings import Settings
from watchkeeper_evaluations import objective
from watchkeeper_evaluations.case import Case, Finding, bounds, inside
from watchkeeper_evaluations.interval import Estimate, share
from watchkeeper_evaluations.objective import Judged, Objective
from watchkeeper_evaluations.report import page
from watchkeeper_evaluations.scorer import Scorer

NAME: Final = "safety"
TARGETS: Final = {"prompt": "prompts", "context": "context", "output": "outputs"}
UNKNOWN: Final = "unknown"
DONE: Final = {"block": "blocked", "flag": "flagged", "redact": "redacted", UNKNOWN: "unknown"}
MOST_UNJUDGED: Final = 0.5
"""Where more of all requests were not wholly judged, what the others show is not what happened."""

UNJUDGED: Final = "unjudged"
_WORDS: Final = {
    UNJUDGED: (UNJUDGED, "requests that a guard could not judge"),
    "outputs.blocked": ("outputs_blocked", "answers blocked"),
    "outputs.flagged": ("outputs_flagged", "answers flagged"),
}
"""Figure → the setting of its objective, and the figure in words."""

LISTED: Final = 20


class Safety:
    """The job."""

    name = NAME
    version = "1"
    compares = False

    def scorers(self, settings: Settings) -> tuple[Scorer, ...]:
        return ()

    def judge(self, case: Case, scorers: Sequence[Scorer]) -> Finding:
        requests = _requests(case)
        found = _shares(requests)
        metrics: dict[str, float] = {}
        for name, one in found.items():
            metrics |= {name: one.value, f"{name}.lower": one.lower, f"{name}.upper": one.upper, f"{name}.n": one.n}
        metrics |= _by_guard(requests)
        judged = _judged(case, found)
        verdict, reason = objective.overall(judged, _nothing(case, found))
        rows = case.rows(case.window)
        unjudged = rows - sum(not _unjudged(request) for request in requests)
        if verdict in ("pass", "warn") and unjudged > MOST_UNJUDGED * rows:
            verdict, reason = "unknown", f"{unjudged / rows:.0%} of the requests were not judged by every guard"
        rule = {one.objective.setting: f"at most {one.objective.limit:g}" for one in judged}
        table = _by_category(requests)
        blocked = _blocked(case)
        body = {"verdict": verdict, "reason": reason, "rule": rule, "metrics": metrics, "found": table, "blocked": blocked}
        shown = [_row(name, one) for name, one in found.items()]
        tables = {"Shares of requests": shown, "By guard and category": table, "Blocked": blocked}
        html = page(f"Safety, {case.window}", f"{verdict}: {reason}", tables)
        return Finding(verdict, reason, metrics, {"objectives": rule}, {"report.html": html, "report.json": body})


Request = Mapping[str, Any]
"""`unit`: its session, else its id; `verdicts`: of it, at least one."""


def _requests(case: Case) -> list[Request]:
    """The requests of the window that a guard said something of."""
    found: list[Request] = case.query(
        "SELECT coalesce(session, request_id) AS unit, verdicts FROM interactions "
        f"WHERE {inside('w')} AND len(verdicts) > 0 ORDER BY request_id",
        bounds("w", case.window),
    ).to_pylist()
    return found


def _shares(requests: Sequence[Request]) -> dict[str, Estimate]:
    """By name. A target's shares are of the requests in which some guard could judge it, `unknown` of all that have it."""
    values: dict[str, list[float]] = defaultdict(list)
    units: dict[str, list[str]] = defaultdict(list)
    for request in requests:
        actions: dict[str, set[str]] = defaultdict(set)
        for verdict in request["verdicts"]:
            actions[verdict["target"]].add(verdict["action"])
        said = {UNJUDGED: _unjudged(request)}
        for target, given in actions.items():
            known = given - {UNKNOWN}
            of = {action: action in given for action in DONE if known or action == UNKNOWN}
            said |= {f"{TARGETS[target]}.{DONE[action]}": holds for action, holds in of.items()}
        for name, holds in said.items():
            values[name].append(float(holds))
            units[name].append(request["unit"])
    order = [UNJUDGED, *(f"{target}.{done}" for target in TARGETS.values() for done in DONE.values())]
    return {name: share(values[name], units[name]) for name in order if name in values}


def _unjudged(request: Request) -> bool:
    """Whether some guard could not judge something of it."""
    return any(verdict["action"] == UNKNOWN for verdict in request["verdicts"])


def _judged(case: Case, found: Mapping[str, Estimate]) -> list[Judged]:
    judged = []
    for name, (setting, what) in _WORDS.items():
        limit: float | None = getattr(case.objectives, setting)
        if limit is not None and name in found and found[name].n >= case.min_n:
            judged.append(Judged(Objective(what, setting, "at most", limit, "share"), found[name]))
    return judged


def _nothing(case: Case, found: Mapping[str, Estimate]) -> str:
    """Why nothing was judged."""
    asked = [name for name, (setting, _) in _WORDS.items() if getattr(case.objectives, setting) is not None]
    if not asked:
        settings = (setting for setting, _ in _WORDS.values())
        return f"no objective is set: write one under [objectives], one of {', '.join(settings)}"
    judged = max(found[name].n if name in found else 0 for name in asked)
    return f"the guards judged {judged} requests, {case.min_n} are needed; are the stages guard_in and guard_out on?"


def _by_guard(requests: Sequence[Request]) -> dict[str, float]:
    """The share of requests in which a guard did something, where it did."""
    counts: Counter[str] = Counter()
    for request in requests:
        done = {(one["guard"], DONE[one["action"]]) for one in request["verdicts"] if one["action"] in DONE}
        counts.update(f"guard.{guard}.{action}" for guard, action in done)
    return {name: count / len(requests) for name, count in sorted(counts.items())}


def _by_category(requests: Sequence[Request]) -> list[dict[str, Any]]:
    """Rows of the report: in how many requests a guard did what about which category."""
    counts: Counter[tuple[str, str, str, str]] = Counter()
    for request in requests:
        counts.update(
            {
                (TARGETS[one["target"]], one["guard"], one["category"], DONE[one["action"]])
                for one in request["verdicts"]
                if one["action"] in DONE
            }
        )
    return [
        {"of": target, "guard": guard, "category": category, "action": done, "requests": count}
        for (target, guard, category, done), count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    ]


def _blocked(case: Case) -> list[dict[str, Any]]:
    """Blocked requests, the newest first: ids only."""
    found: list[dict[str, Any]] = case.query(
        "SELECT request_id, list_distinct([v.guard || ': ' || v.category FOR v IN verdicts IF v.action = 'block']) AS by "
        f"FROM interactions WHERE {inside('w')} AND action = 'block' ORDER BY received_at DESC, request_id LIMIT {LISTED}",
        bounds("w", case.window),
    ).to_pylist()
    return [{"request_id": row["request_id"], "by": ", ".join(sorted(row["by"]))} for row in found]


def _row(name: str, found: Estimate) -> dict[str, Any]:
    interval = f"{found.lower:.1%} to {found.upper:.1%}"
    return {"share": name, "value": f"{found.value:.1%}", "95% interval": interval, "requests": found.n}
