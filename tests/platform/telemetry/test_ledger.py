"""The ledger: it believes no side about another, names every gap, and is never `ok` when it could not ask."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from deltalake import DeltaTable

from watchkeeper import feedback
from watchkeeper.feedback import Feedback
from watchkeeper.lake.interactions import score_rows, to_arrow
from watchkeeper.lake.lake import Lake, LakeUnavailable
from watchkeeper.record import Record, encode
from watchkeeper.settings import Settings
from watchkeeper.telemetry import frames
from watchkeeper.telemetry.accounts import account
from watchkeeper.telemetry.adoption import adopt
from watchkeeper.telemetry.dead_letters import DeadLetter, DeadLetters
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.ledger import Ledger, pending, verify, watermark
from watchkeeper.telemetry.segment import Segment, reading, segments
from watchkeeper.telemetry.sinks import Dropped, LakeSink
from watchkeeper.telemetry.spool import Spool
from watchkeeper.tracking import TrackingUnavailable

Make = Callable[..., Record]
Say = Callable[..., Feedback]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "data")


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> list[str]:
    """What MLflow holds; put `away` in it and it does not answer."""
    held: list[str] = []

    class Tracking:
        def __init__(self, uri: str) -> None:
            assert uri == settings.mlflow.uri

        def trace_ids(self, experiment: str) -> Iterator[str]:
            assert experiment == settings.mlflow.experiment
            if "away" in held:
                raise TrackingUnavailable("MLflow does not answer")
            yield from held

    monkeypatch.setattr("watchkeeper.telemetry.ledger.Tracking", Tracking)
    return held


def spooled(
    settings: Settings,
    records: list[Record],
    *,
    opened: tuple[str, ...] = (),
    worker: str = "w0",
    said: tuple[Feedback, ...] = (),
) -> Segment:
    """The files of a worker that was killed: with a record of each of `records` (at least one), none of `opened`, and
    `said` before them."""

    async def fill() -> None:
        spool = Spool.open(settings.data / "draft", worker)
        for name in opened:
            spool.accept(name, 1_780_000_000_000_000)
        for record in records:
            spool.accept(record.request_id, record.received_at)
        for one in said:
            await spool.append(one)
        await asyncio.gather(*(spool.append(record) for record in records))
        shutil.copytree(settings.data / "draft" / worker, settings.spool_folder / worker)
        await spool.close()
        shutil.rmtree(settings.data / "draft")

    asyncio.run(fill())
    (segment,) = [segment for segment in segments(settings.spool_folder).segments if segment.worker == worker]
    return segment


def delivered(settings: Settings, segment: Segment, traces: list[str], *, retire: bool = False) -> None:
    """As the shipper does it."""
    traces += [name for _, name in segment.ids()[1]]
    books, dead = Deliveries(settings.data), DeadLetters(settings.data)
    books.advance("mlflow", segment.uid, segment.last)
    LakeSink(Lake(settings.lake_uri), Dropped(dead, "lake")).step(segment)
    if retire:
        books.retire(account(segment), at=1)
        segment.remove()
    books.close()
    dead.close()


def buried(settings: Settings, letter: DeadLetter) -> None:
    dead = DeadLetters(settings.data)
    dead.bury([letter])
    dead.close()


def test_an_empty_house_is_in_order_and_looking_makes_no_folder(settings: Settings, traces: list[str]) -> None:
    ledger = verify(settings)
    assert ledger.ok
    assert (ledger.served, ledger.spooled, ledger.mlflow, ledger.lake, ledger.scored) == (0, 0, 0, 0, 0)
    assert pending(settings) == ({"mlflow": 0, "lake": 0}, [])
    assert watermark(settings) is None
    assert not settings.data.exists()


@pytest.mark.parametrize("retire", [False, True])
def test_everything_delivered_is_ok_before_and_after_retirement(
    settings: Settings, traces: list[str], make_record: Make, retire: bool
) -> None:
    segment = spooled(settings, [make_record() for _ in range(5)])
    delivered(settings, segment, traces, retire=retire)
    traces.append("someone else's trace")
    ledger = verify(settings)
    assert ledger.ok, ledger
    assert (ledger.served, ledger.spooled, ledger.mlflow, ledger.lake) == (5, 5, 5, 5)
    assert ledger.pending == {"spool": 0, "mlflow": 0, "lake": 0}
    assert msgspec.json.decode(msgspec.json.encode(ledger))["sampled_out"] == 0


def test_what_is_not_delivered_yet_is_pending_and_not_missing(
    settings: Settings, traces: list[str], make_record: Make
) -> None:
    segment = spooled(settings, [make_record() for _ in range(4)], opened=("0a" * 16,))
    ledger = verify(settings)
    assert (ledger.served, ledger.spooled, ledger.mlflow, ledger.lake) == (5, 4, 0, 0)
    assert ledger.pending == {"spool": 1, "mlflow": 4, "lake": 4}
    assert ledger.missing == {"mlflow": [], "lake": []}
    assert not ledger.ok
    traces.append(segment.ids()[1][0][1])  # it has it, and the cursor has not been moved yet
    assert verify(settings).pending["mlflow"] == 3


def test_what_the_shipper_believes_delivered_and_is_not_there_is_missing_by_name(
    settings: Settings, traces: list[str], make_record: Make
) -> None:
    records = [make_record() for _ in range(3)]
    delivered(settings, spooled(settings, records), traces, retire=True)
    lost = traces.pop(1)
    shutil.rmtree(settings.lake_uri)
    ledger = verify(settings)
    assert ledger.missing == {"mlflow": [lost], "lake": sorted(record.request_id for record in records)}
    assert (ledger.mlflow, ledger.lake) == (2, 0)
    assert not ledger.ok


def test_what_is_somewhere_twice_is_doubled(settings: Settings, traces: list[str], make_record: Make) -> None:
    records = [make_record() for _ in range(3)]
    delivered(settings, spooled(settings, records), traces)
    Lake(settings.lake_uri).append("interactions", to_arrow(records[:1]))
    ledger = verify(settings)
    assert ledger.doubled == {"spool": 0, "mlflow": 0, "lake": 1}
    assert ledger.lake == 3
    assert not ledger.ok


def test_records_of_other_origin_are_neither_served_nor_doubled(
    settings: Settings, traces: list[str], make_record: Make
) -> None:
    records = [make_record() for _ in range(3)]
    delivered(settings, spooled(settings, records), traces)
    again = [msgspec.structs.replace(records[0], source="replay"), make_record(source="mlflow")]
    Lake(settings.lake_uri).append("interactions", to_arrow(again))
    assert verify(settings).ok


def test_rows_of_other_applications_count_like_the_gateways_own(
    settings: Settings, traces: list[str], make_record: Make
) -> None:
    records = [make_record(source="otlp"), make_record()]
    delivered(settings, spooled(settings, records), traces)
    ledger = verify(settings)
    assert ledger.ok, ledger
    assert (ledger.served, ledger.mlflow, ledger.lake) == (2, 2, 2)


def test_what_is_spared_or_erased_is_meant_and_missing_nowhere(
    settings: Settings, traces: list[str], make_record: Make
) -> None:
    records = [make_record() for _ in range(5)]
    delivered(settings, spooled(settings, records), traces, retire=True)
    spared, back, gone, left = (record.request_id for record in records[:4])
    books = Deliveries(settings.data)
    books.note_sampled_out([spared, back, "0e" * 16])
    books.note_erased([gone, "0f" * 16], at=1)
    traces.remove(spared)
    traces.remove(gone)
    ledger = verify(settings)
    assert ledger.unerased == {"mlflow": [], "lake": [gone]}, "it is in the lake still"
    assert not ledger.ok
    DeltaTable(f"{settings.lake_uri}/interactions").delete(f"request_id = '{gone}'")
    ledger = verify(settings)
    assert ledger.ok, ledger
    assert (ledger.served, ledger.mlflow, ledger.lake, ledger.sampled_out, ledger.erased) == (5, 3, 4, 1, 1)
    books.note_erased([left], at=2)
    books.close()
    assert verify(settings).unerased == {"mlflow": [left], "lake": [left]}


def test_a_dead_letter_is_counted_named_as_such_and_not_ok(
    settings: Settings, traces: list[str], make_record: Make
) -> None:
    records = [make_record() for _ in range(3)]
    segment = spooled(settings, records)
    delivered(settings, segment, traces)
    name = records[1].request_id
    buried(settings, DeadLetter(1, "mlflow", "HTTP 400", segment.uid, 2, name, "record", encode(records[1])))
    ledger = verify(settings)
    assert ledger.dead_lettered == 1
    assert (ledger.mlflow, ledger.lake) == (2, 3), "the trace that says so does not count as the record"
    assert ledger.missing == {"mlflow": [], "lake": []}
    assert not ledger.ok


@pytest.mark.parametrize("retire", [False, True])
def test_feedback_counts_as_no_request_anywhere(
    settings: Settings, traces: list[str], make_record: Make, make_feedback: Say, retire: bool
) -> None:
    records = [make_record() for _ in range(3)]
    said = (make_feedback(records[0].request_id), make_feedback("0c" * 16, received_at=1))
    segment = spooled(settings, records, said=said)
    assert pending(settings)[0] == {"mlflow": 3, "lake": 3}
    assert verify(settings).pending == {"spool": 0, "mlflow": 3, "lake": 3}
    assert watermark(settings) == records[0].received_at
    delivered(settings, segment, traces, retire=retire)
    letter = DeadLetter(1, "mlflow", "no trace", segment.uid, 1, said[0].request_id, "feedback", feedback.encode(said[0]))
    buried(settings, letter)
    ledger = verify(settings)
    assert ledger.ok, ledger
    assert (ledger.served, ledger.spooled, ledger.mlflow, ledger.lake, ledger.dead_lettered) == (3, 3, 3, 3, 0)


def test_an_unfinished_request_is_pending_whatever_was_said_of_it(
    settings: Settings, traces: list[str], make_record: Make, make_feedback: Say
) -> None:
    opened = "0a" * 16
    spooled(settings, [make_record()], opened=(opened,), said=(make_feedback(opened),))
    assert verify(settings).pending["spool"] == 1
    assert watermark(settings) == 1_780_000_000_000_000


def test_who_cannot_be_asked_is_none_and_never_ok(settings: Settings, traces: list[str], make_record: Make) -> None:
    delivered(settings, spooled(settings, [make_record()]), traces)
    traces.append("away")
    ledger = verify(settings)
    assert ledger.mlflow is None
    assert ledger.lake == 1
    assert ledger.errors == ["MLflow does not answer"]
    assert not ledger.ok


def test_a_lake_that_cannot_be_read_is_none_and_says_why_once(
    settings: Settings, traces: list[str], make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered(settings, spooled(settings, [make_record()]), traces)

    def away(*arguments: object, **options: object) -> None:
        raise LakeUnavailable("the store is away")

    monkeypatch.setattr(Lake, "transaction_version", away)
    monkeypatch.setattr(Lake, "query", away)
    ledger = verify(settings)
    assert (ledger.lake, ledger.scored, ledger.mlflow) == (None, None, 1)
    assert ledger.errors == ["the store is away"]
    assert not ledger.ok


def test_a_segment_that_cannot_be_read_is_named(settings: Settings, traces: list[str], make_record: Make) -> None:
    delivered(settings, spooled(settings, [make_record()], worker="w1"), traces)
    torn = spooled(settings, [make_record() for _ in range(20)]).path
    adopt(torn.parent)
    os.truncate(torn, 5_000)
    ledger = verify(settings)
    assert ledger.unreadable == [str(torn)]
    assert ledger.served == ledger.mlflow == 1
    assert not ledger.ok
    assert pending(settings) == ({"mlflow": 0, "lake": 0}, [str(torn)])


def test_scored_counts_requests_that_were_served(settings: Settings, traces: list[str], make_record: Make) -> None:
    records = [make_record() for _ in range(3)]
    delivered(settings, spooled(settings, records), traces)
    lake = Lake(settings.lake_uri)
    rows = to_arrow([records[0], records[1], make_record(source="mlflow")])
    for name in ("toxicity", "insult"):
        scores = score_rows(rows, name, [0.1, 0.2, 0.3], scorer="toxicity", scorer_version="1", scored_at=1)
        lake.append("scores", scores)
    assert verify(settings).scored == 2


def test_the_watermark_is_the_oldest_request_that_the_lake_may_lack(
    settings: Settings, traces: list[str], make_record: Make
) -> None:
    records = [make_record(received_at=1_785_000_000_000_000 + number) for number in (30, 10, 20)]
    segment = spooled(settings, records)
    assert watermark(settings) == 1_785_000_000_000_010
    dead = DeadLetters(settings.data)
    sink = LakeSink(Lake(settings.lake_uri), Dropped(dead, "lake"), limit=2)
    sink.step(segment)
    assert watermark(settings) == 1_785_000_000_000_020
    sink.step(segment)
    dead.close()
    assert watermark(settings) is None
    spooled(settings, [make_record()], opened=("0b" * 16,), worker="w1")
    assert watermark(settings) == 1_780_000_000_000_000, "under way"


@pytest.mark.parametrize("retire", [False, True])
def test_lost_numbers_are_named_though_nobody_else_would_miss_them(
    settings: Settings, traces: list[str], make_record: Make, retire: bool
) -> None:
    segment = spooled(settings, [make_record() for _ in range(9)])
    data = segment.path.read_bytes()
    with reading(segment.path) as file:
        kept = [data[head.offset : head.end] for head in file.heads() if head.sequence not in (4, 5, 7)]
    rest = b"".join(kept)
    segment.path.write_bytes(data[: frames.HEAD_BYTES] + frames.mark(frames.START + len(rest)) + rest)
    delivered(settings, segment, traces, retire=retire)
    ledger = verify(settings)
    assert (ledger.served, ledger.spooled, ledger.mlflow, ledger.lake) == (6, 6, 6, 6)
    assert not ledger.ok
    assert ledger.gaps == [
        "w0/1.log: accepts 4 to 5 are missing",
        "w0/1.log: accept 7 is missing",
        "w0/1.log: rows 4 to 5 are missing",
        "w0/1.log: row 7 is missing",
    ]


def test_by_hour_each_count_stands_where_the_request_was_accepted(
    settings: Settings, traces: list[str], make_record: Make
) -> None:
    noon = 1_790_000_000_000_000 // 3_600_000_000 * 3_600_000_000
    at = [noon + 1, noon + 2, noon + 3_600_000_000, noon + 3_600_000_001, noon + 7_200_000_000]
    fields: list[dict[str, Any]] = [{}, {"error": "upstream_timeout", "status": 504}, {}, {}, {}]
    records = [make_record(received_at=time, **field) for time, field in zip(at, fields, strict=True)]
    segment = spooled(settings, records)
    delivered(settings, segment, traces, retire=True)
    names = [record.request_id for record in records]
    buried(settings, DeadLetter(1, "mlflow", "HTTP 400", segment.uid, 1, names[0], "record", b""))
    books = Deliveries(settings.data)
    books.note_sampled_out([names[2]])
    traces.remove(names[2])
    books.close()
    rows = score_rows(to_arrow(records[3:4]), "toxicity", [0.1], scorer="toxicity", scorer_version="1", scored_at=1)
    Lake(settings.lake_uri).append("scores", rows)
    assert verify(settings).hours is None
    hours = verify(settings, by_hour=True).hours
    assert hours is not None
    counted = [msgspec.structs.astuple(hour) for hour in hours]
    #                               accepted answered spooled mlflow lake scored dead sampled erased
    assert counted == [
        ("2026-09-21T14:00Z", 2, 1, 2, 1, 2, 0, 1, 0, 0),
        ("2026-09-21T15:00Z", 2, 2, 2, 1, 2, 1, 0, 1, 0),
        ("2026-09-21T16:00Z", 1, 1, 1, 1, 1, 0, 0, 0, 0),
    ]
    traces.append("away")
    away = verify(settings, by_hour=True).hours
    assert away is not None
    assert [hour.mlflow for hour in away] == [None, None, None]


WHOLE = Ledger(
    served=5,
    spooled=5,
    mlflow=5,
    lake=5,
    scored=0,
    dead_lettered=0,
    sampled_out=0,
    erased=0,
    expired={"mlflow": 0, "lake": 0},
    pending={"spool": 0, "mlflow": 0, "lake": 0},
    missing={"mlflow": [], "lake": []},
    unerased={"mlflow": [], "lake": []},
    doubled={"spool": 0, "mlflow": 0, "lake": 0},
    gaps=[],
    unreadable=[],
    errors=[],
)


@pytest.mark.parametrize(
    "flaw",
    [
        {"served": 6},
        {"spooled": 4},
        {"mlflow": 4},
        {"mlflow": None},
        {"lake": 4},
        {"pending": {"lake": 1}},
        {"missing": {"mlflow": ["0" * 32]}},
        {"doubled": {"spool": 1}},
        {"unerased": {"lake": ["0" * 32]}},
        {"sampled_out": 1},
        {"erased": 1},
        {"expired": {"mlflow": 0, "lake": 1}},
        {"gaps": ["worker w0: row 3 is missing"]},
        {"unreadable": ["1.log"]},
        {"errors": ["the scores cannot be read"]},
    ],
)
def test_any_flaw_at_all_is_not_ok(flaw: dict[str, Any]) -> None:
    assert WHOLE.ok
    assert not msgspec.structs.replace(WHOLE, **flaw).ok
