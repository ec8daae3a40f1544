"""Which requests of a real lake a filter picks: exactly those that the same question in Python picks."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from watchkeeper.lake.interactions import microseconds, score_rows, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.tables import FEEDBACK
from watchkeeper.record import Message, Record, Verdict
from watchkeeper.settings import Settings
from watchkeeper_evaluations.dataset import DatasetError, FilterError, Taken, from_requests, from_traces
from watchkeeper_evaluations.window import Window

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
DAY = Window(NOON, NOON + timedelta(days=1))
FLAG = Verdict("toxicity", "output", "toxicity", "flag", 0.6, "model", "1")


def record(number: int, **fields: Any) -> Record:
    asked = f"Question {number}"
    given = {"prompt": (Message("user", asked),), "prompt_text": asked, "output_text": f"Answer {number}", **fields}
    at = microseconds(NOON + timedelta(minutes=20 * number))
    return Record(request_id=f"{number:032x}", received_at=at, **given)


RECORDS = [
    record(0, release="watchkeeper@1", support=0.2, verdicts=(FLAG,), tags={"kind": "billing"}, session="s-1", stream=True),
    record(1, release="watchkeeper@1", support=0.9, tags={"kind": "it's"}, total_ms=10.0),
    record(2, release="watchkeeper@2", support=None, error="upstream_unavailable", status=503),
    record(3, release="watchkeeper@2", finish_reason="content_filter", status=400, output_text="", tags={"a.b": "x"}),
    record(4, output_text="A Refund? 100% of it_", status=429, error="rate_limit_exceeded"),
    record(5, user="", language="de", total_ms=20.0),
    record(90),  # after the window
    record(-1),  # before it
    record(6, source="replay"),
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Requests, scored twice (the newest counts), and what people said of two of them."""
    settings = Settings(data=tmp_path_factory.mktemp("data"))
    lake = Lake(settings.lake_uri)
    rows = to_arrow(RECORDS)
    lake.append("interactions", rows)

    def score(name: str, values: list[Any], day: int, *, which: slice = slice(0, 9), replay: bool = False) -> None:
        table = rows.slice(which.start, which.stop - which.start)
        scored = score_rows(
            table, name, values, scorer="s", scorer_version=str(day), scored_at=NOON + timedelta(days=day), replay=replay
        )
        lake.append("scores", scored)

    score("grounded", [True] * 9, 1)
    score("grounded", [False, True, None, True, True, False, False, False, False], 2)
    score("relevance", [0.1, 0.9, 0.5], 1, which=slice(0, 3))
    score("relevance", [0.95], 3, which=slice(0, 1), replay=True)
    score("support", [0.7], 1, which=slice(0, 1))
    score("mood", ["glad", "sad"], 1, which=slice(0, 2))

    def said(number: int, hours: int, score: float | None, label: str | None) -> dict[str, Any]:
        at = NOON + timedelta(hours=hours)
        return {"date": at.date(), "feedback_id": f"{number}-{hours}", "request_id": f"{number:032x}", "received_at": at,
                "name": "user", "score": score, "label": label}  # fmt: skip

    people = [said(0, 1, 1.0, None), said(0, 30, 0.0, None), said(1, 1, 0.0, None), said(1, 2, None, "great")]
    lake.append("feedback", pa.Table.from_pylist(people, schema=pa.schema([f for f in FEEDBACK if f.name in people[0]])))
    return settings


def numbers(taken: Taken) -> list[int]:
    return sorted(int(str(case.request_id), 16) for case in taken.cases)


PICKED: list[tuple[str, list[int]]] = [
    ("", [0, 1, 2, 3, 4, 5]),
    ("release = watchkeeper@1", [0, 1]),
    ("release != watchkeeper@1", [2, 3, 4, 5]),
    ("release ~ WATCHKEEPER and release !~ @2", [0, 1]),
    ("support < 0.5", [0]),
    ("support >= 0.2", [0, 1]),
    ("support != 0.2", [1, 2, 3, 4, 5]),
    ("support = none", [2, 3, 4, 5]),
    ("action = flag", [0]),
    ("status = error", [2]),
    ("status = blocked", [3]),
    ("status = rejected", [4]),
    ("http_status = 503", [2]),
    ("error = none", [0, 1, 3, 5]),
    ("error != none", [2, 4]),
    ("user = none", [0, 1, 2, 3, 4, 5]),
    ("tag.kind = billing", [0]),
    ("tag.kind = 'it''s'", [1]),
    ("tag.a.b = x", [3]),
    ("tag.kind != billing", [1, 2, 3, 4, 5]),
    ("tag.nothing = none", [0, 1, 2, 3, 4, 5]),
    ("text ~ refund", [4]),
    ("text ~ '100% of it_'", [4]),
    ("text ~ '%'", [4]),
    ("text !~ question", []),
    ("prompt ~ refund", []),
    ("prompt ~ 'question 5'", [5]),
    ("output = none", [3]),
    ("stream = true", [0]),
    ("stream = false and language = de", [5]),
    ("total_ms > 9 and total_ms < 2e1", [1]),
    ("session = s-1", [0]),
    (f"request_id = {3:032x}", [3]),
    ("grounded = false", [0, 5]),
    ("grounded = true", [1, 3, 4]),
    ("grounded != true", [0, 2, 5]),
    ("grounded = none", [2]),
    ("relevance < 0.5", [0]),
    ("relevance = none", [3, 4, 5]),
    ("score.support > 0.5", [0]),
    ("mood = sad", [1]),
    ("mood != sad", [0, 2, 3, 4, 5]),
    ("feedback < 0.5", [0]),
    ("feedback = great", [1]),
    ("feedback = none", [2, 3, 4, 5]),
    ("grounded = false and release = watchkeeper@1 and relevance < 0.5 and feedback = 0", [0]),
    ('text ~ "x\' OR 1=1 --"', []),
]


@pytest.mark.parametrize(("text", "expected"), PICKED)
def test_a_filter_picks_the_requests_that_it_means(settings: Settings, text: str, expected: list[int]) -> None:
    taken = from_traces(settings, text, DAY)
    assert numbers(taken) == expected
    assert taken.matched == len(expected)


def test_what_is_wrong_with_a_filter_names_the_scores_of_the_window(settings: Settings) -> None:
    with pytest.raises(FilterError, match=r"scores: grounded, mood, relevance, support$"):
        from_traces(settings, "groundet = false", DAY)


def test_a_limit_takes_the_newest_and_a_sample_is_the_same_each_time(settings: Settings) -> None:
    taken = from_traces(settings, "", DAY, limit=2)
    assert (numbers(taken), taken.matched) == ([4, 5], 6)
    samples = {seed: numbers(from_traces(settings, "", DAY, limit=3, seed=seed)) for seed in range(8)}
    assert all(samples[seed] == numbers(from_traces(settings, "", DAY, limit=3, seed=seed)) for seed in samples)
    assert len({tuple(sample) for sample in samples.values()}) > 3


def test_requests_by_id_are_from_any_time_but_never_replays(settings: Settings) -> None:
    ids = [f"tr-{90:032x}", f"{0:032X}", "", f"{0:032x}", f"{6:032x}", f"{7:032x}"]
    taken = from_requests(settings, ids)
    assert numbers(taken) == [0, 90]
    assert (taken.matched, taken.left_out) == (4, {"replay": 1, "not_found": 1})
    with pytest.raises(DatasetError, match="32 hex digits, not 'nonsense'"):
        from_requests(settings, ["nonsense"])


def test_an_empty_lake_has_nothing(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    assert from_traces(settings, "support < 0.5", DAY) == Taken(cases=[], matched=0, left_out={})
    assert from_requests(settings, []) == Taken(cases=[], matched=0, left_out={})


def test_what_cannot_be_a_case_is_counted(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    tool = (Message("user", "Hi"), Message("tool", "3"), Message("user", "And?"))
    records = [
        record(0),
        record(1, prompt=(), prompt_text=""),
        record(2, prompt=(), prompt_text=""),
        record(3, prompt=tool),
    ]
    Lake(settings.lake_uri).append("interactions", to_arrow(records))
    taken = from_traces(settings, "", DAY)
    assert (len(taken.cases), taken.matched, taken.left_out) == (1, 4, {"no_text": 2, "tools": 1})
