"""The spool as its gateway and its shipper meet it: what was acknowledged is there, once, whatever happens in between."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watchkeeper import feedback
from watchkeeper.feedback import Feedback
from watchkeeper.record import Record, decode
from watchkeeper.telemetry import frames, pen
from watchkeeper.telemetry.adoption import adopt
from watchkeeper.telemetry.erasure import erase
from watchkeeper.telemetry.pen import Pen
from watchkeeper.telemetry.segment import ERASED, FEEDBACK, RECORD, Durability, Row, segments, unfinished
from watchkeeper.telemetry.spool import ACCEPT_S, Spool, SpoolBusy, SpoolFull

Make = Callable[..., Record]
Say = Callable[..., Feedback]

pytestmark = pytest.mark.anyio


def rows(folder: Path) -> list[Row]:
    return [row for segment in segments(folder).segments for row in segment.rows(0)]


def records(folder: Path) -> list[Record]:
    return [decode(row.body) for row in rows(folder) if row.kind == RECORD]


def said(folder: Path) -> list[Feedback]:
    return [feedback.decode(row.body) for row in rows(folder) if row.kind == FEEDBACK]


def accepted(folder: Path) -> set[str]:
    return {name for segment in segments(folder).segments for name in segment.ids()[0]}


async def test_what_was_appended_is_there_at_once_and_after_closing(tmp_path: Path, make_record: Make) -> None:
    spool = Spool.open(tmp_path, "w0")
    sent = [make_record() for _ in range(300)]
    for record in sent:
        spool.accept(record.request_id, record.received_at)
    await asyncio.gather(*(spool.append(record) for record in sent))
    assert records(tmp_path) == sent
    await spool.close()
    assert records(tmp_path) == sent
    assert accepted(tmp_path) == {record.request_id for record in sent}
    (segment,) = segments(tmp_path).segments
    assert segment.sealed
    assert [row.sequence for row in segment.rows(0)] == list(range(1, 301))
    assert [path.name for path in segment.path.parent.glob("1*")] == ["1.log"], "a segment is one file"


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many entries are written with each commit, from now on."""
    commits: list[int] = []
    commit = Spool._commit

    def one(self: Spool, entries: Sequence[Any]) -> str | None:
        commits.append(len(entries))
        return commit(self, entries)

    monkeypatch.setattr(Spool, "_commit", one)
    return commits


async def test_many_callers_share_few_waits_for_the_disk(
    tmp_path: Path, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool.open(tmp_path, "w0", durability="power")
    commits = counted(monkeypatch)
    sent = [make_record() for _ in range(500)]
    for record in sent:
        spool.accept(record.request_id, record.received_at)
    await asyncio.gather(*map(spool.append, sent))
    assert sum(commits) == 1000
    assert len(commits) < 100
    await spool.close()


async def test_a_disk_that_stands_still_takes_no_more_requests_and_still_all_that_it_accepted(
    tmp_path: Path, make_record: Make, make_feedback: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No accept may be left without a record: it would hold up every later window for as long as the worker lives."""
    monkeypatch.setattr("watchkeeper.telemetry.spool.QUEUE", 10)
    moves, commit = threading.Event(), Spool._commit

    def stands_still(self: Spool, entries: Sequence[Any]) -> str | None:
        moves.wait(20)
        return commit(self, entries)

    monkeypatch.setattr(Spool, "_commit", stands_still)
    spool = Spool.open(tmp_path, "w0", durability="power")
    sent = [make_record() for _ in range(8)]
    for record in sent:
        spool.accept(record.request_id, record.received_at)
    kept = [asyncio.ensure_future(spool.append(record)) for record in sent]
    await asyncio.sleep(0.05)
    more = [make_record() for _ in range(20)]
    with contextlib.suppress(SpoolFull):
        for record in more:
            spool.accept(record.request_id, record.received_at)
    with pytest.raises(SpoolFull, match="wait for the disk"):
        spool.accept(more[-1].request_id, more[-1].received_at)
    with pytest.raises(SpoolFull, match="wait for the disk"):
        await spool.append(make_feedback(sent[0].request_id))
    with pytest.raises(SpoolFull, match="wait for the disk"):
        await spool.bring(make_record(), 1)
    moves.set()
    assert await asyncio.gather(*kept, return_exceptions=True) == [None] * len(sent)
    assert [record.request_id for record in records(tmp_path)] == [record.request_id for record in sent]
    await spool.close()


async def test_an_accept_waits_a_moment_for_its_record_and_no_longer(
    tmp_path: Path, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool.open(tmp_path, "w0")
    commits = counted(monkeypatch)
    quick, slow = make_record(), make_record()
    spool.accept(quick.request_id, quick.received_at)
    await spool.append(quick)
    assert commits == [2], "an answer that comes at once costs one commit"
    spool.accept(slow.request_id, slow.received_at)
    await asyncio.sleep(20 * ACCEPT_S)
    assert accepted(tmp_path) == {quick.request_id, slow.request_id}
    await spool.close()


async def test_a_segment_is_left_when_it_is_large_and_nothing_open_is_left_with_it(
    tmp_path: Path, make_record: Make
) -> None:
    spool = Spool.open(tmp_path, "w0", segment_bytes=20_000)
    slow = make_record()
    spool.accept(slow.request_id, slow.received_at)
    for _ in range(60):
        await spool.append(make_record())
    *passed, newest = segments(tmp_path).segments
    assert len(passed) > 1
    assert all(segment.sealed for segment in passed)
    assert not newest.sealed
    assert slow.request_id in newest.ids()[0], "its accept is carried along"
    for segment in passed:
        segment.remove()
    await spool.append(slow)
    await spool.close()
    assert Counter(record.request_id for record in records(tmp_path))[slow.request_id] == 1
    assert newest.first > 1, "sequences go on over segments"


async def test_two_living_workers_never_share_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchkeeper.telemetry.spool.PATIENCE_S", 0.05)
    spool = Spool.open(tmp_path, "w0")
    with pytest.raises(SpoolBusy):
        Spool.open(tmp_path, "w0")
    await spool.close()
    await Spool.open(tmp_path, "w0").close()


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc"])
def test_a_worker_cannot_be_named_out_of_the_spool(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Spool.open(tmp_path, name)


async def test_what_cannot_be_an_id_is_refused_before_it_can_spoil_a_batch(tmp_path: Path, make_record: Make) -> None:
    spool = Spool.open(tmp_path, "w0")
    for request_id, at in (("\ud800" * 32, 1), ("abc", 1), ("0" * 32, 1 << 58), ("0" * 32, -1)):
        with pytest.raises(ValueError, match="id"):
            spool.accept(request_id, at)
    await spool.append(make_record())
    await spool.close()


async def test_what_msgpack_cannot_carry_is_mended_not_lost(tmp_path: Path, make_record: Make) -> None:
    spool = Spool.open(tmp_path, "w0")
    odd = make_record(
        prompt_text="a\ud800b\0c",
        tags={"\udc00": "\ud83d\ude00"},
        input_tokens=10**30,
        embedding=b"\xff",
        support=np.float32(0.5),
    )
    await spool.append(odd)
    await spool.close()
    (kept,) = records(tmp_path)
    assert kept.prompt_text == "a\ufffdb\0c"
    assert kept.tags == {"\ufffd": "\U0001f600"}
    assert kept.embedding == b"\xff"
    assert kept.input_tokens == 2**63 - 1
    assert kept.support == 0.5


async def test_a_caller_who_goes_away_leaves_the_record(tmp_path: Path, make_record: Make) -> None:
    spool = Spool.open(tmp_path, "w0")
    record = make_record()
    task = asyncio.create_task(spool.append(record))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await spool.close()
    assert records(tmp_path) == [record]
    with pytest.raises(SpoolFull):
        await spool.append(record)


async def test_a_gateway_that_ends_in_good_order_leaves_nothing_open(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path, "w0")
    spool.accept(uuid.uuid4().hex, 5)
    await spool.close()
    (record,) = records(tmp_path)
    assert (record.error, record.status, record.received_at, record.replica) == ("interrupted", 500, 5, "w0")


async def test_feedback_is_durable_beside_the_records_and_is_none(
    tmp_path: Path, make_record: Make, make_feedback: Say
) -> None:
    spool = Spool.open(tmp_path, "w0")
    record = make_record()
    spool.accept(record.request_id, record.received_at)
    early = make_feedback(record.request_id, comment="still reading \ud800")
    await spool.append(early)
    assert unfinished(tmp_path) == {record.request_id}, "what is said of a request does not answer it"
    await spool.append(record)
    late = make_feedback(record.request_id, score=None, label="wrong")
    await spool.append(late)
    (segment,) = segments(tmp_path).segments
    assert [(row.sequence, row.kind) for row in segment.rows(0)] == [(1, FEEDBACK), (2, RECORD), (3, FEEDBACK)]
    assert segment.ids() == ([record.request_id], [(2, record.request_id)])
    assert [row.sequence for row in segment.records_of([record.request_id, "0" * 32], 0)] == [2]
    assert segment.records_of([record.request_id], 2) == []
    assert (segment.count(0), segment.count(2)) == (1, 0)
    assert segment.oldest(0) == record.received_at
    assert segment.oldest(2) is None, "feedback is no request that the lake could lack"
    assert unfinished(tmp_path) == set()
    await spool.close()
    assert said(tmp_path) == [
        make_feedback(record.request_id, feedback_id=early.feedback_id, comment="still reading \ufffd"),
        late,
    ]


async def test_an_unfinished_request_with_feedback_is_carried_on_and_gets_its_record(
    tmp_path: Path, make_record: Make, make_feedback: Say
) -> None:
    spool = Spool.open(tmp_path, "w0", segment_bytes=4_000)
    slow = make_record()
    spool.accept(slow.request_id, slow.received_at)
    await spool.append(make_feedback(slow.request_id))
    for _ in range(10):
        await spool.append(make_record())
    newest = segments(tmp_path).segments[-1]
    assert newest.number > 1
    assert slow.request_id in newest.ids()[0], "its accept is carried along"
    await spool.close()
    (interrupted,) = [record for record in records(tmp_path) if record.request_id == slow.request_id]
    assert interrupted.error == "interrupted"
    assert [row.sequence for row in rows(tmp_path)] == list(range(1, 13))


async def test_feedback_that_was_refused_is_not_kept_and_becomes_no_record(
    tmp_path: Path, make_record: Make, make_feedback: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchkeeper.telemetry.spool.RETRY_S", 0.02)
    spool = Spool.open(tmp_path, "w0")
    record = make_record()
    await spool.append(record)
    write, full = Pen.write, [True]

    def failing(self: Pen, some: Sequence[bytes]) -> bool:
        if full:
            raise OSError("no space left")
        return write(self, some)

    monkeypatch.setattr(Pen, "write", failing)
    with pytest.raises(SpoolFull):
        await spool.append(make_feedback(record.request_id))
    full.clear()
    again = make_feedback(record.request_id)
    await spool.append(again)
    await spool.close()
    assert records(tmp_path) == [record]
    assert said(tmp_path) == [again]


@dataclass
class World:
    """A spool folder, what its user was told, and what its shipper took away. A crash leaves what is in the files: so a
    copy of the files, taken between two commits, is what the next start finds."""

    folder: Path
    spool: Spool
    durability: Durability
    crashes: int = 0
    open: list[Record] = field(default_factory=list)
    acknowledged: dict[str, Record] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    shipped: list[Row] = field(default_factory=list)
    said: set[str] = field(default_factory=set)
    shipped_accepts: set[str] = field(default_factory=set)

    async def step(self, action: str, make: Make) -> None:
        if action == "accept":
            record = make()
            self.spool.accept(record.request_id, record.received_at)
            self.open.append(record)
            self.accepted.add(record.request_id)
        elif action == "append" and self.open:
            await self.append(self.open.pop(0))
        elif action == "say":
            about = self.open[0] if self.open else make()
            said = Feedback(feedback_id=uuid.uuid4().hex, request_id=about.request_id, received_at=1, score=0.5)
            await self.spool.append(said)
            self.said.add(said.feedback_id)
        elif action == "burst":
            await asyncio.gather(*(self.append(record) for record in self.open), self.append(make()))
            self.open.clear()
        elif action == "ship":
            self.ship()
        elif action == "crash":
            await self.append(make())  # whatever was queued before is now in the files
            await self.crash()
        elif action == "restart":
            await self.spool.close()
            self.open.clear()
            self.spool = Spool.open(self.folder, "w0", durability=self.durability, segment_bytes=4_000)

    async def append(self, record: Record) -> None:
        await self.spool.append(record)
        self.acknowledged[record.request_id] = record

    async def crash(self) -> None:
        self.crashes += 1
        left = self.folder.with_name(f"{self.folder.name}-{self.crashes}")
        shutil.copytree(self.folder, left)
        await self.spool.close()
        shutil.rmtree(self.folder)
        self.folder = left
        self.open.clear()
        if self.crashes % 2:
            adopt(self.folder / "w0")  # the shipper comes first
        self.spool = Spool.open(self.folder, "w0", durability=self.durability, segment_bytes=4_000)

    def ship(self) -> None:
        for segment in segments(self.folder).segments:
            if not segment.sealed:
                break
            self.shipped += segment.rows(0)
            self.shipped_accepts |= set(segment.ids()[0])
            segment.remove()


ACTIONS = st.lists(st.sampled_from(["accept", "append", "burst", "say", "ship", "crash", "restart"]), max_size=25)


@given(actions=ACTIONS, durability=st.sampled_from(["process", "power"]))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_order_of_events_loses_or_doubles_a_record(
    actions: list[str], durability: Durability, tmp_path_factory: pytest.TempPathFactory, make_record: Make
) -> None:
    async def play() -> None:
        folder = tmp_path_factory.mktemp("spool")
        world = World(folder, Spool.open(folder, "w0", durability=durability, segment_bytes=4_000), durability)
        for action in actions:
            await world.step(action, make_record)
        await world.spool.close()
        kept = world.shipped + rows(world.folder)
        assert [row.sequence for row in kept] == list(range(1, len(kept) + 1)), "no gaps, whatever kind they are"
        assert sorted(feedback.decode(row.body).feedback_id for row in kept if row.kind == FEEDBACK) == sorted(world.said)
        everything = [decode(row.body) for row in kept if row.kind == RECORD]
        counts = Counter(record.request_id for record in everything)
        assert set(counts.values()) <= {1}
        found = {record.request_id: record for record in everything}
        assert world.acknowledged.items() <= found.items()
        assert world.accepted <= found.keys(), "every accepted request has a record"
        cut_off = [found[name] for name in world.accepted - world.acknowledged.keys()]
        assert all(record.error == "interrupted" for record in cut_off)
        assert world.accepted == world.shipped_accepts | accepted(world.folder)
        shutil.rmtree(world.folder)

    asyncio.run(play())


TRAFFIC = """
import asyncio, random, sys, uuid
from pathlib import Path
from watchkeeper.record import Record
from watchkeeper.telemetry.spool import Spool

async def client(spool):
    while True:
        name = uuid.uuid4().hex
        spool.accept(name, 1)
        if random.random() < 0.1:
            await asyncio.sleep(random.random() / 100)
        await spool.append(Record(request_id=name, received_at=1, output_text="x" * 500))
        sys.stdout.write(name + "\\n")
        sys.stdout.flush()

async def main():
    spool = Spool.open(Path(sys.argv[1]), "w0", durability=sys.argv[2], segment_bytes=100_000)
    await asyncio.gather(*(client(spool) for _ in range(8)))

asyncio.run(main())
"""


async def reopened(folder: Path) -> None:
    await Spool.open(folder, "w0").close()


@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("last_word", ["gateway", "shipper"])
def test_kill_9_in_mid_traffic_loses_nothing_that_was_acknowledged(
    tmp_path: Path, last_word: str, durability: Durability
) -> None:
    acknowledged: set[str] = set()
    command = [sys.executable, "-c", TRAFFIC, str(tmp_path), durability]
    for enough in (700, 50, 1200):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as gateway:
            assert gateway.stdout is not None
            for number, line in enumerate(gateway.stdout):
                acknowledged.add(line.strip())
                if number == enough:
                    gateway.send_signal(signal.SIGKILL)
                    break
            acknowledged |= {line.strip() for line in gateway.stdout if len(line) == 33}
    if last_word == "shipper":
        adopt(tmp_path / "w0")
        assert adopt(tmp_path / "w0") == 0, "once"
    else:
        asyncio.run(reopened(tmp_path))
    found = Counter(record.request_id for record in records(tmp_path))
    assert set(found.values()) == {1}
    assert acknowledged <= found.keys()
    assert accepted(tmp_path) == found.keys()
    assert len(acknowledged) > 1900
    assert not segments(tmp_path).unreadable
    assert all(segment.sealed for segment in segments(tmp_path).segments)


WATCHED = """
import asyncio, sys, uuid
from pathlib import Path
from watchkeeper.record import Record
from watchkeeper.telemetry.spool import Spool

async def main():
    spool = Spool.open(Path(sys.argv[1]), "w0", segment_bytes=60_000)
    for number in range(3_000):
        name = f"{number:032x}"
        spool.accept(name, 1)
        await spool.append(Record(request_id=name, received_at=1, output_text="planted " * (number % 200)))
    await spool.close()

asyncio.run(main())
"""


def test_who_reads_beside_a_writer_and_an_erasure_sees_whole_rows_in_order_and_ever_more(tmp_path: Path) -> None:
    numbers: list[int] = []
    with subprocess.Popen([sys.executable, "-c", WATCHED, str(tmp_path)]) as gateway:
        while gateway.poll() is None:
            found = segments(tmp_path)
            assert not found.unreadable
            seen = [row for segment in found.segments for row in segment.rows(segment.first - 1)]
            assert [row.sequence for row in seen] == list(range(1, len(seen) + 1))
            assert all(decode(row.body).request_id == row.request_id for row in seen if row.kind == RECORD)
            numbers.append(len(seen))
            if seen:
                erase(tmp_path, {seen[-1].request_id}, ())
        assert gateway.returncode == 0
    assert numbers == sorted(numbers)
    assert len(set(numbers)) > 3
    kinds = Counter(row.kind for row in rows(tmp_path))
    assert kinds.keys() == {RECORD, ERASED}
    assert kinds.total() == 3_000


FULL = """
import asyncio, resource, sys, uuid
from pathlib import Path
from watchkeeper.record import Record
from watchkeeper.telemetry import spool as module
from watchkeeper.telemetry.spool import Spool, SpoolFull

module.RETRY_S = 0.05
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

def record(name, text="x" * 20_000):
    return Record(request_id=name, received_at=1, output_text=text)

async def main():
    spool = Spool.open(Path(sys.argv[1]), "w0")
    under_way, after = uuid.uuid4().hex, uuid.uuid4().hex
    spool.accept(under_way, 1)
    await spool.append(record(uuid.uuid4().hex))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    refused = uuid.uuid4().hex
    spool.accept(refused, 1)
    for name in (refused, under_way):
        try:
            await asyncio.wait_for(spool.append(record(name)), 10)
            raise SystemExit("a full disk took a record")
        except SpoolFull as full:
            print("refused", full, file=sys.stderr)
    try:
        spool.accept(uuid.uuid4().hex, 1)
        raise SystemExit("a full spool took a request")
    except SpoolFull:
        pass
    await asyncio.sleep(0.5)  # the writer tries by itself, in vain, and gives the segment up
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    while True:
        try:
            spool.accept(after, 1)
            break
        except SpoolFull:
            await asyncio.sleep(0.01)
    await spool.append(record(after))
    await spool.close()
    print(under_way, refused, after)

asyncio.run(main())
"""


def test_a_full_disk_refuses_and_opens_again_by_itself(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    under_way, refused, after = done.stdout.split()
    counts = Counter(record.request_id for record in records(tmp_path))
    assert set(counts.values()) == {1}
    found = {record.request_id: record for record in records(tmp_path)}
    assert len(found) == 4
    assert found[after].error is None
    for name in (under_way, refused):
        assert (found[name].error, found[name].status) == ("spool_full", 503), "told to its caller, and on record"
    assert accepted(tmp_path) == {under_way, refused, after}


STARTS_FULL = """
import asyncio, resource, signal, sys, uuid
from pathlib import Path
from watchkeeper.record import Record
from watchkeeper.telemetry import spool as module
from watchkeeper.telemetry.spool import Spool, SpoolFull

module.RETRY_S = 0.05
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

async def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    spool = Spool.open(Path(sys.argv[1]), "w0")
    try:
        spool.accept(uuid.uuid4().hex, 1)
        raise SystemExit("a spool without a file took a request")
    except SpoolFull as full:
        assert spool.full == str(full), spool.full
    await asyncio.sleep(0.2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    while spool.full:
        await asyncio.sleep(0.01)
    record = Record(request_id=uuid.uuid4().hex, received_at=1)
    spool.accept(record.request_id, 1)
    await spool.append(record)
    await spool.close()

asyncio.run(main())
"""


def test_a_worker_starts_on_a_full_disk_and_takes_requests_once_there_is_room(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", STARTS_FULL, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(records(tmp_path)) == 1


LIMIT = 16_000_000


async def fill(spool: Spool, make_record: Make, clients: int = 16) -> set[str]:
    """Clients as the gateway has them: each accepts, answers and appends, until nothing more is accepted."""
    done: set[str] = set()

    async def client() -> None:
        while True:
            record = make_record(output_text="x" * 20_000)
            try:
                spool.accept(record.request_id, record.received_at)
            except SpoolFull:
                return
            await asyncio.sleep(0)
            await spool.append(record)
            done.add(record.request_id)

    await asyncio.gather(*(client() for _ in range(clients)))
    return done


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def test_a_spool_refuses_before_its_limit_and_keeps_all_it_accepted(tmp_path: Path, make_record: Make) -> None:
    spool = Spool.open(tmp_path, "w0", max_bytes=LIMIT)
    done = await fill(spool, make_record)
    assert len(done) > 100
    assert spool.full is not None
    assert "max_spool_bytes" in spool.full
    assert LIMIT * 0.8 < size(tmp_path) <= LIMIT
    with pytest.raises(SpoolFull, match="max_spool_bytes"):
        await spool.append(Feedback(feedback_id="0" * 32, request_id="0" * 32, received_at=1, score=1.0))
    assert accepted(tmp_path) == done == {record.request_id for record in records(tmp_path)}
    await spool.close()


async def test_the_limit_holds_over_all_workers_and_a_new_one_starts_full(tmp_path: Path, make_record: Make) -> None:
    spools = [Spool.open(tmp_path, name, max_bytes=LIMIT) for name in ("w0", "w1", "w2")]
    done = set().union(*await asyncio.gather(*(fill(spool, make_record, 4) for spool in spools)))
    assert size(tmp_path) <= LIMIT
    # A segment that is ended meanwhile gives its log's bytes back: what is there now is what is too much.
    late = Spool.open(tmp_path, "w3", max_bytes=size(tmp_path))
    assert late.full
    for spool in (*spools, late):
        await spool.close()
    assert accepted(tmp_path) == done == {record.request_id for record in records(tmp_path)}


async def test_a_full_spool_opens_when_all_is_delivered_though_no_request_comes(
    tmp_path: Path, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what stands in the segment that was being written: it is ended, so that it can go."""
    monkeypatch.setattr("watchkeeper.telemetry.spool.RETRY_S", 0.02)
    monkeypatch.setattr("watchkeeper.telemetry.spool.LOOK_S", 0.02)
    spool = Spool.open(tmp_path, "w0", max_bytes=LIMIT)
    for _ in range(3):
        assert len(await fill(spool, make_record)) > 50
        for _ in range(500):
            for found in segments(tmp_path).segments:
                if found.sealed:
                    found.remove()  # as the shipper does with what every sink has
            if spool.full is None:
                break
            await asyncio.sleep(0.02)
        assert spool.full is None
        assert size(tmp_path) < LIMIT / 2
    await spool.close()


async def test_a_worker_whose_leavings_cannot_be_ended_gives_its_name_up(tmp_path: Path, make_record: Make) -> None:
    spool = Spool.open(tmp_path, "w0")
    await spool.append(make_record())
    (tmp_path / "w0" / "lock").unlink()
    with pytest.raises(SpoolBusy, match="another process writes it"):
        Spool.open(tmp_path, "w0")
    await spool.close()
    await Spool.open(tmp_path, "w0").close()


async def test_a_torn_segment_stops_neither_its_worker_nor_the_others(tmp_path: Path, make_record: Make) -> None:
    for worker in ("w0", "w1"):
        spool = Spool.open(tmp_path, worker)
        for _ in range(50):
            await spool.append(make_record())
        await spool.close()
    (torn,) = (tmp_path / "w0").glob("*.log")
    os.truncate(torn, 5_000)
    found = segments(tmp_path)
    assert list(found.unreadable) == [str(torn)]
    assert [segment.worker for segment in found.segments] == ["w1"]
    spool = Spool.open(tmp_path, "w0")
    await spool.append(make_record())
    await spool.close()
    mended, following, other = (len(one.rows(0)) for one in segments(tmp_path).segments)
    assert 0 < mended < 50
    assert (following, other) == (1, 50)
    assert list(segments(tmp_path).unreadable) == [str(torn.with_suffix(".torn"))]


@pytest.mark.parametrize(("durability", "waits"), [("power", 2), ("process", 0)])
async def test_power_durability_waits_for_the_disk_with_every_commit(
    tmp_path: Path, make_record: Make, monkeypatch: pytest.MonkeyPatch, durability: Durability, waits: int
) -> None:
    spool = Spool.open(tmp_path / "deep" / "spool", "w0", durability=durability)
    synced: list[int] = []
    monkeypatch.setattr("watchkeeper.telemetry.pen.os.fdatasync", synced.append)
    await spool.append(make_record())
    await spool.append(make_record())
    assert len(synced) == waits
    await spool.close()
    assert len(records(tmp_path / "deep" / "spool")) == 2


async def test_nobody_ends_the_segment_of_a_worker_that_lives_though_its_lock_was_removed(
    tmp_path: Path, make_record: Make
) -> None:
    spool = Spool.open(tmp_path, "w0")
    first, second = make_record(), make_record()
    await spool.append(first)
    (tmp_path / "w0" / "lock").unlink()
    with pytest.raises(OSError, match="another process writes it"):
        adopt(tmp_path / "w0")
    await spool.append(second)
    await spool.close()
    assert records(tmp_path) == [first, second]
    assert len(segments(tmp_path).segments) == 1


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_a_segment_that_somebody_cut_or_removed_is_left_for_the_next(
    tmp_path: Path, make_record: Make, durability: Durability
) -> None:
    spool = Spool.open(tmp_path, "w0", durability=durability)
    sent = [make_record() for _ in range(4)]
    for record in sent:
        spool.accept(record.request_id, record.received_at)
    await spool.append(sent[0])
    (path,) = (tmp_path / "w0").glob("*.log")
    os.truncate(path, path.stat().st_size - 10)
    await spool.append(sent[1])
    path.with_name("2.log").unlink()
    await spool.append(sent[2])
    await spool.append(sent[3])
    await spool.close()
    assert records(tmp_path) == sent[2:]
    assert list(segments(tmp_path).torn) == [path], "and it is told"


async def test_a_system_that_keeps_a_write_waiting_keeps_the_loop_waiting_once(
    tmp_path: Path, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchkeeper.telemetry.spool.SLOW_FOR_S", 0.5)
    spool = Spool.open(tmp_path, "w0")
    threads: list[bool] = []
    write, slow = Pen.write, [True]

    def written(self: Pen, some: Sequence[bytes]) -> bool:
        threads.append(threading.current_thread() is threading.main_thread())
        if slow:
            time.sleep(0.1)
        return write(self, some)

    monkeypatch.setattr(Pen, "write", written)
    sent = [make_record() for _ in range(6)]
    for record in sent:
        spool.accept(record.request_id, record.received_at)
    await spool.append(sent[0])
    turns = 0
    others = asyncio.gather(*map(spool.append, sent[1:5]))
    while not others.done():
        await asyncio.sleep(0.01)
        turns += 1
    slow.clear()
    assert turns > 3, "the loop goes on meanwhile"
    assert threads[0]
    assert not any(threads[1:])
    await asyncio.sleep(0.6)
    await spool.append(sent[5])
    assert threads[-1], "and it is as before when that has passed"
    await spool.close()
    assert sorted(record.request_id for record in records(tmp_path)) == sorted(record.request_id for record in sent)


async def test_a_next_segment_that_came_but_for_its_name_on_the_disk_is_the_newest(
    tmp_path: Path, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would still be added to the one before would not be looked for."""
    monkeypatch.setattr("watchkeeper.telemetry.spool.RETRY_S", 0.02)
    spool = Spool.open(tmp_path, "w0", durability="power", segment_bytes=4_000)
    sent = [make_record() for _ in range(40)]
    for record in sent:
        spool.accept(record.request_id, record.received_at)
    failing = [True]
    synced = pen.sync

    def sync(folder: Path) -> None:
        if failing:
            raise OSError("input/output error")
        synced(folder)

    monkeypatch.setattr("watchkeeper.telemetry.pen.sync", sync)
    answered: set[str] = set()
    for number, record in enumerate(sent):
        if number == 20:
            failing.clear()
            await asyncio.sleep(0.2)
        try:
            await spool.append(record)
            answered.add(record.request_id)
        except SpoolFull:
            spool._segment_bytes = 1 << 20  # as when there is room again: it would not be ended now
    assert 20 <= len(answered) < 40
    assert not segments(tmp_path).unreadable
    await spool.close()
    kept = {record.request_id: record.error for record in records(tmp_path)}
    assert kept == {one.request_id: None if one.request_id in answered else "spool_full" for one in sent}
    assert len(records(tmp_path)) == len(sent)


async def test_what_is_written_in_part_is_taken_back(
    tmp_path: Path, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes only a part, and then nothing: whoever reads meanwhile sees none of it, nor does anyone later."""
    monkeypatch.setattr("watchkeeper.telemetry.spool.RETRY_S", 0.02)
    spool = Spool.open(tmp_path, "w0")
    first, second = make_record(), make_record()
    spool.accept(first.request_id, first.received_at)
    await spool.append(first)
    put = frames.put
    seen: list[list[Record]] = []

    def a_part(descriptor: int, data: bytes, at: int) -> None:
        put(descriptor, data[: len(data) - 5], at)
        seen.append(records(tmp_path))
        raise OSError("no space left on device")

    spool.accept(second.request_id, second.received_at)
    with monkeypatch.context() as patched:
        patched.setattr("watchkeeper.telemetry.pen.put", a_part)
        with pytest.raises(SpoolFull, match="no space left"):
            await spool.append(second)
    assert seen == [[first]]
    await asyncio.sleep(0.2)
    assert spool.full is None
    await spool.close()
    kept = records(tmp_path)
    assert kept[0] == first
    assert [(record.request_id, record.error) for record in kept[1:]] == [(second.request_id, "spool_full")]
    assert not segments(tmp_path).unreadable


def test_the_spool_loads_nothing_heavy() -> None:
    code = "import sys, watchkeeper.telemetry.spool; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"numpy", "pyarrow", "requests", "mlflow", "deltalake", "duckdb", "google.protobuf", "pydantic"}
    assert not heavy & set(loaded)
