"""The toxicity job over a real lake, with a judge that says what the text says."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from watchkeeper.lake.interactions import microseconds, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record
from watchkeeper_evaluations.case import Case, Finding
from watchkeeper_evaluations.scorers.toxicity import ToxicityScorer
from watchkeeper_evaluations.scores import score_window
from watchkeeper_evaluations.toxic_share import ToxicShare
from watchkeeper_evaluations.window import Window

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON, NOON + timedelta(hours=1))


class Judge:
    """A text with `vile` in it is toxic and an insult; one with `unreadable` cannot be judged."""

    version, source = "judge-1", "a test"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        self.asked += texts
        if any("unreadable" in text for text in texts):
            raise ValueError("unreadable")
        vile = np.array(["vile" in text for text in texts])
        return {"toxicity": np.where(vile, 0.9, 0.01), "insult": np.where(vile, 0.7, 0.02), "threat": vile * 0.05}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def evaluate(lake: Lake, pairs: Sequence[tuple[str, str]], judge: Judge | None = None) -> Finding:
    records = [
        Record(
            request_id=f"{number:032x}",
            received_at=microseconds(NOON + timedelta(seconds=number)),
            prompt_text=prompt,
            output_text=output,
        )
        for number, (prompt, output) in enumerate(pairs)
    ]
    lake.append("interactions", to_arrow(records))
    scorer = ToxicityScorer(judge or Judge())
    score_window(lake, (scorer,), WINDOW, evaluation_id="e", clock=lambda: NOON, version=None)
    return ToxicShare().judge(Case(lake, WINDOW, None, None, 30), (scorer,))


def pairs(good: int, vile: int, prompt: str = "hello") -> list[tuple[str, str]]:
    return [(prompt, f"answer {number}") for number in range(good)] + [(prompt, f"vile {n}") for n in range(vile)]


@pytest.mark.parametrize(
    ("good", "vile", "verdict"), [(100, 0, "pass"), (99, 1, "pass"), (97, 3, "warn"), (90, 10, "fail")]
)
def test_the_share_of_toxic_answers_decides(lake: Lake, good: int, vile: int, verdict: str) -> None:
    found = evaluate(lake, pairs(good, vile))
    assert found.verdict == verdict
    assert found.metrics["toxicity.output.share"] == vile / (good + vile)
    assert f"{vile} of {good + vile} answers" in found.reason


def test_toxic_prompts_are_reported_and_fail_nothing(lake: Lake) -> None:
    found = evaluate(lake, pairs(50, 0, prompt="vile thing"))
    assert found.verdict == "pass"
    assert found.metrics["toxicity.prompt.share"] == 1.0
    assert found.metrics["toxicity.prompt.p95"] == pytest.approx(0.9, abs=1e-6)


def test_a_blocked_request_has_no_answer_to_judge_but_is_scored(lake: Lake) -> None:
    found = evaluate(lake, [*pairs(40, 0), ("vile", ""), ("", " ")])
    assert found.metrics["toxicity.output.n"] == 40
    rows = lake.query("SELECT DISTINCT request_id FROM scores")
    assert rows.num_rows == 42
    assert found.metrics["errors"] == 0


def test_without_answers_nothing_is_known(lake: Lake) -> None:
    assert evaluate(lake, [("vile", "")] * 40).verdict == "unknown"


def test_further_labels_have_a_row_only_where_they_say_something(lake: Lake) -> None:
    evaluate(lake, [("hello", "vile"), ("hello", "fine")])
    names = lake.query("SELECT name FROM scores ORDER BY name").column("name").to_pylist()
    assert names == ["toxicity.output"] * 2 + ["toxicity.output.insult"] + ["toxicity.prompt"] * 2


def test_when_many_cannot_be_scored_the_rest_is_not_what_happened(lake: Lake) -> None:
    some = evaluate(lake, [*pairs(95, 0), *[("unreadable", "x")] * 5])
    assert (some.verdict, some.metrics["errors"]) == ("pass", 5)


def test_unknown_when_too_many_cannot_be_scored(lake: Lake) -> None:
    found = evaluate(lake, [*pairs(80, 0), *[("unreadable", "x")] * 20])
    assert found.verdict == "unknown"
    assert "20 of 100" in found.reason


def test_a_text_that_comes_often_is_judged_once(lake: Lake) -> None:
    judge = Judge()
    evaluate(lake, pairs(50, 0), judge)
    assert judge.asked.count("hello") == 1


def test_the_report_has_ids_and_no_text(lake: Lake) -> None:
    found = evaluate(lake, [*pairs(50, 0), ("vile Jonas Oakfield", "fine")])
    html, body = found.artifacts["report.html"], found.artifacts["report.json"]
    assert isinstance(html, str)
    assert isinstance(body, dict)
    assert "Oakfield" not in html + str(body)
    assert f"{50:032x}" in html
