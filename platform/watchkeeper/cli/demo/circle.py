"""The way back: from failing answers to a release that serves. Cases, experiment, gate, promotion, as a team would do it.

Knows the demo's own releases and the answers that somebody wrote; everything else is the product's.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import requests as http

from watchkeeper.carrying import carrying
from watchkeeper.cli.demo.releases import BETTER, BETTER_NOTE, FIRST, FIRST_NOTE
from watchkeeper.cli.demo.traffic import answers
from watchkeeper.settings import Settings
from watchkeeper.tracking import Tracking
from watchkeeper_evaluations import dataset, experiment, promotion
from watchkeeper_evaluations.evidence import gate_releases
from watchkeeper_evaluations.policy import load_policy
from watchkeeper_evaluations.window import Window

DATASET: Final = "bills"
FILTER: Final = "grounded = false and tag.kind = billing"
POLICY: Final = Path(__file__).with_name("gate.toml")
BY: Final = "the demo"
FOLLOWED_S: Final = 15.0


class Measured(msgspec.Struct, frozen=True):
    """One metric of the comparison, before and after."""

    base: float
    candidate: float
    low: float | None
    high: float | None
    p: float


class Improvement(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `verdict`: the gate's. `followed_s`: from the promotion until the gateway served the release; None
    where it was not promoted, or the gateway did not follow."""

    dataset: str
    cases: int
    experiment_id: str
    base: str
    candidate: str
    metrics: dict[str, Measured]
    verdict: str
    reason: str
    followed_s: float | None
    run_url: str


def begin(settings: Settings) -> None:
    """Registers the release that serves at first."""
    promotion.register(settings, FIRST, FIRST_NOTE, BY, datetime.now(UTC))


def improve(settings: Settings, window: Window, gateway: str, progress: Callable[[int, int], None]) -> Improvement | None:
    """From the failing answers of a window to a better release; None where none failed. `progress`: answers, of all."""
    cases = _curated(settings, window)
    if not cases:
        return None
    base = promotion.serving(settings)
    better = promotion.register(settings, BETTER, BETTER_NOTE, BY, datetime.now(UTC)).release
    tried = experiment.run(settings, DATASET, [base.id, better.id], progress=progress, now=datetime.now(UTC))
    gate = gate_releases(
        settings, base.id, better.id, load_policy(POLICY), experiment_id=tried.experiment_id, now=datetime.now(UTC)
    )
    followed = None
    if gate.compared.verdict == "pass":
        reason = "questions about bills rest on the handbook"
        promotion.promote(settings, better.id, reason=reason, override=None, by=BY, now=datetime.now(UTC))
        followed = _followed(gateway, better.id)
    return Improvement(
        dataset=DATASET,
        cases=cases,
        experiment_id=tried.experiment_id,
        base=base.id,
        candidate=better.id,
        metrics={
            metric.name: Measured(metric.base, metric.candidate, metric.low, metric.high, metric.p)
            for metric in gate.comparison.metrics
        },
        verdict=gate.compared.verdict or "unknown",
        reason=gate.compared.reason,
        followed_s=followed,
        run_url=tried.run_url,
    )


def _curated(settings: Settings, window: Window) -> int:
    """Failing answers → a frozen dataset of their prompts, with the answers that somebody wrote. Returns how many cases."""
    with carrying(settings.data, "dataset"):
        return _made(settings, window)


def _made(settings: Settings, window: Window) -> int:
    written = answers()
    taken = dataset.from_traces(settings, FILTER, window).cases
    cases = [msgspec.structs.replace(case, reference=written.get(case.messages[-1].content)) for case in taken]
    if not cases:
        return 0
    tracking = Tracking(settings.mlflow.uri)
    dataset.add(tracking, settings, DATASET, cases, make=True)
    return len(dataset.freeze(tracking, settings, DATASET).cases)


def _followed(gateway: str, release_id: str) -> float | None:
    """How long it took until the gateway served the release, in seconds."""
    began = time.monotonic()
    while time.monotonic() - began < FOLLOWED_S:
        if http.get(f"{gateway}/health/ready", timeout=5).json().get("release") == release_id:
            return round(time.monotonic() - began, 1)
        time.sleep(0.1)
    return None
