"""Two releases of an experiment, compared and gated: from the lake's rows to the row and the run that say so."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from mlflow import MlflowClient

from watchkeeper.lake.experiments import Trial, comparisons, trial_rows
from watchkeeper.lake.interactions import microseconds, score_rows, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record
from watchkeeper.release import BUILTIN
from watchkeeper.settings import Mlflow, Settings
from watchkeeper.tracking import Tracking, TrackingUnavailable, server_command
from watchkeeper.tracking.experiments import running
from watchkeeper.tracking.prompts import Releases, ReleaseUnknown
from watchkeeper_evaluations.dataset.dataset import home
from watchkeeper_evaluations.evidence import (
    EvidenceMissing,
    EvidenceUnclear,
    compare_releases,
    gate_releases,
)
from watchkeeper_evaluations.policy import Policy, Require

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
ONE, TWO, THREE = "watchkeeper@1", "watchkeeper@2", "watchkeeper@3"
CONTENTS = {
    release: msgspec.structs.replace(BUILTIN, template=f"template {number}")
    for number, release in enumerate((ONE, TWO, THREE))
}
GROUNDED = Policy(require=(Require(metric=("grounded",), rule="better"),))

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def uri(
    module_processes: Callable[..., Any], module_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """An MLflow in which the first of three releases is the champion."""
    data = tmp_path_factory.mktemp("mlflow")
    settings = Settings(data=data, mlflow=Mlflow(uri=f"http://127.0.0.1:{module_port()}"))
    argv, env = server_command(settings, data)
    process = module_processes(argv, ready=f"{settings.mlflow.uri}/health", env=env)
    releases = Releases(Tracking(settings.mlflow.uri), settings.mlflow.prompt)
    for name, content in CONTENTS.items():
        made = releases.register(content, "")
        assert made.id == name
        if name == ONE:
            releases.promote(made)
    yield settings.mlflow.uri
    process.stop()


@pytest.fixture
def settings(uri: str, tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, mlflow=Mlflow(uri=uri))


def tried(
    settings: Settings,
    experiment: str,
    grounded: dict[str, float],
    *,
    cases: int = 40,
    at: datetime = NOON,
    other: str | None = None,
) -> str:
    """An experiment in which the first `share` of the cases is grounded, by release; the last case failed everywhere. The
    release `other` had another content then. The parent's run id."""
    lake, number = Lake(settings.lake_uri), 0
    with running(Tracking(settings.mlflow.uri), home(settings), experiment, tags={}, clock=lambda: at) as parent:
        pass
    trials = []
    for release, share in grounded.items():
        digest = "e" * 64 if release == other else CONTENTS[release].digest
        records = []
        for case in range(cases):
            number += 1
            failed: dict[str, Any] = {"error": "upstream_timeout", "status": 504} if case == cases - 1 else {}
            records.append(
                Record(
                    request_id=hashlib.md5(f"{experiment} {number}".encode()).hexdigest(),
                    received_at=microseconds(at),
                    release=release,
                    session=f"session {case}",
                    source="replay",
                    total_ms=100.0 + case,
                    tags={"experiment": experiment, "case": f"{case:016x}", "dataset": "billing"},
                    **failed,
                )
            )
        rows = to_arrow(records)
        lake.append("interactions", rows)
        held = [None if case == cases - 1 else case < share * cases for case in range(cases)]
        lake.append(
            "scores",
            score_rows(
                rows, "grounded", held, scorer="grounded", scorer_version="1", scored_at=at,
                evaluation_id=experiment, replay=True,
            ),
        )  # fmt: skip
        trials.append(
            Trial(
                experiment_id=experiment, started_at=at, ended_at=at, dataset="billing", dataset_digest="d" * 64,
                release=release, digest=digest, n=cases, failed=1, metrics={}, mlflow_run_id="child",
                mlflow_parent_id=parent.run_id,
            )
        )  # fmt: skip
    lake.append("experiments", trial_rows(trials))
    return parent.run_id


def test_a_comparison_is_kept_in_the_lake_and_in_mlflow(settings: Settings, tmp_path: Path) -> None:
    parent = tried(settings, "experiment-1", {ONE: 0.2, TWO: 0.8})
    found = compare_releases(settings, "1", TWO, now=NOON)
    assert (found.comparison.n, found.comparison.clusters) == (40, 40)
    assert (found.comparison.failed.base, found.comparison.failed.candidate) == (1, 1)
    grounded = found.comparison.metric("grounded")
    assert grounded is not None
    assert (grounded.base, grounded.candidate, grounded.wins, grounded.outcome) == (0.2, 0.8, 24, "better")
    took = found.comparison.metric("total_ms")
    assert took is not None
    assert (took.n, took.delta) == (39, 0.0), "an answer that never came took no time"

    (row,) = comparisons(Lake(settings.lake_uri))
    assert row == found.compared
    assert (row.base, row.candidate, row.experiment_id, row.verdict) == (ONE, TWO, "experiment-1", None)
    assert (row.base_digest, row.candidate_digest) == (CONTENTS[ONE].digest, CONTENTS[TWO].digest)
    assert row.result["metrics"] == msgspec.json.decode(msgspec.json.encode(found.comparison.metrics))
    assert "rules" not in row.result

    client = MlflowClient(settings.mlflow.uri)
    run = client.get_run(row.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.metrics["grounded.delta"] == pytest.approx(0.6)
    client.download_artifacts(row.mlflow_run_id, "", str(tmp_path / "artifacts"))
    assert json.loads((tmp_path / "artifacts" / "comparison.json").read_text())["result"] == row.result
    assert "grounded" in (tmp_path / "artifacts" / "comparison.html").read_text()
    assert found.run_url.endswith(f"/runs/{row.mlflow_run_id}")


@pytest.mark.parametrize(
    ("candidate", "policy", "verdict"),
    [
        (0.8, GROUNDED, "pass"),
        (
            0.2,
            GROUNDED.model_copy(update={"require": (Require(metric=("grounded",), rule="at_least", value=0.5),)}),
            "fail",
        ),
        (0.25, GROUNDED, "unknown"),
    ],
)
def test_a_gate_says_its_verdict(settings: Settings, candidate: float, policy: Policy, verdict: str) -> None:
    tried(settings, "experiment-1", {ONE: 0.2, TWO: candidate})
    found = gate_releases(settings, "champion", TWO, policy, now=NOON)
    assert found.compared.verdict == verdict
    (row,) = comparisons(Lake(settings.lake_uri), "experiment-1")
    assert (row.verdict, row.base, row.candidate) == (verdict, ONE, TWO)
    assert row.reason
    assert row.policy == policy.model_dump(mode="json")
    assert [rule["verdict"] for rule in row.result["rules"]] == [verdict]
    tags = MlflowClient(settings.mlflow.uri).get_run(row.mlflow_run_id).data.tags
    assert (tags["verdict"], tags["kind"]) == (verdict, "gate")


def test_the_command_exits_with_the_verdict(settings: Settings, tmp_path: Path, watchkeeper: list[str]) -> None:
    tried(settings, "experiment-1", {ONE: 0.2, TWO: 0.8})
    told = f'data = "{tmp_path}"\n[mlflow]\nuri = "{settings.mlflow.uri}"\n'
    (tmp_path / "watchkeeper.toml").write_text(told)
    rule = '[[require]]\nmetric = "grounded"\n'
    for policy, code, verdict in (
        (f'{rule}rule = "better"', 0, "pass"),
        (f'{rule}rule = "at_least"\nvalue = 0.9', 1, "fail"),
        (f'min_cases = 99\n{rule}rule = "better"', 3, "unknown"),
    ):
        (tmp_path / "policy.toml").write_text(policy)
        asked = ["gate", "champion", "2", "--policy", str(tmp_path / "policy.toml"), "--json"]
        done = subprocess.run([*watchkeeper, *asked], cwd=tmp_path, capture_output=True, text=True, check=False)
        document = json.loads(done.stdout)
        assert (done.returncode, document["verdict"], document["candidate"]) == (code, verdict, TWO)
        assert done.stderr == ""
    asked = ["compare", "1", "3", "--json"]
    done = subprocess.run([*watchkeeper, *asked], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (3, "unknown")
    wide = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run([*watchkeeper, "compare", "1", "2"], cwd=tmp_path, capture_output=True, text=True, env=wide)
    assert done.returncode == 0
    assert "grounded *" in done.stdout
    assert "24/16/0" in done.stdout


def test_too_few_cases_are_no_evidence(settings: Settings) -> None:
    tried(settings, "experiment-1", {ONE: 0.0, TWO: 1.0}, cases=12)
    assert gate_releases(settings, ONE, TWO, GROUNDED, now=NOON).compared.verdict == "unknown"


def test_the_newest_experiment_that_tried_both_is_the_evidence(settings: Settings) -> None:
    tried(settings, "experiment-1", {ONE: 0.2, TWO: 0.8})
    tried(settings, "experiment-2", {ONE: 0.2, TWO: 0.4}, at=NOON + timedelta(hours=1))
    tried(settings, "experiment-3", {TWO: 0.4, THREE: 0.4}, at=NOON + timedelta(hours=2))
    assert compare_releases(settings, ONE, TWO, now=NOON).compared.experiment_id == "experiment-2"
    older = compare_releases(settings, ONE, TWO, experiment_id="experiment-1", now=NOON)
    assert older.compared.experiment_id == "experiment-1"
    with pytest.raises(
        EvidenceMissing, match=f"no experiment has tried both {ONE} and {THREE} as they are now; make one with"
    ):
        compare_releases(settings, ONE, THREE, now=NOON)
    with pytest.raises(EvidenceUnclear, match=f"^experiment-1 did not try {THREE}; it tried {ONE}, {TWO}$"):
        compare_releases(settings, TWO, THREE, experiment_id="experiment-1", now=NOON)
    with pytest.raises(EvidenceUnclear, match="no finished experiment 'experiment-9'"):
        compare_releases(settings, ONE, TWO, experiment_id="experiment-9", now=NOON)
    with pytest.raises(EvidenceUnclear, match=f"champion and {ONE} are the same release"):
        compare_releases(settings, "champion", ONE, now=NOON)


def test_answers_of_another_content_of_that_name_are_no_evidence(settings: Settings) -> None:
    tried(settings, "experiment-1", {ONE: 0.2, TWO: 0.8}, other=ONE)
    again = f"`watchkeeper experiment run --dataset D --release {ONE} --release {TWO}`"
    said = rf"^no experiment has tried both {ONE} and {TWO} as they are now \({ONE} was tried with another content\); "
    with pytest.raises(EvidenceMissing, match=f"{said}make one with {again}$"):
        gate_releases(settings, ONE, TWO, GROUNDED, now=NOON)
    said = f"^experiment-1 tried {ONE} with another content than it has now; make one with {again}$"
    for base, candidate, experiment in ((ONE, TWO, "experiment-1"), (None, None, None)):
        with pytest.raises(EvidenceMissing, match=said):
            gate_releases(settings, base, candidate, GROUNDED, experiment_id=experiment, now=NOON)
    assert comparisons(Lake(settings.lake_uri)) == []
    tried(settings, "experiment-2", {ONE: 0.2, TWO: 0.8})
    tried(settings, "experiment-3", {ONE: 0.8, TWO: 0.2}, at=NOON + timedelta(hours=1), other=TWO)
    found = gate_releases(settings, ONE, TWO, GROUNDED, now=NOON)
    assert (found.compared.experiment_id, found.compared.verdict) == ("experiment-2", "pass")


def test_every_alias_is_a_name_and_what_is_none_is_said(settings: Settings) -> None:
    tried(settings, "experiment-1", {ONE: 0.2, TWO: 0.8})
    MlflowClient(settings.mlflow.uri, settings.mlflow.uri).set_prompt_alias(settings.mlflow.prompt, "challenger", 2)
    assert gate_releases(settings, "champion", "challenger", GROUNDED, now=NOON).compared.candidate == TWO
    for name in ("chalenger", "watchkeeper@99", "99"):
        with pytest.raises(ReleaseUnknown, match=f"^there is no release '{name}'; there is {THREE}, "):
            gate_releases(settings, "champion", name, GROUNDED, now=NOON)


def test_without_names_the_champion_is_the_base(settings: Settings) -> None:
    with pytest.raises(EvidenceMissing, match="no experiment yet"):
        gate_releases(settings, None, None, GROUNDED, now=NOON)
    tried(settings, "experiment-1", {ONE: 0.2, TWO: 0.8})
    found = gate_releases(settings, None, None, GROUNDED, now=NOON)
    assert (found.compared.base, found.compared.candidate, found.compared.verdict) == (ONE, TWO, "pass")
    tried(settings, "experiment-2", {ONE: 0.2, TWO: 0.4, THREE: 0.4}, at=NOON + timedelta(hours=1))
    with pytest.raises(EvidenceUnclear, match=f"tried {ONE}, {TWO}, {THREE}, and the champion is {ONE}: name"):
        gate_releases(settings, None, None, GROUNDED, now=NOON)
    assert gate_releases(settings, None, None, GROUNDED, experiment_id="experiment-1", now=NOON).compared.candidate == TWO


def test_with_mlflow_away_nothing_is_kept(settings: Settings, free_port: Callable[[], int]) -> None:
    tried(settings, "experiment-1", {ONE: 0.2, TWO: 0.8})
    away = settings.model_copy(update={"mlflow": Mlflow(uri=f"http://127.0.0.1:{free_port()}")})
    with pytest.raises(TrackingUnavailable, match="does not answer"):
        gate_releases(away, ONE, TWO, GROUNDED, now=NOON)
    assert comparisons(Lake(settings.lake_uri)) == []
