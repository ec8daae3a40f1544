"""A cascade calibrated on an experiment: which cases count, what is written, and what is refused in one line."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from watchkeeper.encoder import heads
from watchkeeper.lake.experiments import Answer, Given, Trial, trial_rows
from watchkeeper.lake.interactions import microseconds, score_rows, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record
from watchkeeper.release import BUILTIN, Release
from watchkeeper.serving.calibration import FILE_NAME, Calibration, read
from watchkeeper.serving.difficulty import COUNTED, Difficulty
from watchkeeper.settings import Cascade, Settings, Upstream, load
from watchkeeper.tracking import Tracking, server_command
from watchkeeper.tracking.prompts import Releases
from watchkeeper_evaluations.calibration import CalibrationImpossible, _cascade_of, _kept, calibrate, paired

NOW = datetime(2026, 5, 29, tzinfo=UTC)
SCORE = "reference_similarity"
HARD = {"a" * 32: Difficulty(0.25, COUNTED)}


def answered(case: str, value: float | None, **more: Any) -> Answer:
    plain: dict[str, Any] = {
        "request_id": "a" * 32, "received_at": NOW, "case_id": case, "repeat": 0, "session": None, "release": "r@1",
        "prompt": f"Prompt of {case}", "answer": "x", "status": 200, "error": None, "finish_reason": "stop",
        "action": "pass",
        "failed": False, "total_ms": 1.0, "ttft_ms": None, "input_tokens": 1, "output_tokens": 1, "cost_usd": 0.0,
        "scores": {} if value is None else {SCORE: Given("score", value)},
    }  # fmt: skip
    return Answer(**(plain | more))


def test_a_case_counts_by_how_much_worse_the_small_model_did() -> None:
    small = [
        answered("worse", 0.2, cost_usd=1.0), answered("better", 0.9), answered("missing", None), answered("neither", None),
        answered("failed", 0.9, failed=True), answered("alone", 0.1), answered("talk", 0.5, session="s"),
    ]  # fmt: skip
    large = [
        answered("worse", 0.9, cost_usd=4.0), answered("better", 0.5), answered("missing", 0.6), answered("neither", None),
        answered("failed", 0.7), answered("talk", 0.5, session="s"),
    ]  # fmt: skip
    found = {case.cluster: case for case in paired(small, large, SCORE, HARD)}
    assert {name: round(case.loss, 6) for name, case in found.items()} == {
        "case worse": 0.7,
        "case better": 0.0,
        "case missing": 0.6,
        "case failed": 0.7,
        "s": 0.0,
    }
    worse = found["case worse"]
    assert (worse.small_usd, worse.large_usd, worse.difficulty) == (1.0, 4.0, 0.25)


def test_a_score_of_which_less_is_better_counts_the_other_way_round() -> None:
    given = [
        answered("a", None, scores={"repetition": Given("score", value)}, prompt="Again?") for value in (0.75, 0.25)
    ]  # fmt: skip
    (case,) = paired(given[:1], given[1:], "repetition", HARD)
    assert case.loss == 0.5
    assert paired(given[:1], given[1:], "repetition", {}) == [], "whose difficulty is not known says nothing"


def made(**more: Any) -> Calibration:
    plain: dict[str, Any] = {
        "small": "a", "large": "b", "difficulty": 0.4, "by": COUNTED, "score": SCORE, "loss": 0.05, "n": 100,
        "clusters": 100, "expected_loss": 0.03, "small_share": 0.6, "cost_share": None, "experiment_id": "e",
        "calibrated_at": NOW,
    }  # fmt: skip
    return Calibration(**(plain | more))


def test_a_calibration_takes_the_place_of_those_before_it_for_the_same_models(tmp_path: Path) -> None:
    assert _kept(tmp_path, [made(), made(by="head")]) == ()
    assert _kept(tmp_path, [made(large="c")]) == ()
    assert _kept(tmp_path, [made(difficulty=0.7)]) == (made(), made(by="head"))
    assert read(tmp_path) == (made(large="c"), made(difficulty=0.7))
    (tmp_path / FILE_NAME).write_text("{broken")
    assert read(tmp_path) == ()
    assert _kept(tmp_path, [made()]) == ()
    assert read(tmp_path) == (made(),)


def settings(data: Path, **more: Any) -> Settings:
    upstreams = tuple(Upstream(name=name, base_url="http://127.0.0.1:1/v1", model="m") for name in ("a", "b", "c"))
    return Settings(data=data, upstreams=upstreams, **more)


def test_the_releases_must_stand_for_the_models_of_a_cascade(tmp_path: Path) -> None:
    small, large, none = (Release(name="w", version=at, model=model) for at, model in enumerate(("a", "b", None), start=1))
    with_cascade = settings(tmp_path, cascade=Cascade(small=("a",), large=("c", "b")))
    assert _cascade_of(with_cascade, small, large) == with_cascade.cascade
    for pair, why in (
        ((small, none), "w@3 names no model"),
        ((large, small), "no cascade of the settings has b as the small"),
    ):
        with pytest.raises(CalibrationImpossible, match=f"^{why}"):
            _cascade_of(with_cascade, *pair)
    with pytest.raises(CalibrationImpossible, match="no cascade of the settings"):
        _cascade_of(settings(tmp_path), small, large)


@pytest.mark.parametrize(
    ("score", "loss", "why"),
    [("nonsense", 0.1, "--score nonsense"), ("readability", 0.1, "--score readability"), (SCORE, 0.0, "--loss 0")],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_asked(
    tmp_path: Path, score: str, loss: float, why: str
) -> None:
    with pytest.raises(CalibrationImpossible, match=f"^{why}"):
        calibrate(settings(tmp_path), "1", "2", score=score, loss=loss, experiment_id=None, now=NOW)


def tried(settings: Settings, releases: list[Release], cases: int) -> None:
    """An experiment of both releases: the small model fails on all prompts that are sums, and is as good on the others."""
    lake, rng, trials = Lake(settings.lake_uri), np.random.default_rng(3), []
    rows = rng.standard_normal((cases, 384)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    hard = heads.load("difficulty").score(rows)[:, 0]
    sums = hard > np.median(hard)
    for release in releases:
        records = [
            Record(
                request_id=hashlib.md5(f"{release.id} {case}".encode()).hexdigest(),
                received_at=microseconds(NOW),
                release=release.id,
                source="replay",
                prompt_text=f"Calculate 12 * {case} + 7, how much is it?" if sums[case] else f"Poem {case} of the sea.",
                output_text="x",
                cost_usd=0.01 if release.model == "a" else 1.0,
                embedding=rows[case].astype("<f2").tobytes(),
                tags={"experiment": "experiment-1", "case": f"{case:016x}"},
            )
            for case in range(cases)
        ]
        table = to_arrow(records)
        lake.append("interactions", table)
        good = [0.9 if release.model == "b" or not sums[case] else 0.1 for case in range(cases)]
        lake.append(
            "scores",
            score_rows(
                table,
                SCORE,
                good,
                scorer=SCORE,
                scorer_version="1",
                scored_at=NOW,
                evaluation_id="experiment-1",
                replay=True,
            ),
        )
        trials.append(
            Trial(
                experiment_id="experiment-1", started_at=NOW, ended_at=NOW, dataset="d", dataset_digest="d" * 64,
                release=release.id, digest=release.digest, n=cases, failed=0, metrics={}, mlflow_run_id="r",
                mlflow_parent_id="p",
            )
        )  # fmt: skip
    lake.append("experiments", trial_rows(trials))


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_an_experiment_calibrates_the_cascade_from_the_command_line(
    tmp_path: Path, run_process: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    config = tmp_path / "watchkeeper.toml"
    upstreams = "".join(
        f'[[upstreams]]\nname = "{name}"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\n' for name in "ab"
    )
    config.write_text(
        f'data = "{tmp_path / "data"}"\n[mlflow]\nuri = "http://127.0.0.1:{free_port()}"\n'
        f'{upstreams}[cascade]\nsmall = "a"\nlarge = "b"\n'
    )
    settings = load(config)
    argv, env = server_command(settings, settings.data)
    run_process(argv, ready=f"{settings.mlflow.uri}/health", env=env)
    releases = Releases(Tracking(settings.mlflow.uri), settings.mlflow.prompt)
    pair = [releases.register(msgspec.structs.replace(BUILTIN, model=model), "") for model in "ab"]

    def type_in(*words: str) -> subprocess.CompletedProcess[str]:
        asked = [sys.executable, "-m", "watchkeeper", "calibrate", "cascade", "--small", "1", "--large", "2", *words]
        return subprocess.run([*asked, "--config", str(config)], capture_output=True, text=True, timeout=120)

    none = type_in("--json")
    assert (none.returncode, json.loads(none.stdout)["verdict"]) == (3, "unknown")
    assert "run: watchkeeper experiment run --dataset D --release watchkeeper@1 --release watchkeeper@2" in none.stderr
    tried(settings, pair, 60)
    few = type_in("--loss", "0.01")
    assert few.returncode == 3
    assert "60 conversations" in few.stderr
    assert "with 99 or more" in few.stderr
    assert not (settings.data / FILE_NAME).exists()

    done = type_in("--loss", "0.05", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [one["by"] for one in said["calibrations"]] == [heads.load("difficulty").version, COUNTED]
    for one in said["calibrations"]:
        assert 0.5 <= one["small_share"] <= 0.6, "what is easy stays with the small model, and few sums"
        assert one["expected_loss"] <= 0.05
        assert one["cost_share"] < 0.55
    assert read(settings.data) == tuple(msgspec.convert(said["calibrations"], list[Calibration]))
    assert said["curve"][-1] | {"difficulty": 1.0, "small_share": 1.0} == said["curve"][-1]
    plain = type_in("--loss", "0.05")
    assert "is expected to lose at most 0.05 against b alone" in " ".join(plain.stderr.split())
    wrong = type_in("--score", "readability")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
