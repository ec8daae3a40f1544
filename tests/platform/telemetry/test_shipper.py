"""The shipper: everything everywhere, once, however often it is killed and whoever is away."""

import asyncio
import contextlib
import fcntl
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record, Verdict
from watchkeeper.settings import Mlflow, Settings
from watchkeeper.telemetry import frames
from watchkeeper.telemetry.adoption import adopt
from watchkeeper.telemetry.dead_letters import DeadLetters
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.ledger import verify
from watchkeeper.telemetry.mlflow_sink import MlflowSink
from watchkeeper.telemetry.segment import reading, segments
from watchkeeper.telemetry.shipper import Feed, Shipper, ShipperStatus, ship
from watchkeeper.telemetry.sinks import Dropped, LakeSink, Sink, Tray
from watchkeeper.telemetry.spool import Spool
from watchkeeper.tracking import server_command

Make = Callable[..., Record]
FakeMlflow = Any
"""The fixture's; test modules cannot import their conftest."""


def fill(settings: Settings, worker: str, records: list[Record], *, segment_bytes: int = 10_000) -> None:
    async def run() -> None:
        spool = Spool.open(settings.spool_folder, worker, segment_bytes=segment_bytes)
        for record in records:
            spool.accept(record.request_id, record.received_at)
            await spool.append(record)
        await spool.close()

    asyncio.run(run())


def leave_behind(settings: Settings, worker: str, finished: list[Record], open_ids: list[str]) -> None:
    """What a worker leaves that is killed: its files as they were at that moment."""

    async def run() -> None:
        draft = settings.data / "draft"
        spool = Spool.open(draft, worker)
        for name in open_ids:
            spool.accept(name, 1_790_000_000_000_000)
        for record in finished:
            await spool.append(record)
        shutil.copytree(draft / worker, settings.data / "left")
        await spool.close()
        shutil.rmtree(draft)
        settings.spool_folder.mkdir(exist_ok=True)
        (settings.data / "left").rename(settings.spool_folder / worker)

    asyncio.run(run())


@pytest.fixture
def settings(tmp_path: Path, fake_mlflow: FakeMlflow) -> Settings:
    return Settings(data=tmp_path, mlflow=Mlflow(uri=fake_mlflow.url))


def shipper(settings: Settings, deliveries: Deliveries, dead: DeadLetters, stop: threading.Event | None = None) -> Shipper:
    sinks: list[Sink] = [
        MlflowSink(settings.mlflow.uri, lambda: "7", deliveries, Dropped(dead, "mlflow")),
        LakeSink(Lake(settings.lake_uri), Dropped(dead, "lake")),
    ]
    return Shipper(settings, sinks, deliveries, dead, stop or threading.Event(), rng=random.Random(1))


def in_lake(settings: Settings) -> Counter[str]:
    names: list[str] = Lake(settings.lake_uri).query("SELECT request_id FROM interactions").column(0).to_pylist()
    return Counter(names)


def status(settings: Settings) -> ShipperStatus:
    return msgspec.json.decode((settings.data / "shipper.json").read_bytes(), type=ShipperStatus)


def test_once_brings_everything_everywhere_and_leaves_only_the_books(
    settings: Settings, fake_mlflow: FakeMlflow, deliveries: Deliveries, dead: DeadLetters, make_record: Make
) -> None:
    records = [make_record() for _ in range(60)]
    fill(settings, "w0", records[:40])
    fill(settings, "w1", records[40:])
    assert len(segments(settings.spool_folder).segments) > 4
    assert shipper(settings, deliveries, dead).run(once=True) == 0
    ids = {record.request_id for record in records}
    assert fake_mlflow.traces.keys() == ids
    assert in_lake(settings) == Counter(ids)
    assert segments(settings.spool_folder).segments == (), "what every sink has is gone"
    kept = list(deliveries.retired())
    assert {name for one in kept for name in one.accepted} == ids
    assert sorted(name for one in kept for name in one.spooled) == sorted(ids), "each once"
    sinks = status(settings).sinks
    assert {name: (sink.delivered, sink.pending, sink.lag_s, sink.error) for name, sink in sinks.items()} == {
        "mlflow": (60, 0, None, None),
        "lake": (60, 0, None, None),
    }


def test_what_was_delivered_is_kept_up_now_and_then(settings: Settings, deliveries: Deliveries, dead: DeadLetters) -> None:
    now, done = [0.0], [0]

    def upkeep() -> None:
        done[0] += 1

    keeper = Shipper(settings, [], deliveries, dead, threading.Event(), clock=lambda: now[0], upkeep=upkeep)
    for at, times in ((0.0, 0), (29.0, 0), (31.0, 1), (32.0, 1), (62.0, 2)):
        now[0] = at
        keeper.tidy()
        assert done == [times], at


def test_a_dead_worker_is_adopted_and_what_it_left_open_is_on_record_once(
    settings: Settings, fake_mlflow: FakeMlflow, deliveries: Deliveries, dead: DeadLetters, make_record: Make
) -> None:
    done, cut_off = make_record(), "c0" * 16
    leave_behind(settings, "w0", [done], [done.request_id, cut_off])
    for _ in range(2):
        assert shipper(settings, deliveries, dead).run(once=True) == 0
    assert in_lake(settings) == Counter([done.request_id, cut_off])
    assert "interrupted" in fake_mlflow.traces[cut_off]
    rows = Lake(settings.lake_uri).query("SELECT error, status, replica FROM interactions WHERE request_id = ?", [cut_off])
    assert rows.to_pylist() == [{"error": "interrupted", "status": 500, "replica": "w0"}]


def test_what_cannot_be_ended_yet_holds_up_nobody_and_is_ended_later(
    settings: Settings,
    deliveries: Deliveries,
    dead: DeadLetters,
    fake_mlflow: FakeMlflow,
    make_record: Make,
) -> None:
    leave_behind(settings, "w0", [make_record()], [uuid.uuid4().hex])
    fill(settings, "w1", [make_record() for _ in range(3)])
    (left,) = (settings.spool_folder / "w0").glob("*.log")
    with left.open("rb") as somebody:
        fcntl.flock(somebody, fcntl.LOCK_SH)
        assert shipper(settings, deliveries, dead).run(once=True) == 0
        assert len(fake_mlflow.traces) == 4, "what is whole in it is taken, and all of the others"
        assert not list((settings.spool_folder / "w1").glob("*.log")), "and retired"
    assert shipper(settings, deliveries, dead).run(once=True) == 0
    assert len(fake_mlflow.traces) == 5


def test_a_living_worker_is_shipped_while_it_writes_and_adopted_when_it_dies(
    settings: Settings,
    dead: DeadLetters,
    fake_mlflow: FakeMlflow,
    deliveries: Deliveries,
    make_record: Make,
    wait_for: Callable[..., None],
) -> None:
    stop = threading.Event()
    running = threading.Thread(target=shipper(settings, deliveries, dead, stop).run, args=(False,), daemon=True)
    running.start()

    async def gateway() -> set[str]:
        spool = Spool.open(settings.spool_folder, "w0", segment_bytes=10_000)
        ids = set()
        for _ in range(40):
            record = make_record()
            spool.accept(record.request_id, record.received_at)
            await spool.append(record)
            ids.add(record.request_id)
        await asyncio.to_thread(wait_for, lambda: len(fake_mlflow.traces) == 40, what="MLflow")
        await asyncio.to_thread(wait_for, lambda: len(in_lake(settings)) == 40, what="the lake")
        await spool.close()
        return ids

    ids = asyncio.run(gateway())
    wait_for(lambda: not segments(settings.spool_folder).segments, what="retirement")
    assert in_lake(settings) == Counter(ids)
    assert not any("interrupted" in text for text in fake_mlflow.traces.values())
    done, cut_off = make_record(), "c0" * 16
    leave_behind(settings, "w1", [done], [done.request_id, cut_off])
    wait_for(lambda: "interrupted" in fake_mlflow.traces.get(cut_off, ""), what="what a dead worker left open")
    stop.set()
    running.join()


def test_one_sink_away_holds_up_no_other_and_gets_everything_when_it_is_back(
    settings: Settings,
    fake_mlflow: FakeMlflow,
    deliveries: Deliveries,
    dead: DeadLetters,
    make_record: Make,
    wait_for: Callable[..., None],
) -> None:
    fake_mlflow.answer = lambda traces: 503
    fill(settings, "w0", [make_record() for _ in range(30)])
    stop = threading.Event()
    running = threading.Thread(target=shipper(settings, deliveries, dead, stop).run, args=(False,), daemon=True)
    running.start()
    wait_for(lambda: len(in_lake(settings)) == 30, what="the lake")
    wait_for(
        lambda: (settings.data / "shipper.json").exists() and status(settings).sinks["lake"].pending == 0, what="status"
    )
    assert fake_mlflow.traces == {}
    told = status(settings).sinks["mlflow"]
    assert told.pending == 30
    assert told.error is not None
    assert "503" in told.error
    assert told.lag_s is not None
    assert len(segments(settings.spool_folder).segments) > 1, "nothing is given up before every sink has it"
    fake_mlflow.answer = lambda traces: 200
    wait_for(lambda: len(fake_mlflow.traces) == 30, what="MLflow")
    stop.set()
    running.join()


def test_of_a_torn_segment_the_rest_is_delivered_once_and_what_is_lost_is_told(
    settings: Settings, fake_mlflow: FakeMlflow, deliveries: Deliveries, dead: DeadLetters, make_record: Make
) -> None:
    """Some of it had been delivered before, also of what is lost; each sink had come as far as it had."""
    records = [make_record() for _ in range(300)]
    fill(settings, "w0", records, segment_bytes=1 << 20)
    fill(settings, "w1", [make_record() for _ in range(10)])
    (torn,) = (settings.spool_folder / "w0").glob("*.log")
    before = shipper(settings, deliveries, dead)
    (segment,) = (one for one in segments(settings.spool_folder).segments if one.path == torn)
    for feed in before.feeds:
        feed.sink.limit = 100 if feed.sink.name == "lake" else 200
        feed.sink.step(segment)
    with reading(torn) as whole:
        heads = list(whole.rows(0))
    with torn.open("r+b") as file:  # in the middle: what comes before can be read
        file.seek(heads[110].offset)
        file.write(b"\xff" * (heads[150].offset - heads[110].offset))
        for head in heads[160:240]:  # and then the words alone
            file.seek(head.offset + frames.HEAD_BYTES)
            file.write(b"\xff" * 20)
    assert shipper(settings, deliveries, dead).run(once=True) == 0
    counts = in_lake(settings)
    assert set(counts.values()) == {1}
    gone = [number for number, record in enumerate(records) if record.request_id not in counts]
    assert gone, "accept and record are lost, and nothing can be told of them but their numbers"
    assert set(gone) <= set(range(109, 151))
    assert counts.keys() <= fake_mlflow.traces.keys()
    lake = Lake(settings.lake_uri)
    lost = set(lake.query("SELECT request_id FROM interactions WHERE error = 'torn'").column(0).to_pylist())
    assert 0 < len(lost) < 150, "lost, and it is known that they were accepted"
    assert lake.query("SELECT sum(n)::BIGINT FROM rollups").column(0).to_pylist() == [len(counts)]
    intact = {name for name, text in fake_mlflow.traces.items() if "A model." in text}
    assert intact & lost, "what MLflow had is not overwritten"
    assert counts.keys() - lost <= intact
    told = status(settings).unreadable
    assert list(told) == [str(torn.with_suffix(".torn"))]
    assert "lost: accepts" in told[str(torn.with_suffix(".torn"))]
    assert not list(settings.spool_folder.glob("*/*.log")), "all else is retired"


def test_a_segment_that_outlives_a_newer_one_is_not_taken_for_the_newest(
    settings: Settings, deliveries: Deliveries, dead: DeadLetters, make_record: Make
) -> None:
    """Its open accepts were carried on: if it were, they would be put on record as interrupted, a second time."""
    records = [make_record() for _ in range(30)]

    async def run() -> None:
        spool = Spool.open(settings.spool_folder, "w0", segment_bytes=10_000)
        for record in records:
            spool.accept(record.request_id, record.received_at)
        for record in records:
            await spool.append(record)
        await spool.close()

    asyncio.run(run())
    *_, newest = segments(settings.spool_folder).segments
    housekeeper = shipper(settings, deliveries, dead)
    for feed in housekeeper.feeds:
        feed.positions[newest.uid] = newest.last
    housekeeper.tidy()
    assert newest.path.exists(), "oldest first"
    newest.remove()
    assert adopt(settings.spool_folder / "w0") == 0


def test_only_one_shipper_works_on_a_data_folder_and_the_next_takes_over(
    settings: Settings,
    fake_mlflow: FakeMlflow,
    make_record: Make,
    monkeypatch: pytest.MonkeyPatch,
    wait_for: Callable[..., None],
) -> None:
    class Tracking:
        def __init__(self, uri: str) -> None:
            assert uri == settings.mlflow.uri

        def experiment_id(self, name: str) -> str:
            assert name == settings.mlflow.experiment
            return "7"

    monkeypatch.setattr("watchkeeper.telemetry.shipper.Tracking", Tracking)
    stops = [threading.Event(), threading.Event()]
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda stop=stop: results.append(ship(settings, once=False, stop=stop)), daemon=True)
        for stop in stops
    ]
    threads[0].start()
    wait_for(lambda: (settings.data / "shipper.json").exists(), what="the first")
    threads[1].start()
    assert ship(settings, once=True, stop=threading.Event()) == 1
    stops[0].set()
    threads[0].join()
    fill(settings, "w0", [make_record()])
    wait_for(lambda: len(fake_mlflow.traces) == 1, what="the second")
    stops[1].set()
    threads[1].join()
    assert results == [0, 0]
    assert ship(settings, once=True, stop=threading.Event()) == 0


def test_once_that_is_stopped_says_so(
    settings: Settings, fake_mlflow: FakeMlflow, deliveries: Deliveries, dead: DeadLetters, make_record: Make
) -> None:
    fill(settings, "w0", [make_record()])
    stop = threading.Event()

    def away(traces: dict[str, str]) -> int:
        stop.set()
        return 503

    fake_mlflow.answer = away
    assert shipper(settings, deliveries, dead, stop).run(once=True) == 1


class Away:
    name, limit, linger_s = "away", 10, 0.0

    def position(self, tray: Tray) -> int:
        raise ConnectionError("nobody there")

    def step(self, tray: Tray) -> int:
        raise AssertionError("never reached")

    def tend(self) -> None:
        raise AssertionError("never reached")


def test_pauses_grow_are_never_twice_the_same_and_have_an_end(settings: Settings, make_record: Make) -> None:
    fill(settings, "w0", [make_record()])
    stop = threading.Event()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 20:
            stop.set()

    feed = Feed(Away(), settings.spool_folder, stop, rng=random.Random(1), pause=pause)
    feed.run(goal=None)
    assert pauses[0] <= 0.25
    assert pauses[6] > pauses[0] * 10
    assert 15 <= max(pauses) <= 30
    assert len(set(pauses)) == 20
    assert feed.error == "ConnectionError: nobody there"


SHIP = """
import sys, threading
from pathlib import Path
from watchkeeper.settings import Mlflow, Settings
from watchkeeper.telemetry.shipper import ship

settings = Settings(data=Path(sys.argv[1]), mlflow=Mlflow(uri=sys.argv[2]))
sys.exit(ship(settings, once="once" in sys.argv, stop=threading.Event()))
"""
GATEWAY = """
import asyncio, sys, time, uuid
from pathlib import Path
from watchkeeper.record import Record
from watchkeeper.telemetry.spool import Spool

async def main():
    spool = Spool.open(Path(sys.argv[1]), "w9", segment_bytes=20_000)
    for number in range(10_000):
        name = uuid.uuid4().hex
        spool.accept(name, time.time_ns() // 1000)
        if number % 40 != 7:
            await spool.append(Record(request_id=name, received_at=time.time_ns() // 1000, prompt_text="x" * 300))
            print(name, flush=True)

asyncio.run(main())
"""


@pytest.mark.servers
def test_real_servers_kill_9_and_outages_lose_nothing_and_double_nothing(
    tmp_path: Path,
    free_port: Callable[[], int],
    run_process: Callable[..., Any],
    wait_for: Callable[..., None],
    make_record: Make,
) -> None:
    settings = Settings(data=tmp_path / "data", mlflow=Mlflow(uri=f"http://127.0.0.1:{free_port()}"))
    argv, environment = server_command(settings, settings.data)
    mlflow = run_process(argv, ready=f"{settings.mlflow.uri}/health", env=environment)
    verdict = Verdict("injection", "prompt", "override", "block", 0.97, "classifier", "3")
    special = make_record(session='{"a": 1}', user='"u"', route="support\0", cost_usd=0.25, verdicts=(verdict,))
    broken = make_record(error="upstream_timeout", status=504)
    records = [special, broken, *(make_record(session=f"s{number % 9}") for number in range(200))]
    fill(settings, "w0", records, segment_bytes=100_000)
    acknowledged = _kill_a_gateway(settings)
    command = [sys.executable, "-c", SHIP, str(settings.data), settings.mlflow.uri]
    for number, progress in enumerate((_traces, _files, _traces)):
        process = run_process(command)
        before = progress(settings)
        wait_for(lambda before=before, progress=progress: progress(settings) > before + 2, what="a delivery under way")
        if number == 1:
            mlflow.stop()
            fill(settings, "w1", [more := make_record()])
            records.append(more)
            mlflow = run_process(argv, ready=f"{settings.mlflow.uri}/health", env=environment)
        process.kill()
        fill(settings, f"late{number}", late := [make_record() for _ in range(20)], segment_bytes=10_000)
        records += late
    assert subprocess.run([*command, "once"], timeout=200).returncode == 0

    ledger = verify(settings)
    assert ledger.ok, ledger
    assert ledger.served == ledger.spooled == ledger.mlflow == ledger.lake
    ids = {record.request_id for record in records} | acknowledged
    counts = in_lake(settings)
    assert set(counts.values()) == {1}
    assert ids <= counts.keys()
    unsaid = counts.keys() - ids
    assert len(unsaid) == ledger.served - len(ids) > 0
    total = Lake(settings.lake_uri).query("SELECT sum(n)::BIGINT FROM rollups").column(0).to_pylist()
    assert total == [len(counts)], "nor do the charts count anything twice"
    _read_back(settings, counts, special, broken, unsaid)
    mlflow.stop()


def _files(settings: Settings) -> int:
    return len(list((settings.data / "lake").rglob("*.parquet")))


def _traces(settings: Settings) -> int:
    with contextlib.closing(sqlite3.connect(settings.data / "mlflow" / "mlflow.db")) as database:
        return int(database.execute("SELECT count(*) FROM trace_info").fetchone()[0])


def _kill_a_gateway(settings: Settings) -> set[str]:
    """Real traffic that ends with kill -9 while requests are under way; what it had been told was durable."""
    acknowledged: set[str] = set()
    command = [sys.executable, "-c", GATEWAY, str(settings.spool_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        for line in gateway.stdout:
            acknowledged.add(line.strip())
            if len(acknowledged) == 120:
                gateway.send_signal(signal.SIGKILL)
                break
        acknowledged |= {line.strip() for line in gateway.stdout if len(line) == 33}
    return acknowledged


def _read_back(settings: Settings, counts: Counter[str], special: Record, broken: Record, unsaid: set[str]) -> None:
    """What a user of MLflow sees of it, through its own client."""
    from mlflow import MlflowClient

    client = MlflowClient(settings.mlflow.uri)
    (experiment,) = (found.experiment_id for found in client.search_experiments() if found.name == "watchkeeper")
    found: list[str] = []
    token = None
    while True:
        page = client.search_traces([experiment], max_results=100, page_token=token, include_spans=False)
        found += [trace.info.trace_id.removeprefix("tr-") for trace in page]
        token = page.token
        if not token:
            break
    assert Counter(found) == counts
    (trace,) = client.search_traces([experiment], filter_string="tag.`watchkeeper.action` = 'block'")
    info = trace.info
    assert info.trace_id == f"tr-{special.request_id}"
    assert info.state.value == "OK"
    assert (info.request_preview, info.response_preview) == ("Who are you?", "A model.")
    assert info.trace_metadata["mlflow.trace.session"] == '{"a": 1}'
    assert info.trace_metadata["mlflow.trace.user"] == '"u"'
    assert info.tags["mlflow.traceName"] == "support\ufffd"
    assert info.token_usage == {"input_tokens": 11, "output_tokens": 5, "total_tokens": 16}
    assert json.loads(info.trace_metadata["mlflow.trace.cost"])["total_cost"] == 0.25
    assert info.execution_duration == 123
    spans = {span.name: span for span in trace.data.spans}
    assert [turn["role"] for turn in spans["generate"].inputs["messages"]] == ["system", "user"]
    assert spans["generate"].span_type == "CHAT_MODEL"
    assert spans["guard_in"].events[0].attributes["watchkeeper.guard.rule"] == "classifier"
    failed = client.search_traces([experiment], filter_string="status = 'ERROR'", include_spans=False)
    interrupted = {trace.info.trace_id.removeprefix("tr-") for trace in failed} - {broken.request_id}
    assert len(interrupted) == len(failed) - 1 > 0
    assert interrupted <= unsaid
    assert len(unsaid - interrupted) <= 1, "at most one was written, and its gateway killed before it said so"
