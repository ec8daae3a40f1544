"""Evidence: an experiment's rows of two releases, held against each other, and the result kept in the lake and in MLflow.

    which experiment → its answers as pairs → comparison, or gate → MLflow run under the experiment's → row in `comparisons`

The row comes last and says that it is done. Knows nothing of tests or rules (comparison.py, gate.py).
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from watchkeeper import __version__
from watchkeeper.lake.experiments import (
    Answer,
    Compared,
    Trial,
    answers,
    comparison_row,
    digests,
    newest_trials,
    newest_with,
    trials,
)
from watchkeeper.lake.lake import Lake
from watchkeeper.release import Release
from watchkeeper.settings import Settings
from watchkeeper.tracking import Tracking
from watchkeeper.tracking.experiments import PARENT
from watchkeeper.tracking.prompts import CHAMPION, Releases
from watchkeeper_evaluations.comparison import Comparison, Metric, compare
from watchkeeper_evaluations.dataset.dataset import home
from watchkeeper_evaluations.gate import judge
from watchkeeper_evaluations.pairing import Row
from watchkeeper_evaluations.policy import Policy
from watchkeeper_evaluations.report import page
from watchkeeper_evaluations.scorers import MEANINGS


class EvidenceMissing(Exception):
    """No experiment tells what was asked, or only one on another content; the message is one line that says how to make
    one."""


class EvidenceUnclear(Exception):
    """It cannot be told which answers are meant; the message is one line that says what to name."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """`compared`: as the lake has it; its `verdict` is None of a mere comparison."""

    compared: Compared
    comparison: Comparison
    run_url: str


def compare_releases(
    settings: Settings, base: str, candidate: str, *, experiment_id: str | None = None, now: datetime
) -> Evidence:
    """How the candidate differs from the base, by the newest experiment that tried both (or the one given) with the content
    that they have now.

    Releases by id, version or alias. Raises `EvidenceMissing`, `EvidenceUnclear`, `NotComparable`, `ReleaseUnknown`,
    `ReleaseChanged`, `TrackingUnavailable`, `LakeUnavailable`: all with one line.
    """
    lake, pair = _found(settings, base, candidate, experiment_id)
    return _kept(settings, lake, pair, _compared(lake, pair), None, now)


def gate_releases(
    settings: Settings,
    base: str | None,
    candidate: str | None,
    policy: Policy,
    *,
    experiment_id: str | None = None,
    now: datetime,
) -> Evidence:
    """The policy's verdict on the candidate. Without releases: of the two that the newest experiment (or the one given)
    tried, the champion is the base. Raises what `compare_releases` raises, and `PolicyError`."""
    lake, pair = _found(settings, base, candidate, experiment_id)
    return _kept(settings, lake, pair, _compared(lake, pair, policy), policy, now)


def _found(
    settings: Settings, base: str | None, candidate: str | None, experiment_id: str | None
) -> tuple[Lake, tuple[Trial, Trial]]:
    """The trials of both releases, as they are now, in one experiment."""
    lake = Lake(settings.lake_uri, settings.lake.storage_options)
    releases = Releases(Tracking(settings.mlflow.uri), settings.mlflow.prompt)
    if base is None or candidate is None:
        experiment_id, base, candidate = _newest(releases, lake, experiment_id)
    pair = (releases.get(base), releases.get(candidate))
    if pair[0].id == pair[1].id:
        raise EvidenceUnclear(f"{base} and {candidate} are the same release, {pair[0].id}: name another one")
    wanted = experiment_id or newest_with(lake, *((release.id, release.digest) for release in pair))
    if wanted is None:
        others = [release.id for release in pair if digests(lake, release.id) - {release.digest}]
        known = f" ({' and '.join(others)} was tried with another content)" if others else ""
        raise _missing(pair, f"no experiment has tried both {pair[0].id} and {pair[1].id} as they are now{known}")
    tried = {trial.release: trial for trial in _tried(lake, wanted)}
    absent = [release.id for release in pair if release.id not in tried]
    if absent:
        raise EvidenceUnclear(f"{wanted} did not try {' nor '.join(absent)}; it tried {', '.join(tried)}")
    changed = [release.id for release in pair if tried[release.id].digest != release.digest]
    if changed:
        raise _missing(pair, f"{wanted} tried {' and '.join(changed)} with another content than it has now")
    return lake, (tried[pair[0].id], tried[pair[1].id])


def _newest(releases: Releases, lake: Lake, experiment_id: str | None) -> tuple[str, str, str]:
    """The newest experiment (or the one given), the champion, and the one other release that it tried."""
    tried = _tried(lake, experiment_id) if experiment_id else newest_trials(lake, limit=1)
    if not tried:
        raise EvidenceMissing("there is no experiment yet; make one with `watchkeeper experiment run`")
    champion = releases.get(CHAMPION).id
    names = [trial.release for trial in tried]
    others = [name for name in names if name != champion]
    if champion not in names or len(others) != 1:
        raise EvidenceUnclear(
            f"{tried[0].experiment_id} tried {', '.join(names)}, and the champion is {champion}: name the base and the "
            "candidate"
        )
    return tried[0].experiment_id, champion, others[0]


def _missing(pair: tuple[Release, Release], why: str) -> EvidenceMissing:
    again = f"`watchkeeper experiment run --dataset D --release {pair[0].id} --release {pair[1].id}`"
    return EvidenceMissing(f"{why}; make one with {again}")


def _tried(lake: Lake, experiment_id: str) -> list[Trial]:
    found = trials(lake, experiment_id)
    if not found:
        raise EvidenceUnclear(
            f"there is no finished experiment {experiment_id!r}; `watchkeeper experiment list` shows them"
        )
    return found


def _compared(lake: Lake, pair: tuple[Trial, Trial], policy: Policy | None = None) -> Comparison:
    sides = [[_row(answer) for answer in answers(lake, trial.experiment_id, trial.release)] for trial in pair]
    if policy is None:
        return compare(sides[0], sides[1], MEANINGS.values())
    return compare(sides[0], sides[1], MEANINGS.values(), policy.primary, alpha=policy.alpha, margins=policy.margins)


def _row(answer: Answer) -> Row:
    return Row(
        case_id=answer.case_id,
        session=answer.session,
        failed=answer.failed,
        values={name: given.value for name, given in answer.scores.items()},
        costs={
            "total_ms": answer.total_ms,
            "ttft_ms": answer.ttft_ms,
            "input_tokens": answer.input_tokens,
            "output_tokens": answer.output_tokens,
            "cost_usd": answer.cost_usd,
        },
    )


def _kept(
    settings: Settings, lake: Lake, pair: tuple[Trial, Trial], comparison: Comparison, policy: Policy | None, now: datetime
) -> Evidence:
    """Judges, where there is a policy, and writes the result down."""
    base, candidate = pair
    gate = None if policy is None else judge(comparison, policy)
    comparison = comparison if gate is None else gate.comparison
    compared = Compared(
        comparison_id=f"{'comparison' if gate is None else 'gate'}-{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
        compared_at=now,
        experiment_id=base.experiment_id,
        dataset=base.dataset,
        dataset_digest=base.dataset_digest,
        base=base.release,
        base_digest=base.digest,
        candidate=candidate.release,
        candidate_digest=candidate.digest,
        n=comparison.n,
        verdict=None if gate is None else gate.verdict,
        reason="" if gate is None else gate.reason,
        policy=None if policy is None else policy.model_dump(mode="json"),
        result=msgspec.json.decode(msgspec.json.encode(comparison)),
        mlflow_run_id="",
    )
    tracking = Tracking(settings.mlflow.uri)
    run_id = _logged(tracking, home(settings), compared, comparison, candidate.mlflow_parent_id)
    compared = msgspec.structs.replace(compared, mlflow_run_id=run_id)
    lake.append("comparisons", comparison_row(compared))
    run_url = tracking.run_url(tracking.experiment_id(home(settings)), run_id)
    return Evidence(compared=compared, comparison=comparison, run_url=run_url)


def _logged(tracking: Tracking, experiment: str, compared: Compared, comparison: Comparison, parent: str) -> str:
    """The run in MLflow, under the experiment's."""
    kind = "comparison" if compared.verdict is None else "gate"
    told = {
        "experiment_id": compared.experiment_id,
        "dataset": compared.dataset,
        "dataset_digest": compared.dataset_digest,
        "base": compared.base,
        "base_digest": compared.base_digest,
        "candidate": compared.candidate,
        "candidate_digest": compared.candidate_digest,
    }
    tags = {PARENT: parent, "kind": kind, "comparison_id": compared.comparison_id}
    if compared.verdict is not None:
        tags |= {"verdict": compared.verdict, "reason": compared.reason}
    return tracking.log_run(
        experiment,
        f"{kind}: {compared.base} → {compared.candidate}",
        params={**told, "code_version": __version__, "alpha": comparison.alpha},
        metrics={"n": comparison.n, "clusters": comparison.clusters, **_numbers(comparison.metrics)},
        tags=tags,
        artifacts={
            "comparison.json": {**told, "verdict": compared.verdict, "policy": compared.policy, "result": compared.result},
            "comparison.html": report(compared, comparison),
        },
        started_at=compared.compared_at,
        ended_at=compared.compared_at,
    )


def _numbers(metrics: Sequence[Metric]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for metric in metrics:
        values: Mapping[str, float | None] = {"delta": metric.delta, "low": metric.low, "high": metric.high, "p": metric.p}
        found |= {f"{metric.name}.{key}": value for key, value in values.items()}
    return found


def report(compared: Compared, comparison: Comparison) -> str:
    """One page of HTML: figures only, for a report outlives the texts that are erased."""
    head = f"{compared.candidate} against {compared.base} on {compared.dataset}"
    failed = comparison.failed
    summary = (
        f"{comparison.n} cases of {comparison.clusters} sessions; {failed.base} of the base's answers and "
        f"{failed.candidate} of the candidate's never came. Intervals have the level {1 - comparison.alpha:g}; "
        "the p of a primary metric (*) is adjusted for the others."
    )
    if compared.verdict is not None:
        summary = f"{compared.verdict}: {compared.reason}. {summary}"
    tables: dict[str, Sequence[Mapping[str, Any]]] = {"What differs": [shown(metric) for metric in comparison.metrics]}
    if comparison.rules:
        tables["The rules"] = [msgspec.to_builtins(rule) for rule in comparison.rules]
    return page(head, summary, tables)


def shown(metric: Metric) -> dict[str, str]:
    """A metric as people read it."""
    interval = "" if metric.low is None or metric.high is None else f"{figure(metric.low)} to {figure(metric.high)}"
    return {
        "metric": f"{metric.name} *" if metric.primary else metric.name,
        "n": str(metric.n),
        "base": figure(metric.base),
        "candidate": figure(metric.candidate),
        "difference": f"{'+' if metric.delta > 0 else ''}{figure(metric.delta)}",
        "interval": interval,
        "p": figure(metric.p if metric.adjusted_p is None else metric.adjusted_p),
        "win/tie/loss": f"{metric.wins}/{metric.ties}/{metric.losses}",
        "outcome": metric.outcome,
    }


def figure(value: float) -> str:
    """Three digits, or whole from a thousand up."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
