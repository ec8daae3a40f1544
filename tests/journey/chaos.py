"""A whole platform under faults: its processes, what is done to them, and the clients that count on their own side.

Every process is a real one: `watchkeeper serve` with two workers, `watchkeeper ship`, an MLflow server. Whatever ends is
started again after a moment, as a supervisor would. Knows nothing of what is right in the end: `test_chaos.py` does.
"""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import requests

from watchkeeper.record import Record
from watchkeeper.settings import Settings
from watchkeeper.telemetry.segment import paths, reading
from watchkeeper.telemetry.spool import Spool

CLOCK: Final = Path(__file__).parent / "chaos_clock"
CLIENTS: Final = 6
DAY_NS: Final = 86_400_000_000_000
BALLAST: Final = "ballast"


@dataclass
class Clients:
    """What clients saw. `answered`: ids of answers that came whole, with HTTP 200, and the number asked; `said`: ids of
    feedback that was taken; `refused`: other answers by status, 0 where the connection broke off;
    `reasons`: what those said."""

    url: str
    pause_s: float
    answered: dict[str, int] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    refused: Counter[int] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    stopping: bool = False

    def run(self) -> None:
        """Until `stopping`; for a thread of its own."""
        asyncio.run(self._all())

    async def _all(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            await asyncio.gather(*(self._client(session, number) for number in range(CLIENTS)))

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        while not self.stopping:
            number += CLIENTS
            try:
                await self._ask(session, number)
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                self.refused[0] += 1
                await asyncio.sleep(0.1)
            await asyncio.sleep(self.pause_s)

    async def _ask(self, session: aiohttp.ClientSession, number: int) -> None:
        stream = number % 3 == 0
        body = {
            "model": "watchkeeper",
            "messages": [{"role": "user", "content": f"question {number} of {uuid.uuid4()}"}],
            "stream": stream,
            "watchkeeper": {"session": f"s{number // 60}", "tags": {"number": str(number)}},
        }
        async with session.post(f"{self.url}/v1/chat/completions", json=body) as response:
            text = await response.text()
            name = response.headers.get("x-request-id", "")
            if response.status != 200 or not _whole(text, stream):
                self.refused[response.status] += 1
                self.reasons[_reason(text)] += 1
                await asyncio.sleep(0.1)
                return
        self.answered[name] = number
        if number % 10 == 0:
            said = {"request_id": name, "score": 1}
            async with session.post(f"{self.url}/v1/feedback", json=said) as response:
                if response.status == 200:
                    self.said[(await response.json())["id"]] = name


def _reason(text: str) -> str:
    """The end of an error's message: what lacks, and no path before it."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(text)["error"]["message"]).rsplit(": ", 1)[-1]
    return "cut off"


def _whole(text: str, stream: bool) -> bool:
    if stream:
        return text.endswith("data: [DONE]\n\n") and '"error"' not in text
    return bool(json.loads(text)["choices"])


class Kept:
    """A process that is started again when it ends, after a moment, but for while it is `held`."""

    def __init__(self, name: str, start: Callable[[], subprocess.Popen[bytes]], pause_s: Callable[[], float]) -> None:
        self.name = name
        self.starts = 0
        self.held = 0
        self._start = start
        self._pause_s = pause_s
        self._again_at = 0.0
        self._lock = threading.Lock()
        self._begin()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _begin(self) -> None:
        self._process = self._start()
        self.starts += 1

    def keep(self) -> None:
        with self._lock:
            if self.held or self._process.poll() is None:
                return
            if not self._again_at:
                self._again_at = time.monotonic() + self._pause_s()
            elif time.monotonic() >= self._again_at:
                self._again_at = 0.0
                self._begin()

    def kill(self, below: bool = False) -> None:
        """kill -9; `below`: also what it started."""
        pids = [self.pid, *(descendants(self.pid) if below else ())]
        for pid in pids:
            kill(pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.held += 1
        if self._process.poll() is None:
            self._process.terminate()
        return self._process.wait(90)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    children = [int(line) for line in listed.stdout.split()]
    return children + [below for child in children for below in descendants(child)]


def workers(pid: int, of: str) -> list[int]:
    """The processes below `pid` whose command line holds `of`."""
    found = []
    for below in descendants(pid):
        with contextlib.suppress(OSError):
            if of.encode() in Path(f"/proc/{below}/cmdline").read_bytes():
                found.append(below)
    return found


@dataclass
class World:
    """All of it. `mounted`: whether spool and data lie on small disks of their own, so that they can be full. `ghosts`: ids
    of requests that stood in files which were torn, and whether their record was whole still."""

    settings: Settings
    processes: dict[str, Kept]
    clock: Path
    rng: random.Random
    long: bool
    mounted: bool
    ghosts: dict[str, bool] = field(default_factory=dict)

    def keep(self, stop: threading.Event) -> None:
        """Starts again whatever ended, until `stop`; for a thread of its own."""
        while not stop.wait(0.1):
            for process in self.processes.values():
                process.keep()

    # Faults. Each does its harm and undoes what would last; the rest is the platform's to undo.

    def gateway_worker(self) -> None:
        pids = workers(self.processes["serve"].pid, "spawn_main")
        if pids:
            kill(self.rng.choice(pids))

    def gateway(self) -> None:
        self.processes["serve"].kill(below=self.rng.random() < 0.5)

    def shipper(self) -> None:
        self.processes["ship"].kill()

    def mlflow(self) -> None:
        self.processes["mlflow"].kill(below=True)

    def mlflow_worker(self) -> None:
        pids = descendants(self.processes["mlflow"].pid)
        if pids:
            kill(pids[-1])
            self._revive_mlflow()

    def mlflow_parent(self) -> None:
        """Its worker stays behind and goes on serving; the next server finds the port taken until that one is gone."""
        left = descendants(self.processes["mlflow"].pid)
        self.processes["mlflow"].kill()
        time.sleep(self.rng.uniform(0.5, 2.0))
        for pid in left:
            kill(pid)

    def outage(self) -> None:
        mlflow = self.processes["mlflow"]
        mlflow.held += 1
        mlflow.kill(below=True)
        time.sleep(self.rng.choice((20.0, 60.0, 120.0)) if self.long else self.rng.uniform(4.0, 8.0))
        mlflow.held -= 1

    def full_spool(self) -> None:
        self._fill(self.settings.spool_folder)

    def full_data(self) -> None:
        self._fill(self.settings.data)

    def locked_mlflow(self) -> None:
        # Beyond the 20 s for which MLflow waits.
        self._lock(self.settings.data / "mlflow" / "mlflow.db", 25.0 if self.long and self.rng.random() < 0.3 else 3.0)

    def locked_ledger(self) -> None:
        self._lock(self.settings.data / "ledger.sqlite", 22.0 if self.long and self.rng.random() < 0.2 else 2.0)

    def locked_dead_letters(self) -> None:
        self._lock(self.settings.data / "dead_letters.sqlite", 22.0 if self.long and self.rng.random() < 0.2 else 2.0)

    def clock_step(self) -> None:
        step = self.rng.choice((-DAY_NS, -DAY_NS // 24, DAY_NS // 24, DAY_NS, 400 * DAY_NS, 0, 0))
        self.clock.write_bytes(struct.pack("<q", step + self.rng.randrange(-(10**9), 10**9)))

    def torn_end(self) -> None:
        """A worker is killed and the end of what it wrote is garbage: bytes of a commit that never was whole."""
        serve, ship = self.processes["serve"].pid, self.processes["ship"].pid
        pids = workers(serve, "spawn_main")
        with paused(serve), paused(ship):
            if not pids:
                return
            before = _held(self.settings.spool_folder)
            kill(self.rng.choice(pids))
            time.sleep(0.2)
            for folder in before - _held(self.settings.spool_folder):
                for newest in paths(folder)[-1:]:
                    with newest.open("ab") as end:
                        end.write(self.rng.randbytes(self.rng.randrange(1, 9_000)))

    def torn_segment(self) -> None:
        """A dead worker's segment turns up that is cut off: whole in it are the records that end before the cut."""
        name = f"ghost-{len(self.ghosts)}"
        draft = self.settings.data.parent / name
        asyncio.run(_ghost(draft, name, 60))
        (file,) = paths(draft / name)
        with reading(file) as whole:
            ends = {head.name: head.end for head in whole.rows(0)}
        body = file.read_bytes()
        left = body[: len(body) * self.rng.randint(40, 90) // 100]
        folder = self.settings.spool_folder / name
        try:
            folder.mkdir()
            (folder / "draft").write_bytes(left)
            os.replace(folder / "draft", folder / file.name)
        except OSError:  # the disk is full
            shutil.rmtree(folder, ignore_errors=True)
            return
        self.ghosts |= {one: end <= len(left) for one, end in ends.items()}

    def heal(self) -> None:
        """Undoes what a fault that was cut off may have left."""
        for folder in (self.settings.spool_folder, self.settings.data):
            (folder / BALLAST).unlink(missing_ok=True)
        for process in self.processes.values():
            process.held = 0

    def _revive_mlflow(self) -> None:
        """What a supervisor's health check does: a server without its worker is ended."""
        time.sleep(5.0)
        if not answers(f"{self.settings.mlflow.uri}/health"):
            self.processes["mlflow"].kill(below=True)

    def _fill(self, folder: Path) -> None:
        ballast = folder / BALLAST
        try:
            for size in (1 << 20, 1 << 16, 1 << 12):
                with contextlib.suppress(OSError), ballast.open("ab") as file:
                    while True:
                        file.write(bytes(size))
                        file.flush()
            time.sleep(self.rng.uniform(1.0, 4.0))
        finally:
            ballast.unlink(missing_ok=True)

    def _lock(self, file: Path, seconds: float) -> None:
        with contextlib.suppress(sqlite3.OperationalError):  # it has gone, or is not free
            uri = f"{file.as_uri()}?mode=rw"
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=2, isolation_level=None)) as database:
                database.execute("BEGIN IMMEDIATE")
                time.sleep(seconds)
                database.execute("ROLLBACK")


async def _ghost(folder: Path, worker: str, count: int) -> None:
    """What a worker leaves that ends in good order."""
    spool = Spool.open(folder, worker)
    for _ in range(count):
        name = uuid.uuid4().hex
        spool.accept(name, time.time_ns() // 1000)
        await spool.append(Record(request_id=name, received_at=time.time_ns() // 1000, output_text="said " * 150))
    await spool.close()


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    """SIGSTOP until the end."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _held(spool: Path) -> set[Path]:
    """The folders of workers that live: their locks are held."""
    import fcntl

    held = set()
    for file in spool.glob("*/lock"):
        with file.open("rb") as probe:
            try:
                fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                held.add(file.parent)
    return held


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=3).status_code == 200
    except requests.RequestException:
        return False


ALWAYS: Final = (
    *(World.gateway_worker, World.gateway, World.shipper, World.mlflow, World.mlflow_worker, World.mlflow_parent),
    *(World.outage, World.locked_mlflow, World.locked_ledger, World.locked_dead_letters, World.clock_step, World.torn_end),
    World.torn_segment,
)
ON_A_DISK_OF_ITS_OWN: Final = (World.full_spool, World.full_data)


def play(world: World, count: int, pause_s: tuple[float, float]) -> Counter[str]:
    """Injects `count` faults, each kind in every round of all kinds, some while others last. Returns how many of each."""
    kinds = [*ALWAYS, *(ON_A_DISK_OF_ITS_OWN if world.mounted else ())]
    done: Counter[str] = Counter()
    lasting: list[threading.Thread] = []
    round_: list[Callable[[World], None]] = []
    while done.total() < count:
        if not round_:
            round_ = world.rng.sample(kinds, len(kinds))
        fault = round_.pop()
        thread = threading.Thread(target=fault, args=(world,), name=fault.__name__, daemon=True)
        thread.start()
        lasting.append(thread)
        done[fault.__name__] += 1
        time.sleep(world.rng.uniform(*pause_s))
        if len([one for one in lasting if one.is_alive()]) > 2:
            thread.join()
    for thread in lasting:
        thread.join()
    world.heal()
    return done


@contextlib.contextmanager
def small_disks(folders: Sequence[tuple[Path, int]]) -> Iterator[bool]:
    """Mounts a disk in memory on each folder (bytes), where that is permitted. Whether it was."""
    mounted: list[Path] = []
    try:
        for folder, size in folders:
            folder.mkdir(parents=True, exist_ok=True)
            command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
            try:
                done = subprocess.run(command, capture_output=True, timeout=10)
            except OSError:
                break
            if done.returncode != 0:
                break
            mounted.append(folder)
        yield len(mounted) == len(folders)
    finally:
        for folder in reversed(mounted):
            subprocess.run(["umount", "--lazy", str(folder)], check=False)
