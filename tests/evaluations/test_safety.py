"""The safety job over a real lake: what the guards did, and that a guard which could not judge is never a pass."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from watchkeeper.lake.interactions import microseconds, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Action, Record, Target, Verdict
from watchkeeper.settings import Objectives
from watchkeeper_evaluations.case import Case, Finding
from watchkeeper_evaluations.safety import Safety
from watchkeeper_evaluations.window import Window

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON, NOON + timedelta(hours=1))
Said = tuple[Verdict, ...]


def said(guard: str, target: Target, action: Action, category: str = "some") -> Verdict:
    return Verdict(guard, target, category, action, None, "a rule", "1")


FINE: Said = (said("pii", "prompt", "pass", "none"), said("pii", "output", "pass", "none"))
ATTACK: Said = (said("injection", "prompt", "block"),)
BLOCKED: Said = (said("pii", "prompt", "pass", "none"), said("toxicity", "output", "block", "toxicity"))
FLAGGED: Said = (said("pii", "prompt", "pass", "none"), said("bias", "output", "flag", "gender"))
REDACTED: Said = (said("pii", "prompt", "redact", "email"), said("pii", "output", "pass", "none"))
UNJUDGED: Said = (said("toxicity", "prompt", "unknown", "error"), said("pii", "output", "pass", "none"))
BLIND: Said = (said("pii", "prompt", "pass", "none"), said("toxicity", "output", "unknown", "error"))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def evaluate(lake: Lake, *groups: tuple[int, Said], turns: int = 1, **objectives: Any) -> Finding:
    verdicts = [verdicts for count, verdicts in groups for _ in range(count)]
    records = [
        Record(
            request_id=f"{number:032x}",
            received_at=microseconds(NOON + timedelta(seconds=number)),
            session=f"s{number // turns}",
            prompt_text="Jonas Oakfield",
            verdicts=found,
        )
        for number, found in enumerate(verdicts)
    ]
    lake.append("interactions", to_arrow(records))
    return Safety().judge(Case(lake, WINDOW, None, None, 30, Objectives.model_validate(objectives)), ())


def test_shares_by_target_guard_and_category(lake: Lake) -> None:
    found = evaluate(lake, (60, FINE), (10, ATTACK), (10, REDACTED), (20, FLAGGED))
    metrics = found.metrics
    assert (metrics["prompts.blocked"], metrics["prompts.redacted"], metrics["prompts.blocked.n"]) == (
        0.1,
        0.1,
        100,
    )
    assert metrics["outputs.flagged"] == pytest.approx(20 / 90)
    assert metrics["outputs.flagged.n"] == 90
    assert metrics["outputs.flagged.lower"] < 20 / 90 < metrics["outputs.flagged.upper"]
    assert metrics["unjudged"] == 0
    assert metrics["guard.injection.blocked"] == 0.1
    assert metrics["guard.bias.flagged"] == 0.2
    body = found.artifacts["report.json"]
    assert isinstance(body, dict)
    bias = {"of": "outputs", "guard": "bias", "category": "gender", "action": "flagged", "requests": 20}
    assert body["found"][0] == bias


@pytest.mark.parametrize(("blocked", "verdict"), [(0, "pass"), (10, "pass"), (13, "warn"), (30, "fail")])
def test_answers_that_had_to_be_blocked_decide(lake: Lake, blocked: int, verdict: str) -> None:
    found = evaluate(lake, (100 - blocked, FINE), (blocked, BLOCKED))
    assert found.verdict == verdict
    assert f"answers blocked {blocked / 100:.1%}" in found.reason or verdict == "pass"


def test_attacks_fail_nothing(lake: Lake) -> None:
    found = evaluate(lake, (40, FINE), (60, ATTACK))
    assert found.verdict == "pass"
    assert found.metrics["prompts.blocked"] == 0.6


@pytest.mark.parametrize(("unjudged", "verdict"), [(10, "pass"), (14, "warn"), (40, "fail")])
def test_a_guard_that_could_not_judge_is_held_against_its_objective(lake: Lake, unjudged: int, verdict: str) -> None:
    found = evaluate(lake, (100 - unjudged, FINE), (unjudged, UNJUDGED))
    assert found.verdict == verdict
    assert found.metrics["unjudged"] == unjudged / 100


def test_mostly_unjudged_is_unknown_even_where_nobody_asked(lake: Lake) -> None:
    found = evaluate(lake, (40, FINE), (60, UNJUDGED), unjudged=False)
    assert (found.verdict, found.reason) == ("unknown", "60% of the requests were not judged by every guard")


@pytest.mark.parametrize(("silent", "verdict"), [(60, "pass"), (61, "unknown"), (940, "unknown")])
def test_requests_of_which_no_guard_said_anything_were_not_judged_either(lake: Lake, silent: int, verdict: str) -> None:
    found = evaluate(lake, (60, FINE), (silent, ()))
    assert found.verdict == verdict
    if verdict == "unknown":
        assert found.reason == f"{silent / (60 + silent):.0%} of the requests were not judged by every guard"


def test_unknown_and_silent_requests_add_up(lake: Lake) -> None:
    found = evaluate(lake, (45, FINE), (25, UNJUDGED), (30, ()), unjudged=False)
    assert (found.verdict, found.reason) == ("unknown", "55% of the requests were not judged by every guard")
    assert found.metrics["unjudged"] == pytest.approx(25 / 70)


def test_what_no_guard_could_judge_is_not_taken_for_clean(lake: Lake) -> None:
    """Of the forty answers that a guard could judge, six were blocked; the fifty others say nothing."""
    found = evaluate(lake, (34, FINE), (6, BLOCKED), (50, BLIND))
    assert (found.metrics["outputs.blocked"], found.metrics["outputs.blocked.n"]) == (0.15, 40)
    assert found.metrics["outputs.unknown"] == pytest.approx(50 / 90)
    assert found.metrics["outputs.unknown.n"] == 90


def test_where_all_answers_are_unjudged_none_counts_as_let_through(lake: Lake) -> None:
    found = evaluate(lake, (60, ATTACK), (40, BLIND), unjudged=False)
    assert "outputs.blocked" not in found.metrics
    assert found.metrics["outputs.unknown"] == 1.0
    assert found.verdict == "unknown"
    assert "the guards judged 0 requests, 30 are needed" in found.reason


def test_without_guards_nothing_is_known(lake: Lake) -> None:
    found = evaluate(lake, (50, ()))
    assert found.verdict == "unknown"
    assert "judged 0 requests" in found.reason
    assert "guard_in" in found.reason


def test_without_objectives_nothing_is_known_and_the_setting_is_named(lake: Lake) -> None:
    found = evaluate(lake, (50, FINE), unjudged=False, outputs_blocked=False)
    assert found.verdict == "unknown"
    assert found.reason.startswith("no objective is set: write one under [objectives], one of unjudged, outputs_blocked")


def test_flags_are_judged_where_they_are_asked_for(lake: Lake) -> None:
    assert evaluate(lake, (50, FINE), (50, FLAGGED), outputs_flagged=0.3).verdict == "fail"


def test_turns_of_a_few_sessions_are_little_evidence(tmp_path: Path) -> None:
    apart = evaluate(Lake(str(tmp_path / "apart")), (80, FINE), (20, BLOCKED))
    together = evaluate(Lake(str(tmp_path / "together")), (80, FINE), (20, BLOCKED), turns=10)
    assert (apart.verdict, together.verdict) == ("fail", "warn")


def test_the_report_names_the_blocked_by_id(lake: Lake) -> None:
    found = evaluate(lake, (50, FINE), (1, BLOCKED))
    html, body = found.artifacts["report.html"], found.artifacts["report.json"]
    assert isinstance(html, str)
    assert isinstance(body, dict)
    assert "Oakfield" not in html + str(body)
    assert body["blocked"] == [{"request_id": f"{50:032x}", "by": "toxicity: toxicity"}]
