"""What pages and jobs ask: every trace on exactly one page, the row that a filter means, what is not yet scored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest

from watchkeeper.lake.interactions import DAY, evaluation_row, score_rows, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.reading import (
    EQUAL,
    PREVIEW,
    SORTABLE,
    Cursor,
    Scored,
    evaluations,
    newest_evaluations,
    scores,
    slices,
    trace,
    traces,
    unscored,
    window,
)
from watchkeeper.lake.rollup import roll_up
from watchkeeper.record import Record, Verdict

START = 20_602 * DAY
END = START + 2 * DAY
HOUR = 3_600_000_000


def record(number: int, **fields: Any) -> Record:
    at = START + number // 2 * HOUR
    return Record(request_id=f"{number:032x}", received_at=at, **fields)


def varied(number: int) -> Record:
    """Two requests an hour, with ties and gaps in everything that can be sorted by."""
    return record(
        number,
        total_ms=float(number % 4),
        ttft_ms=None if number % 3 else number / 2,
        cost_usd=number % 2 / 10,
        language=[None, "en", "de"][number % 3],
        support=None if number % 2 else 0.5,
        status=[200, 429][number % 5 == 0],
        error="over_the_limit" if number % 5 == 0 else None,
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


@pytest.fixture
def filled(lake: Lake) -> Lake:
    batch = [varied(number) for number in range(60)]
    lake.append("interactions", to_arrow(batch[:25]))
    lake.append("interactions", to_arrow(batch[25:]))
    lake.append("interactions", to_arrow([record(99, source="replay")]))
    return lake


def ids(table: pa.Table) -> list[str]:
    found: list[str] = table.column("request_id").to_pylist()
    return found


def leaf(lake: Lake, **options: Any) -> list[dict[str, Any]]:
    """All pages, one after the other."""
    found: list[dict[str, Any]] = []
    after: Cursor | None = None
    while True:
        page = traces(lake, START, END, after=after, **options)
        found += page.rows.to_pylist()
        after = page.after
        if after is None:
            return found


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("sort", SORTABLE)
def test_leafing_through_shows_every_trace_once_in_order(filled: Lake, sort: str, descending: bool) -> None:
    found = leaf(filled, limit=7, sort=sort, descending=descending)
    assert sorted(row["request_id"] for row in found) == [f"{number:032x}" for number in range(60)]
    values = [row["http_status" if sort == "status" else sort] for row in found]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=descending)
    gaps = values[len(known) :] if descending else values[: len(values) - len(known)]
    assert gaps == [None] * len(gaps), "no value sorts lowest"


def test_the_newest_are_first_and_what_arrives_meanwhile_moves_nothing(filled: Lake) -> None:
    first = traces(filled, START, END, limit=10)
    assert ids(first.rows) == [f"{number:032x}" for number in range(59, 49, -1)]
    filled.append("interactions", to_arrow([record(90)]))
    second = traces(filled, START, END, limit=10, after=first.after)
    assert ids(second.rows) == [f"{number:032x}" for number in range(49, 39, -1)]


def test_the_last_page_knows_that_it_is(filled: Lake) -> None:
    assert traces(filled, START, END, limit=60).after is None
    assert traces(filled, START, END, limit=59).after is not None
    assert traces(filled, END, END + DAY).rows.num_rows == 0


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({"status": "rejected"}, lambda n: n % 5 == 0),
        ({"status": "ok"}, lambda n: n % 5),
        ({"status": "ok", "equal": {"language": "de", "user": None}}, lambda n: n % 5 and n % 3 == 2),
        ({"equal": {"error": "over_the_limit"}}, lambda n: n % 5 == 0),
        ({"equal": {"release": "builtin@0", "tenant": "nobody"}}, lambda n: False),
        ({"text": f"{17:032x}"[:31]}, lambda n: n in range(16, 32)),
    ],
)
def test_filters(filled: Lake, options: dict[str, Any], chosen: Callable[[int], bool]) -> None:
    assert sorted(row["request_id"] for row in leaf(filled, limit=50, **options)) == [
        f"{number:032x}" for number in range(60) if chosen(number)
    ]


@pytest.mark.parametrize("name", EQUAL)
def test_every_filter_takes_any_text(filled: Lake, name: str) -> None:
    assert traces(filled, START, END, equal={name: "' OR 1=1 --"}).rows.num_rows == 0


def test_text_is_found_as_it_is_written_whatever_the_case(lake: Lake) -> None:
    batch = [
        record(1, prompt_text="Is 100% of ÉCOLE_x covered?"),
        record(2, output_text="100 percent of ecole.x"),
        record(3, prompt_text="nothing"),
    ]
    lake.append("interactions", to_arrow(batch))
    assert ids(traces(lake, START, END, text="100%").rows) == [f"{1:032x}"]
    assert ids(traces(lake, START, END, text="école_X").rows) == [f"{1:032x}"]
    assert ids(traces(lake, START, END, text="ECOLE").rows) == [f"{2:032x}"]


def test_a_page_shows_how_a_request_ended_and_cuts_long_text(lake: Lake) -> None:
    blocked = Verdict("pii", "prompt", "email", "block", 1.0, "email", "1")
    lake.append("interactions", to_arrow([record(1, status=400, finish_reason="content_filter", verdicts=(blocked,))]))
    lake.append("interactions", to_arrow([record(2, prompt_text="é" * 1000, output_text="x" * 1000)]))
    second, first = traces(lake, START, END).rows.to_pylist()
    assert (first["status"], first["http_status"], first["action"]) == ("blocked", 400, "block")
    assert (second["prompt_text"], len(second["output_text"])) == ("é" * PREVIEW, PREVIEW)


@pytest.mark.parametrize("options", [{"sort": "prompt"}, {"equal": {"prompt_text": "x"}}, {"sort": "1; DROP TABLE x"}])
def test_other_columns_are_refused(lake: Lake, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot be filtered or sorted"):
        traces(lake, START, END, **options)


@pytest.mark.parametrize("descending", [True, False])
def test_scored_requests_are_sorted_and_bounded_by_their_newest_score(filled: Lake, descending: bool) -> None:
    rows = to_arrow([varied(number) for number in range(60)])
    for version, scored_at in ((1, END), (2, END + 1)):
        values = [None if number % 7 == 0 else (number * 37 % 60) / 60 * version / 2 for number in range(60)]
        filled.append("scores", score_rows(rows, "grounded", values, scorer="q", scorer_version="1", scored_at=scored_at))
    found: list[dict[str, Any]] = []
    after: Cursor | None = None
    while True:
        scored = Scored("grounded", below=0.6, at_least=0.1)
        page = traces(filled, START, END, limit=4, after=after, sort="score", descending=descending, scored=scored)
        found += page.rows.to_pylist()
        if (after := page.after) is None:
            break
    expected = [number * 37 % 60 / 60 for number in range(60) if number % 7]
    assert [row["score"] for row in found] == sorted((v for v in expected if 0.1 <= v < 0.6), reverse=descending)
    assert len({row["request_id"] for row in found}) == len(found)


def test_only_scored_requests_can_be_sorted_by_a_score(filled: Lake) -> None:
    with pytest.raises(ValueError, match="score"):
        traces(filled, START, END, sort="score")


def test_one_trace_has_everything(lake: Lake) -> None:
    assert trace(lake, "x") is None
    blocked = Verdict("pii", "prompt", "email", "redact", 1.0, "email", "1")
    rows = to_arrow([record(1, prompt_text="é" * 1000, verdicts=(blocked,), source="replay"), record(2)])
    lake.append("interactions", rows)
    for at, version in enumerate(("1", "2")):
        lake.append("scores", score_rows(rows, "tone", ["a", "b"], scorer="t", scorer_version=version, scored_at=at))
    found = trace(lake, f"{1:032x}")
    assert found is not None
    assert found.interaction["prompt_text"] == "é" * 1000
    assert found.interaction["verdicts"][0]["category"] == "email"
    assert [(score["scorer_version"], score["label"]) for score in found.scores] == [("1", "a"), ("2", "a")]


def test_rows_are_scored_once_by_each_version_of_a_scorer(filled: Lake) -> None:
    def lacking(scorer: str, version: str, **options: Any) -> pa.Table:
        return unscored(filled, [f"{scorer}@{version}"], START, END, **options)

    first = lacking("toxicity", "1", limit=10)
    assert ids(first) == [f"{number:032x}" for number in range(10)], "oldest first"
    failed = score_rows(first, "toxicity", [None] * 10, scorer="toxicity", scorer_version="1", scored_at=0)
    filled.append("scores", failed)
    rest = lacking("toxicity", "1", columns=["request_id", "received_at"])
    assert rest.column_names == ["request_id", "received_at", "scored_by"]
    assert ids(rest) == [f"{number:032x}" for number in range(10, 60)]
    filled.append("interactions", to_arrow([record(5, user="late")]))
    assert lacking("toxicity", "2").num_rows == 61
    assert lacking("another", "1").num_rows == 61
    late = record(3, user="late")
    filled.append("interactions", to_arrow([Record(request_id="f" * 32, received_at=late.received_at)]))
    assert ids(lacking("toxicity", "1", limit=1)) == ["f" * 32], "a row that came late is not missed"


def test_of_several_scorers_each_row_says_whose_scores_it_has(filled: Lake) -> None:
    both = ["toxicity@1", "tone@2"]
    rows = unscored(filled, both, START, END, columns=["request_id", "received_at"])
    for scorer, version, stop in (("toxicity", "1", 30), ("tone", "2", 20), ("tone", "1", 60)):
        part = rows.slice(0, stop)
        for name in "xy":
            values = score_rows(part, name, [0.5] * stop, scorer=scorer, scorer_version=version, scored_at=0)
            filled.append("scores", values)
    found = unscored(filled, both, START, END, columns=["request_id"])
    assert ids(found) == [f"{number:032x}" for number in range(20, 60)]
    assert found.column("scored_by").to_pylist() == [["toxicity@1"]] * 10 + [None] * 30


def test_a_window_is_half_open_and_read_at_its_version(filled: Lake) -> None:
    version = filled.version("interactions")
    filled.append("interactions", to_arrow([record(3, user="late")]))
    found = window(filled, START, START + 2 * HOUR, ["request_id", "total_ms"], version=version)
    assert found.to_pylist() == [{"request_id": f"{n:032x}", "total_ms": float(n)} for n in range(4)]
    assert window(filled, START, START + 2 * HOUR, ["user"]).num_rows == 5
    assert window(filled, START, START + 2 * HOUR, ["user"], equal={"route": "nowhere", "model": None}).num_rows == 0
    for wrong in ({"columns": ["nonsense"]}, {"columns": ["user"], "equal": {"user": "x"}}):
        with pytest.raises(ValueError, match="no column or dimension"):
            window(filled, START, END, **wrong)


def test_scores_come_with_the_slice_of_their_request(filled: Lake) -> None:
    rows = unscored(filled, ["t@1"], START, END)
    filled.append("scores", score_rows(rows, "tone", [0.5] * 60, scorer="t", scorer_version="1", scored_at=0))
    found = scores(filled, START, START + HOUR, "t", "1")
    assert found.select(["request_id", "value", "route", "release"]).to_pylist() == [
        {"request_id": f"{number:032x}", "value": 0.5, "route": "default", "release": "builtin@0"} for number in range(2)
    ]
    assert scores(filled, START, END, "t", "2").num_rows == 0
    assert scores(filled, START, END, "t", "1", equal={"release": "other@1"}).num_rows == 0
    with pytest.raises(ValueError, match="no dimension user"):
        scores(filled, START, END, "t", "1", equal={"user": "x"})


def test_evaluations_by_job_and_over_time(lake: Lake) -> None:
    assert newest_evaluations(lake).num_rows == 0
    made: list[tuple[str, Literal["pass", "warn", "fail"]]] = [("drift", "pass"), ("toxicity", "fail"), ("drift", "warn")]
    for number, (job, verdict) in enumerate(made):
        row = evaluation_row(
            evaluation_id=f"{number}",
            job=job,
            evaluated_at=START + number * DAY,
            window_start=START,
            window_end=END,
            lake_version=1,
            n=5,
            verdict=verdict,
            metrics={},
        )
        lake.append("evaluations", row)
    newest = newest_evaluations(lake).to_pylist()
    assert [(row["job"], row["verdict"]) for row in newest] == [("drift", "warn"), ("toxicity", "fail")]
    assert evaluations(lake, START, END).column("evaluation_id").to_pylist() == ["0", "1"]
    assert evaluations(lake, START, END + 1, "drift").column("evaluation_id").to_pylist() == ["0", "2"]


def test_what_can_be_chosen_from_is_what_was_seen(lake: Lake) -> None:
    nothing: dict[str, list[str]] = {"tenant": [], "route": [], "model": [], "release": []}
    assert slices(lake, START, END) == nothing
    lake.append("rollups", roll_up([record(1, route="b"), record(1, route="a"), record(1, route="c", source="replay")]))
    assert slices(lake, START, END) == {"tenant": ["default"], "route": ["a", "b"], "model": [""], "release": ["builtin@0"]}
    assert slices(lake, END, END + DAY) == nothing
