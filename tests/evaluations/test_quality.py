"""The quality job over a real lake, with the real scorers but the one that needs an encoder."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from watchkeeper.lake.interactions import microseconds, score_rows, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.tables import TIME
from watchkeeper.record import Record
from watchkeeper.settings import Objectives, Settings, Stages
from watchkeeper_evaluations.case import Case, Finding
from watchkeeper_evaluations.quality import Quality
from watchkeeper_evaluations.scorer import Scorer, Scores
from watchkeeper_evaluations.scores import score_window
from watchkeeper_evaluations.window import Window

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON, NOON + timedelta(hours=1))
OFF: dict[str, float | bool] = dict.fromkeys(("relevance", "grounded", "language_match", "repetition", "refusal"), False)
GOOD = Record(
    request_id="",
    received_at=0,
    prompt_text="How many days of leave do I have in a year?",
    output_text="All employees have thirty days of leave in a year, which they book in the portal before the end of March.",
    finish_reason="stop",
    retrieved=2,
    support=1.0,
)
REFUSED = msgspec.structs.replace(GOOD, output_text="I'm sorry, but I can't help with that.", support=None)
BASELESS = msgspec.structs.replace(GOOD, support=0.0)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def evaluate(
    lake: Lake,
    *groups: tuple[int, Record],
    turns: int = 1,
    scorers: Sequence[Scorer] = (),
    asked: Mapping[str, float | bool] | None = None,
) -> Finding:
    """`turns`: so many rows in a row are of one session."""
    kinds = [record for count, record in groups for _ in range(count)]
    records = [
        msgspec.structs.replace(
            record,
            request_id=f"{number:032x}",
            received_at=microseconds(NOON + timedelta(seconds=number)),
            session=f"s{number // turns}",
        )
        for number, record in enumerate(kinds)
    ]
    lake.append("interactions", to_arrow(records))
    chosen = (*Quality().scorers(Settings(stages=Stages(embed=False))), *scorers)
    score_window(lake, chosen, WINDOW, evaluation_id="e", clock=lambda: NOON, version=None)
    objectives = Objectives.model_validate(asked or {})
    return Quality().judge(Case(lake, WINDOW, None, None, 30, objectives), chosen)


def test_every_score_has_its_figures(lake: Lake) -> None:
    found = evaluate(lake, (30, GOOD), (10, REFUSED))
    metrics = found.metrics
    assert (metrics["refusal.mean"], metrics["refusal.n"], metrics["refusal.flagged"]) == (0.25, 40, 10)
    assert metrics["refusal.lower"] < 0.25 < metrics["refusal.upper"]
    assert (metrics["grounded.mean"], metrics["grounded.n"]) == (1.0, 30), "a refusal claims nothing"
    assert metrics["repetition.mean"] == 0.0
    assert metrics["errors"] == 0
    assert not any(name.startswith("relevance") for name in metrics), "there is no encoder"
    assert 0 < metrics["readability.mean"] < 1


@pytest.mark.parametrize(
    ("good", "refused", "verdict"), [(100, 0, "pass"), (80, 20, "pass"), (75, 25, "warn"), (60, 40, "fail")]
)
def test_the_interval_of_each_score_decides(lake: Lake, good: int, refused: int, verdict: str) -> None:
    found = evaluate(lake, (good, GOOD), (refused, REFUSED))
    assert found.verdict == verdict
    if verdict != "pass":
        assert f"refusals {refused / 100:.1%}" in found.reason
        assert "grounded" not in found.reason


def test_answers_that_rest_on_nothing_fail_where_there_is_a_knowledge_base(lake: Lake) -> None:
    found = evaluate(lake, (20, GOOD), (60, BASELESS))
    assert found.verdict == "fail"
    assert found.reason.startswith("1 of 4 objectives missed, certainly: grounded answers 25.0%")


def test_without_a_knowledge_base_no_wolf_is_cried(lake: Lake) -> None:
    found = evaluate(lake, (60, msgspec.structs.replace(GOOD, retrieved=None, support=None)))
    assert found.verdict == "pass"
    assert found.metrics["grounded.n"] == 0


def test_turns_of_a_few_sessions_are_little_evidence(tmp_path: Path) -> None:
    """30 of 90 refused: certain of 90 sessions, but not of nine conversations."""
    apart = evaluate(Lake(str(tmp_path / "apart")), (60, GOOD), (30, REFUSED))
    together = evaluate(Lake(str(tmp_path / "together")), (60, GOOD), (30, REFUSED), turns=10)
    assert (apart.verdict, together.verdict) == ("fail", "warn")
    assert together.metrics["refusal.upper"] > apart.metrics["refusal.upper"]


def test_only_objectives_that_are_set_are_judged(lake: Lake) -> None:
    found = evaluate(lake, (20, GOOD), (60, BASELESS), asked={"grounded": False})
    assert found.verdict == "pass"
    assert "grounded" not in found.reason
    assert found.params["objectives"] == {
        "language_match": "at least 0.9",
        "repetition": "at most 0.2",
        "refusal": "at most 0.2",
    }


def test_with_no_objective_nothing_is_known_and_the_setting_is_named(lake: Lake) -> None:
    found = evaluate(lake, (60, GOOD), asked=OFF)
    assert found.verdict == "unknown"
    assert found.reason.startswith("no objective is set: write one under [objectives], one of relevance, support, ")
    assert found.metrics["refusal.n"] == 60


def test_a_score_of_few_answers_is_not_judged(lake: Lake) -> None:
    few = evaluate(lake, (29, BASELESS), (31, REFUSED), asked=OFF | {"grounded": 0.5})
    assert few.metrics["grounded.mean"] == 0.0
    assert (few.verdict, few.reason) == ("unknown", "no score of an objective is known of 30 answers")


class Broken:
    """Scores refusals no more: every other row is unreadable."""

    name, version, source, columns, scores = "truncated", "2", "a test", ("request_id",), ()

    def score(self, batch: pa.Table) -> Sequence[Scores]:
        if any(int(name, 16) % 2 for name in batch.column("request_id").to_pylist()):
            raise ValueError("unreadable")
        return [{"truncated": False}] * batch.num_rows


def test_what_could_not_be_scored_is_unknown_and_never_hides_a_failure(tmp_path: Path) -> None:
    def judged(name: str, *groups: tuple[int, Record]) -> Finding:
        return evaluate(Lake(str(tmp_path / name)), *groups, scorers=(Broken(),), asked={"truncated": 0.5})

    found = judged("good", (60, GOOD))
    assert found.verdict == "unknown"
    assert found.reason == "answers cut off: 30 of 60 requests could not be scored; see `error` in scores"
    assert judged("bad", (30, GOOD), (30, REFUSED)).verdict == "fail"


def test_replays_that_could_not_be_scored_are_not_the_windows(lake: Lake) -> None:
    """An experiment in the same hour failed on ten answers: that is its own affair."""
    when = microseconds(NOON + timedelta(minutes=5))
    rows = pa.table(
        {"request_id": [f"replay-{number}" for number in range(10)], "received_at": pa.array([when] * 10, TIME)}
    )
    (truncated,) = (one for one in Quality().scorers(Settings(stages=Stages(embed=False))) if one.name == "truncated")
    errors = score_rows(
        rows, "truncated", [None] * 10, scorer=truncated.name, scorer_version=truncated.version, scored_at=when,
        replay=True, errors=["boom"] * 10,
    )  # fmt: skip
    lake.append("scores", errors)
    found = evaluate(lake, (60, GOOD), asked=OFF | {"truncated": 0.5})
    assert (found.verdict, found.metrics["errors"]) == ("pass", 0)


def test_the_report_has_ids_and_no_text(lake: Lake) -> None:
    secret = msgspec.structs.replace(REFUSED, prompt_text="What does Jonas Oakfield earn?")
    found = evaluate(lake, (50, GOOD), (1, secret))
    html, body = found.artifacts["report.html"], found.artifacts["report.json"]
    assert isinstance(html, str)
    assert isinstance(body, dict)
    assert "Oakfield" not in html + str(body)
    assert f"{50:032x}" in html
    assert body["worst"] == [{"score": "refusal", "value": 1.0, "request_id": f"{50:032x}"}]
