"""`watchkeeper compare` and `watchkeeper gate`: what they say. What they do is in `watchkeeper_evaluations.evidence`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from watchkeeper.cli import output
from watchkeeper.cli.output import WrongUse
from watchkeeper.settings import Settings
from watchkeeper_evaluations.evidence import Evidence, EvidenceMissing, compare_releases, gate_releases, shown
from watchkeeper_evaluations.policy import load_policy

EXIT: Final = {"pass": 0, "fail": 1, "unknown": 3}
NO_EVIDENCE: Final = 3


def compare(settings: Settings, base: str, candidate: str, *, experiment: str | None, as_json: bool) -> int:
    """Returns the exit code."""
    try:
        found = compare_releases(settings, base, candidate, experiment_id=experiment, now=datetime.now(UTC))
    except EvidenceMissing as missing:
        return _missing(missing, as_json)
    _say(found, as_json)
    return 0


def gate(
    settings: Settings,
    base: str | None,
    candidate: str | None,
    *,
    experiment: str | None,
    policy: Path | None,
    as_json: bool,
) -> int:
    """Returns the exit code: the verdict."""
    if base is not None and candidate is None:
        raise WrongUse(f"name the candidate too, `watchkeeper gate {base} CANDIDATE`, or neither")
    rules = load_policy(policy)
    try:
        found = gate_releases(settings, base, candidate, rules, experiment_id=experiment, now=datetime.now(UTC))
    except EvidenceMissing as missing:
        return _missing(missing, as_json)
    _say(found, as_json)
    return EXIT[found.compared.verdict or "unknown"]


def _missing(missing: EvidenceMissing, as_json: bool) -> int:
    """There is nothing to judge: no pass, and no fault of the user's either."""
    if as_json:
        output.document({"verdict": "unknown", "reason": str(missing)})
    else:
        output.note(f"watchkeeper: {missing}")
    return NO_EVIDENCE


def _say(found: Evidence, as_json: bool) -> None:
    if as_json:
        body: dict[str, Any] = msgspec.to_builtins(found.compared)
        output.document(body | {"run_url": found.run_url})
        return
    compared, rows = found.compared, [shown(metric) for metric in found.comparison.metrics]
    title = (
        f"{compared.candidate} against {compared.base}, {compared.n} cases of {compared.dataset} (*: primary, p adjusted)"
    )
    output.table(tuple(rows[0]) if rows else ("name",), (tuple(row.values()) for row in rows), title=title)
    if compared.verdict is not None:
        rules = [(f"{rule.metric} {rule.rule}", rule.verdict, rule.reason) for rule in found.comparison.rules or ()]
        output.table(("rule", "verdict", "why"), [*rules, ("the gate", compared.verdict, "")])
    output.note(f"{compared.comparison_id}: {found.run_url}")
