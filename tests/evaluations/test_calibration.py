"""A cascade calibrated on an experiment: which cases count, what is written, and what is refused in one line."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.lake.experiments import Answer, Given
from watchkeeper.release import Release
from watchkeeper.serving.calibration import FILE_NAME, Calibration, read
from watchkeeper.serving.difficulty import VERSION, difficulty
from watchkeeper.settings import Cascade, Settings, Upstream
from watchkeeper_evaluations.calibration import CalibrationImpossible, _cascade_of, _kept, calibrate, paired

NOW = datetime(2026, 5, 29, tzinfo=UTC)
SCORE = "reference_similarity"


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
    found = {case.cluster: case for case in paired(small, large, SCORE)}
    assert {name: round(case.loss, 6) for name, case in found.items()} == {
        "case worse": 0.7,
        "case better": 0.0,
        "case missing": 0.6,
        "case failed": 0.7,
        "s": 0.0,
    }
    worse = found["case worse"]
    assert (worse.small_usd, worse.large_usd, worse.difficulty) == (1.0, 4.0, difficulty("Prompt of worse"))


def test_a_score_of_which_less_is_better_counts_the_other_way_round() -> None:
    given = [
        answered("a", None, scores={"repetition": Given("score", value)}, prompt="Again?") for value in (0.75, 0.25)
    ]  # fmt: skip
    (case,) = paired(given[:1], given[1:], "repetition")
    assert case.loss == 0.5


def made(**more: Any) -> Calibration:
    plain: dict[str, Any] = {
        "small": "a", "large": "b", "difficulty": 0.4, "version": VERSION, "score": SCORE, "loss": 0.05, "n": 100,
        "clusters": 100, "expected_loss": 0.03, "small_share": 0.6, "cost_share": None, "experiment_id": "e",
        "calibrated_at": NOW,
    }  # fmt: skip
    return Calibration(**(plain | more))


def test_a_calibration_takes_the_place_of_the_one_before_it_for_the_same_models(tmp_path: Path) -> None:
    assert _kept(tmp_path, made()) is None
    assert _kept(tmp_path, made(large="c")) is None
    assert _kept(tmp_path, made(difficulty=0.7)) == made()
    assert read(tmp_path) == (made(large="c"), made(difficulty=0.7))
    (tmp_path / FILE_NAME).write_text("{broken")
    assert read(tmp_path) == ()
    assert _kept(tmp_path, made()) is None
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
