"""Rollups say what the raw rows say: sums exactly, percentiles within 2%, however the batches were cut."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watchkeeper.lake.interactions import DAY, score_rows, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import LATENCIES, STATUS_SQL, Rollups, merge, roll_up, roll_up_scores, status_of
from watchkeeper.lake.tables import ROLLUPS
from watchkeeper.record import ACTIONS, STAGES, Record, Stage, Verdict

START = 20_602 * DAY
"""A midnight (UTC), in microseconds."""
MINUTE = 60_000_000

amount = st.floats(0.01, 1e6)
stages = st.lists(
    st.builds(
        Stage,
        name=st.sampled_from(STAGES),
        offset_ms=st.just(0.0),
        ms=amount,
        status=st.sampled_from(["ok", "degraded", "skipped"]),
    ),
    max_size=3,
)
verdicts = st.lists(
    st.builds(
        Verdict,
        guard=st.just("g"),
        target=st.just("prompt"),
        category=st.sampled_from(["pii", "violence"]),
        action=st.sampled_from(ACTIONS),
        score=st.none(),
        rule=st.just("r"),
        version=st.just("1"),
    ),
    max_size=2,
)
records = st.builds(
    Record,
    request_id=st.just("x"),
    received_at=st.integers(START, START + 20 * MINUTE),
    route=st.sampled_from(["a", "b"]),
    model=st.sampled_from(["m", "n"]),
    status=st.sampled_from([200, 400, 429, 499, 500]),
    error=st.sampled_from([None, "content_filter", "broken"]),
    finish_reason=st.sampled_from([None, "stop", "content_filter"]),
    input_tokens=st.integers(0, 2**40),
    output_tokens=st.integers(0, 9),
    cost_usd=st.integers(0, 9).map(lambda cents: cents / 100),
    total_ms=amount,
    overhead_ms=amount,
    ttft_ms=st.none() | amount,
    stages=stages.map(tuple),
    verdicts=verdicts.map(tuple),
    source=st.sampled_from(["gateway", "otlp", "replay"]),
)


def reading(partials: pa.Table, **slices: Any) -> Rollups:
    """What a reader makes of partial rows, without a lake between."""
    kept = partials.filter(pa.compute.not_equal(partials.column("source"), "replay"))
    return Rollups(kept, START, START + 30 * MINUTE, 300)


def said(rollups: Rollups) -> dict[str, Any]:
    """All that can be read."""
    return {
        "n": rollups.n.tolist(),
        "tokens": rollups.tokens.tolist(),
        "cost": rollups.cost.round(6).tolist(),
        **{
            which: {k: v.tolist() for k, v in rollups.counts(which).items()}
            for which in ("statuses", "actions", "categories")
        },
        **{f"{name} {q}": str(rollups.percentile_series(name, q)) for name in LATENCIES for q in (0.5, 0.95)},
        **{f"{name} mean": str(rollups.score_mean(name)) for name in rollups.score_names},
    }


@settings(max_examples=40, deadline=None)
@given(st.lists(records, max_size=12), st.lists(records, max_size=12))
def test_partial_rows_add_up(a: list[Record], b: list[Record]) -> None:
    together, apart = roll_up(a + b), pa.concat_tables([roll_up(a), roll_up(b)])
    assert together.schema == apart.schema == ROLLUPS
    assert said(reading(apart)) == said(reading(together))
    merged = merge(apart)
    assert merged.schema == ROLLUPS
    assert merged.num_rows == together.num_rows
    assert said(reading(merged)) == said(reading(together))


@settings(max_examples=60, deadline=None)
@given(st.lists(amount, min_size=1, max_size=300), st.floats(0, 1))
def test_percentiles_are_at_most_two_percent_off(values: list[float], q: float) -> None:
    partials = roll_up([Record(request_id="x", received_at=START, total_ms=value) for value in values])
    exact = np.quantile(values, q, method="inverted_cdf")
    assert Rollups(partials, START, START + 1, 300).percentile("total", q) == pytest.approx(exact, rel=0.02)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(records, max_size=12))
def test_counts_are_those_of_the_records(batch: list[Record]) -> None:
    live = [record for record in batch if record.source != "replay"]
    rollups = reading(roll_up(batch))
    assert rollups.n.sum() == len(live)
    assert rollups.input_tokens.sum() == sum(record.input_tokens for record in live)
    statuses = {name: int(series.sum()) for name, series in rollups.counts("statuses").items()}
    assert statuses == {s: sum(status_of(r) == s for r in live) for s in ("ok", "blocked", "error", "rejected")}
    actions = rollups.counts("actions")
    assert {name: int(series.sum()) for name, series in actions.items()} == {
        action: sum(record.action == action for record in live) for action in {record.action for record in live}
    }
    hit = [r for r in live if any(v.category == "pii" and v.action in ("flag", "redact", "block") for v in r.verdicts)]
    assert rollups.counts("categories").get("pii", np.zeros(1)).sum() == len(hit)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, "ok"),
        ({"finish_reason": "length"}, "ok"),
        ({"status": 400, "finish_reason": "content_filter"}, "blocked"),
        ({"status": 200, "finish_reason": "content_filter"}, "blocked"),
        ({"status": 400, "error": "content_filter"}, "blocked"),
        ({"status": 429, "error": "over_the_limit"}, "rejected"),
        ({"status": 404, "error": "unknown_model"}, "rejected"),
        ({"status": 499, "error": "disconnected"}, "error"),
        ({"status": 200, "error": "upstream_broke_off", "finish_reason": "error"}, "error"),
        ({"status": 503, "error": "upstream_unavailable"}, "error"),
        ({"status": 0, "error": "interrupted"}, "error"),
    ],
)
def test_how_a_request_ended(tmp_path: Any, fields: dict[str, Any], status: str) -> None:
    record = Record(request_id="x", received_at=START, **fields)
    assert status_of(record) == status
    lake = Lake(str(tmp_path))
    lake.append("interactions", to_arrow([record]))
    assert lake.query(f"SELECT {STATUS_SQL} AS status FROM interactions").column(0).to_pylist() == [status]


def test_rejected_requests_do_not_make_the_service_look_fast() -> None:
    served = [Record(request_id="x", received_at=START, total_ms=1000.0)] * 5
    refused = [Record(request_id="x", received_at=START, total_ms=1.0, status=429, error="over_the_limit")] * 95
    rollups = reading(roll_up([*served, *refused]))
    assert rollups.percentile("total", 0.5) == pytest.approx(1000, rel=0.02)
    assert rollups.n[0] == 100


def test_what_is_no_number_is_left_out() -> None:
    batch = [Record(request_id="x", received_at=START, total_ms=value) for value in (float("nan"), float("inf"), 5.0)]
    assert reading(roll_up(batch)).percentile("total", 1.0) == pytest.approx(5, rel=0.02)


@pytest.fixture
def lake(tmp_path: Any) -> Lake:
    """Ten minutes before and two hours after midnight, a request a minute; the routes take turns; one replay."""
    lake = Lake(str(tmp_path))
    batch = [
        Record(request_id=f"{minute}", received_at=START + minute * MINUTE, route="ab"[minute % 2], total_ms=10.0 + minute)
        for minute in range(-10, 120)
    ]
    lake.append("rollups", roll_up(batch[:60]))
    lake.append("rollups", roll_up(batch[60:]))
    lake.append("rollups", roll_up([Record(request_id="again", received_at=START, source="replay")]))
    return lake


def test_a_stretch_is_read_in_buckets(lake: Lake) -> None:
    rollups = Rollups.read(lake, START, START + 60 * MINUTE, bucket_s=600)
    assert rollups.times.tolist() == (np.datetime64(START, "us") + np.arange(6) * np.timedelta64(600, "s")).tolist()
    assert rollups.n.tolist() == [10] * 6
    assert rollups.percentile_series("total", 1.0) == pytest.approx([19, 29, 39, 49, 59, 69], rel=0.02)
    assert rollups.percentile("total", 0.5) == pytest.approx(39, rel=0.02)


def test_five_minutes_that_hold_the_start_count_whole_and_the_end_is_left_out(lake: Lake) -> None:
    rollups = Rollups.read(lake, START + 7 * MINUTE, START + 15 * MINUTE)
    assert rollups.times.tolist() == (np.datetime64(START, "us") + np.array([5, 10]) * np.timedelta64(60, "s")).tolist()
    assert rollups.n.tolist() == [5, 5]


def test_buckets_start_at_their_multiples(lake: Lake) -> None:
    rollups = Rollups.read(lake, START + 20 * MINUTE, START + 120 * MINUTE, bucket_s=3600)
    assert rollups.times[0] == np.datetime64(START, "us")
    assert rollups.n.tolist() == [40, 60], "what lies before the start is not there"


def test_a_slice_is_read_alone(lake: Lake) -> None:
    only = Rollups.read(lake, START - 10 * MINUTE, START + 120 * MINUTE, route="a", release="builtin@0")
    assert only.n.sum() == 65
    assert Rollups.read(lake, START, START + 60 * MINUTE, model="another").n.sum() == 0


def test_an_empty_stretch_has_its_buckets_and_no_answers(tmp_path: Any) -> None:
    rollups = Rollups.read(Lake(str(tmp_path)), START, START + 10 * MINUTE)
    assert rollups.n.tolist() == rollups.tokens.tolist() == [0, 0]
    assert np.isnan(rollups.percentile("total", 0.95))
    assert np.isnan(rollups.percentile_series("ground", 0.95)).tolist() == [True, True]
    statuses = rollups.counts("statuses")
    assert list(statuses) == ["ok", "blocked", "error", "rejected"]
    assert all(series.tolist() == [0, 0] for series in statuses.values())
    assert rollups.counts("categories") == {}
    assert rollups.score_names == ()
    assert Rollups.read(Lake(str(tmp_path)), START, START).times.size == 0


@pytest.mark.parametrize("bucket_s", [0, -300, 60, 450])
def test_a_bucket_is_a_multiple_of_five_minutes(lake: Lake, bucket_s: int) -> None:
    with pytest.raises(ValueError, match="multiple of 300"):
        Rollups.read(lake, START, START + 1, bucket_s=bucket_s)


def test_wrong_questions_are_told_so(lake: Lake) -> None:
    rollups = Rollups.read(lake, START, START + MINUTE)
    with pytest.raises(ValueError, match="no latency 'totl'"):
        rollups.percentile("totl", 0.5)
    with pytest.raises(ValueError, match="share in"):
        rollups.percentile("total", 95)


def test_scores_are_rolled_up_into_the_slices_of_their_requests() -> None:
    served = to_arrow(
        [
            Record(request_id="a", received_at=START, route="a"),
            Record(request_id="b", received_at=START + MINUTE, route="b"),
            Record(request_id="c", received_at=START + 6 * MINUTE, route="a"),
        ]
    )
    toxic = score_rows(served, "toxicity", [0.1, 0.5, None], scorer="t", scorer_version="1", scored_at=START)
    polite = score_rows(served, "polite", [True, False, True], scorer="p", scorer_version="1", scored_at=START)
    tone = score_rows(served, "tone", ["warm"] * 3, scorer="p", scorer_version="1", scored_at=START)
    partials = roll_up_scores(pa.concat_tables([toxic, polite, tone]), served)
    assert set(partials.column("part").to_pylist()) == {"scores"}
    assert set(zip(partials.column("route").to_pylist(), partials.column("n").to_pylist(), strict=True)) == {
        ("a", 0),
        ("b", 0),
    }
    rollups = reading(partials)
    assert rollups.score_names == ("polite", "toxicity")
    assert rollups.score_counts("toxicity").shape == (6, 50)
    assert rollups.score_mean("toxicity")[0] == pytest.approx(0.31)
    assert rollups.score_share("toxicity", 0.5)[0] == 0.5
    assert np.isnan(rollups.score_mean("toxicity")[1]), "the third could not be scored"
    assert rollups.score_share("polite", 1.0)[:2].tolist() == [0.5, 1.0]
    assert said(reading(merge(pa.concat_tables([partials, partials]))))["polite mean"] == str(rollups.score_mean("polite"))


def test_a_score_of_a_request_that_was_not_given_is_an_error() -> None:
    served = to_arrow([Record(request_id="a", received_at=START)])
    scores = score_rows(served, "toxicity", [0.1], scorer="t", scorer_version="1", scored_at=START)
    with pytest.raises(KeyError):
        roll_up_scores(scores, served.slice(1))


def test_a_chart_reads_the_latencies_that_it_shows(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    one = Record(request_id="1", received_at=START, total_ms=8.0, stages=(Stage("route", 0, 2.0), Stage("embed", 2, 4.0)))
    lake.append("rollups", roll_up([one]))
    some = Rollups.read(lake, START, START + MINUTE, latencies=("embed",), scores=False)
    assert some.n.tolist() == [1]
    assert some.percentile("embed", 0.5) == pytest.approx(4, rel=0.02)
    with pytest.raises(ValueError, match="latency route was not read"):
        some.percentile("route", 0.5)
    with pytest.raises(ValueError, match="scores were not read"):
        some.score_mean("toxicity")
    with pytest.raises(ValueError, match="there is no latency nonsense"):
        Rollups.read(lake, START, START + MINUTE, latencies=("nonsense",))


def test_rows_from_before_there_were_parts_count_beside_those_since(tmp_path: Path) -> None:
    """Then one row held a cell whole: all latencies in one list, beside the counts."""
    batch = [Record(request_id="1", received_at=START, total_ms=8.0, overhead_ms=1.0, ttft_ms=3.0)]
    parts = roll_up(batch)
    counts = parts.filter(pc.equal(parts.column("part"), "counts"))
    lists = pc.list_flatten(parts.column("latency"))
    whole = pa.ListArray.from_arrays(pa.array([0, len(lists)], pa.int32()), lists.combine_chunks())
    place = counts.column_names.index("latency")
    old = counts.set_column(place, counts.schema.field("latency"), whole).drop_columns(["part"])
    write_deltalake(f"{tmp_path}/rollups", old, partition_by=["date"])
    lake = Lake(str(tmp_path))
    lake.append("rollups", parts)
    lake.rewrite("rollups", date(2026, 5, 29), lambda rows: rows)
    for _ in range(2):
        read = Rollups.read(lake, START, START + MINUTE, latencies=("total",))
        assert read.n.tolist() == [2]
        assert read.percentile("total", 1) == pytest.approx(8, rel=0.02)
        lake.rewrite("rollups", date(2026, 5, 29), merge)
    rows = lake.query("SELECT part, n FROM rollups ORDER BY part").to_pylist()
    assert [row["part"] for row in rows] == ["counts", "overhead", "total", "ttft"]
    assert [row["n"] for row in rows] == [2, 0, 0, 0]
