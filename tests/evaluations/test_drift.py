"""The drift job over a real lake: what alarms, what does not, and what its report says."""

import random
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from watchkeeper.lake.interactions import microseconds, score_rows, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record
from watchkeeper_evaluations import drift_report
from watchkeeper_evaluations.case import Case, Finding
from watchkeeper_evaluations.drift import COLUMNS, Drift
from watchkeeper_evaluations.window import Window

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = Window(NOON, NOON + HOUR)
LEAVE = ["leave", "days", "holiday", "carry", "manager", "approve", "sick", "note", "parental", "contract"]
BILLS = ["invoice", "charged", "refund", "discount", "payment", "station", "plan", "price", "quarter", "bank"]
Make = Callable[[random.Random, Record], Record]


def same(rng: random.Random, record: Record) -> Record:
    return record


def changed(**fields: object) -> Make:
    import msgspec

    return lambda rng, record: msgspec.structs.replace(record, **fields)


def record(rng: random.Random, at: datetime, session: str | None, user: str | None, words: Sequence[str]) -> Record:
    prompt = " ".join(rng.choices(words, k=rng.randint(4, 9)))
    return Record(
        request_id=f"{rng.getrandbits(128):032x}",
        received_at=microseconds(at),
        session=session,
        user=user,
        prompt_text=prompt,
        output_text="the answer is " + " ".join(rng.choices(LEAVE + BILLS, k=8)),
        language=rng.choice(["en", "en", "en", "de"]),
        finish_reason=rng.choice(["stop", "stop", "length"]),
        input_tokens=len(prompt) // 4 + 20,
        output_tokens=rng.randint(5, 60),
        total_ms=rng.lognormvariate(6, 1),
        overhead_ms=rng.lognormvariate(2, 1),
        support=rng.random() if rng.random() < 0.6 else None,
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def fill(
    lake: Lake,
    start: datetime,
    *,
    n: int = 100,
    turns: int = 2,
    words: Sequence[str] = LEAVE,
    make: Make = same,
    user: str | None = None,
    seed: int = 1,
) -> list[Record]:
    rng = random.Random(f"{seed}{start}")
    rows = []
    for number in range(n):
        at = start + timedelta(seconds=30 * number)
        rows.append(make(rng, record(rng, at, f"{start:%H}-{number // turns}", user, words)))
    lake.append("interactions", to_arrow(rows))
    return rows


def judge(lake: Lake, min_n: int = 30, reference: Window | None = None) -> Finding:
    return Drift().judge(Case(lake, WINDOW, reference, None, min_n), ())


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Evidently's report, which takes seconds."""
    monkeypatch.setattr(drift_report, "draw", lambda columns, alpha: drift_report.Drawing("", {}))


@pytest.mark.usefixtures("undrawn")
def test_nothing_drifts_nothing_alarms(lake: Lake) -> None:
    fill(lake, NOON - HOUR)
    fill(lake, NOON)
    found = judge(lake)
    assert found.verdict == "pass", found.reason
    assert found.metrics["drifted"] == 0
    assert found.metrics["compared"] == found.metrics["compared_reference"] == 100


@pytest.mark.usefixtures("undrawn")
def test_another_topic_fails_and_is_named_with_its_words(lake: Lake) -> None:
    fill(lake, NOON - HOUR)
    fill(lake, NOON, words=LEAVE[:4] + BILLS)
    found = judge(lake)
    assert found.verdict == "fail"
    assert re.search(
        r"prompt_text \(AUC \d\.\d\d, p 0\.\d+; more: .*(plan|quarter|bank).*; fewer: .*(sick|note)", found.reason
    ), found.reason
    assert "output_text" not in found.reason


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("fields", "column"),
    [
        ({"language": "fr"}, "language"),
        ({"finish_reason": "content_filter"}, "finish_reason"),
        ({"support": 0.0}, "support"),
    ],
)
def test_what_changed_is_named(lake: Lake, fields: dict[str, object], column: str) -> None:
    fill(lake, NOON - HOUR)
    fill(lake, NOON, make=changed(**fields))
    found = judge(lake)
    assert found.verdict == "fail"
    assert found.reason.startswith("1 of ")
    assert column in found.reason


@pytest.mark.usefixtures("undrawn")
def test_a_busy_hour_warns_at_most(lake: Lake) -> None:
    fill(lake, NOON - HOUR)
    fill(lake, NOON, make=changed(total_ms=9000.0, overhead_ms=900.0))
    found = judge(lake)
    assert found.verdict == "warn"
    assert "total_ms" in found.reason
    assert "overhead_ms" in found.reason


@pytest.mark.usefixtures("undrawn")
def test_too_little_is_unknown(lake: Lake) -> None:
    fill(lake, NOON)
    assert "0 requests in the reference" in judge(lake).reason
    fill(lake, NOON - HOUR, turns=50)
    found = judge(lake)
    assert found.verdict == "unknown"
    assert "only 2 separate users or sessions" in found.reason


@pytest.mark.usefixtures("undrawn")
def test_one_user_for_everyone_is_not_taken_for_one_unit(lake: Lake) -> None:
    """A service account: its sessions are what is independent."""
    fill(lake, NOON - HOUR, user="svc")
    fill(lake, NOON, user="svc")
    assert judge(lake).metrics["units"] == 50


@pytest.mark.usefixtures("undrawn")
def test_a_reference_of_ones_own(lake: Lake) -> None:
    fill(lake, NOON - 5 * HOUR)
    fill(lake, NOON)
    assert judge(lake, reference=Window(NOON - 5 * HOUR, NOON - 4 * HOUR)).verdict == "pass"


@pytest.mark.usefixtures("undrawn")
def test_of_many_rows_whole_units_are_drawn(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    import watchkeeper_evaluations.drift as module

    monkeypatch.setattr(module, "MOST_ROWS", 100)
    fill(lake, NOON - HOUR, n=110)
    fill(lake, NOON, n=110)
    found = judge(lake)
    assert 30 < found.metrics["compared"] < 110
    assert found.metrics["compared"] % 2 == 0


def add_scores(lake: Lake, records: Sequence[Record], version: str, value: float) -> None:
    rows = to_arrow(records)
    rng = np.random.default_rng(1)
    for name in ("toxicity.prompt", "toxicity.output"):
        values = value + rng.random(len(records)) / 100
        scores = score_rows(rows, name, values, scorer="toxicity", scorer_version=version, scored_at=NOON)
        lake.append("scores", scores)


@pytest.mark.usefixtures("undrawn")
def test_scores_of_two_judges_are_not_compared(lake: Lake) -> None:
    """The window was scored by a new judge, the reference by both: only the new one's scores say something."""
    before, now = fill(lake, NOON - HOUR), fill(lake, NOON)
    add_scores(lake, before, "old", 0.9)
    add_scores(lake, before, "new", 0.1)
    add_scores(lake, now, "new", 0.1)
    found = judge(lake)
    assert found.verdict == "pass", found.reason
    assert found.metrics["toxicity.output.effect"] < 0.3


@pytest.mark.usefixtures("undrawn")
def test_embeddings_are_compared_where_nearly_all_rows_have_one(lake: Lake) -> None:
    def embedded(side: int) -> Make:
        vector = np.eye(384)[side].astype("<f2").tobytes()
        return lambda rng, record: changed(embedding=vector if rng.random() < 0.97 else None)(rng, record)

    fill(lake, NOON - HOUR, make=embedded(0))
    fill(lake, NOON, make=embedded(1))
    found = judge(lake)
    assert found.verdict == "fail"
    assert found.metrics["prompt_text.effect"] > 0.9


@pytest.mark.usefixtures("undrawn")
def test_a_column_that_cannot_be_compared_costs_itself_only(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    import watchkeeper_evaluations.drift as module

    def broken(*arguments: object) -> None:
        raise ValueError("no memory for this")

    monkeypatch.setattr(module, "variation", broken)
    fill(lake, NOON - HOUR)
    fill(lake, NOON, words=BILLS)
    found = judge(lake)
    body = found.artifacts["report.json"]
    assert isinstance(body, dict)
    assert found.verdict == "fail"
    assert body["left_out"]["language"] == "ValueError: no memory for this"
    assert body["left_out"]["action"] == "one value throughout"
    assert body["left_out"]["toxicity.prompt"] == "too few values"


def test_the_report_is_evidentlys_says_what_the_verdict_says_and_fetches_nothing(lake: Lake) -> None:
    def secretive(rng: random.Random, record: Record) -> Record:
        return changed(prompt_text=record.prompt_text + " oakfieldsecret")(rng, record)

    fill(lake, NOON - HOUR)
    fill(lake, NOON, words=BILLS, make=secretive)
    found = judge(lake)
    html, body = found.artifacts["report.html"], found.artifacts["report.json"]
    assert isinstance(html, str)
    assert isinstance(body, dict)
    drawn = {metric["config"]["column"]: metric["value"] for metric in body["evidently"]["metrics"]}
    judged = {column["column"]: column["adjusted_p"] for column in body["columns"]}
    assert drawn == judged
    assert set(judged) | set(body["left_out"]) == set(COLUMNS)
    for column in body["columns"]:
        detected = "detected" if column["drifted"] else "not detected"
        assert re.search(rf'Drift in column \'{column["column"]}\'"', html), column["column"]
        assert f"Data drift {detected}" in html
    assert html.count("Data drift detected") == sum(column["drifted"] for column in body["columns"])
    assert not re.search(r'<(script|link|img|iframe)[^>]+(src|href)="?http', html)
    # The word is telling, so it is named; but no prompt stands in the report.
    assert "invoice charged" not in html
    assert not any(row in html for row in lake.query("SELECT prompt_text FROM interactions").column(0).to_pylist())


def test_a_column_that_evidently_cannot_draw_is_left_out_of_its_report_only() -> None:
    rng = np.random.default_rng(0)
    good = drift_report.Column("good", "number", rng.random(50), rng.random(40), 0.5, False)
    bad = drift_report.Column("bad", "number", np.full(50, np.nan), np.full(40, np.nan), 0.5, False)
    drawing = drift_report.draw([good, bad], 0.05)
    assert set(drawing.left_out) == {"bad"}
    assert [metric["config"]["column"] for metric in drawing.json["metrics"]] == ["good"]
    assert "good" in drawing.html
    assert drift_report.draw([], 0.05).json == {}
