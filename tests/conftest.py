"""What many tests stand on: free ports, a real upstream that says what it is told to, and real processes that end."""

import contextlib
import gc
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests

from watchkeeper.settings import Mlflow, Settings
from watchkeeper.tracking import server_command

# How long an example takes says how busy this machine is, not whether the code is right.
hypothesis.settings.register_profile("house", deadline=None, print_blob=True)
hypothesis.settings.load_profile("house")
os.environ.update(HF_HUB_OFFLINE="1", DO_NOT_TRACK="1", MLFLOW_DISABLE_TELEMETRY="true")


FIRST_PORT, LAST_PORT = 12_000, 31_999
"""Below those that the kernel gives to whoever connects: a port that was found free is not taken by a client meanwhile."""


def _ports() -> Iterator[int]:
    """Never the same one twice. Each of the processes that share the tests has a part of them to itself, and begins
    anywhere in it: other tests may run on this machine."""
    share = (LAST_PORT - FIRST_PORT + 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first = FIRST_PORT + share * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    begin = random.SystemRandom().randrange(share)
    for number in range(share):
        yield first + (begin + number) % share


_PORTS = _ports()


def _free_port() -> int:
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Gives a port that nothing listens on."""
    return _free_port


@pytest.fixture(scope="module")
def module_port() -> Callable[[], int]:
    """`free_port` for servers that a whole module shares."""
    return _free_port


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_open() -> Iterator[None]:
    """What a file of tests left open is told at its end, and not in whatever test the collector next runs."""
    yield
    gc.collect()


@dataclass
class Upstream:
    """An OpenAI-compatible server on a thread, also of embeddings that mean nothing. `say`: the answer's pieces for the
    messages it gets; `choices`: for a request's body, the deltas of each answer in place of that. Set `status` to make it
    refuse, `cut_after` to break a stream off after so many pieces, `pause_s` to make it slow between pieces."""

    url: str = ""
    say: Callable[[list[dict[str, Any]]], list[str]] = field(default=lambda messages: ["Hello", " there."])
    choices: Callable[[dict[str, Any]], list[list[dict[str, Any]]]] | None = None
    finish_reason: str | None = None
    status: int = 200
    cut_after: int | None = None
    pause_s: float = 0.0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    broken_pipes: int = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._json(200, {"object": "list", "data": [{"id": "scripted", "object": "model"}]})

    def do_POST(self) -> None:
        script = self.server.script
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith("/embeddings"):
            return self._embeddings(body["input"])
        script.bodies.append(body)
        if script.status != 200:
            error = {"message": "told to refuse", "type": "x", "code": "told_to"}
            return self._json(script.status, {"error": error})
        said = script.choices(body) if script.choices else [[{"content": piece} for piece in script.say(body["messages"])]]
        pieces = sum(map(len, said))
        usage = {"prompt_tokens": 10, "completion_tokens": pieces, "total_tokens": 10 + pieces}
        if body.get("stream"):
            return self._stream(said, usage)
        time.sleep(script.pause_s * pieces)
        ends = {"finish_reason": script.finish_reason} if script.finish_reason else {}
        choices = [{"index": index, **_whole(deltas), **ends} for index, deltas in enumerate(said)]
        return self._json(200, {"id": "x", "model": "scripted", "choices": choices, "usage": usage})

    def _embeddings(self, texts: list[str]) -> None:
        """Unit vectors that have nothing to do with the texts, but that equal ones have equal vectors."""
        rows = [[0.0] * 384 for _ in texts]
        for row, text in zip(rows, texts, strict=True):
            row[zlib.crc32(text.encode("utf-8", "replace")) % 384] = 1.0
        self._json(200, {"data": [{"index": index, "embedding": row} for index, row in enumerate(rows)]})

    def _stream(self, said: list[list[dict[str, Any]]], usage: dict[str, int]) -> None:
        """All answers at once, their pieces in turns."""
        script = self.server.script
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        try:
            turns = itertools.chain.from_iterable(itertools.zip_longest(*map(_numbered, range(len(said)), said)))
            for number, (index, delta) in enumerate(turn for turn in turns if turn is not None):
                if script.cut_after is not None and number >= script.cut_after:
                    self.close_connection = True
                    return
                choice = {"index": index, "delta": delta, "finish_reason": None}
                if "logprobs" in delta:
                    choice |= {"delta": {"content": delta["content"]}, "logprobs": {"content": delta["logprobs"]}}
                self._event({"choices": [choice]})
                time.sleep(script.pause_s)
            for index, deltas in enumerate(said):
                reason = script.finish_reason or _reason(deltas)
                self._event({"choices": [{"index": index, "delta": {}, "finish_reason": reason}]})
            self._event({"choices": [], "usage": usage})
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            script.broken_pipes += 1
        self.close_connection = True

    def _event(self, body: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps({"id": "x", "model": "scripted", **body}).encode() + b"\n\n")
        self.wfile.flush()

    def _json(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _numbered(index: int, deltas: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    return [(index, delta) for delta in deltas]


def _reason(deltas: list[dict[str, Any]]) -> str:
    return "tool_calls" if any("tool_calls" in delta for delta in deltas) else "stop"


def _whole(deltas: list[dict[str, Any]]) -> dict[str, Any]:
    """A plain answer's choice, of the deltas that a stream would send."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(delta.get("content", "") for delta in deltas)}
    calls: dict[int, dict[str, Any]] = {}
    for piece in (piece for delta in deltas for piece in delta.get("tool_calls", ())):
        call = calls.setdefault(piece["index"], {"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call["id"] = piece.get("id", call["id"])
        for key, text in piece["function"].items():
            call["function"][key] += text
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    for key in ("refusal", "reasoning_content"):
        if text := "".join(delta.get(key, "") for delta in deltas):
            message[key] = text
    logprobs = [token for delta in deltas for token in delta.get("logprobs", ())]
    return {
        "message": message,
        "finish_reason": _reason(deltas),
        "logprobs": {"content": logprobs} if logprobs else None,
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    script: Upstream


@pytest.fixture
def upstreams() -> Iterator[Callable[[], Upstream]]:
    """Starts upstreams; each ends with the test."""
    yield from _upstreams()


@pytest.fixture(scope="module")
def module_upstreams() -> Iterator[Callable[[], Upstream]]:
    """`upstreams` for servers that a whole module shares."""
    yield from _upstreams()


def _upstreams() -> Iterator[Callable[[], Upstream]]:
    servers: list[_Server] = []

    def start() -> Upstream:
        server = _Server(("127.0.0.1", 0), _Handler)
        server.script = Upstream(url=f"http://127.0.0.1:{server.server_address[1]}/v1")
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return server.script

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@dataclass
class Process:
    """A command of ours as a real process; its output goes to `log`."""

    popen: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """kill -9."""
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()

    def kill_all(self) -> None:
        """kill -9, also of what it started: `mlflow server` leaves its worker behind, which goes on serving."""
        children = _descendants(self.popen.pid)
        self.kill()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and an end within a minute."""
        if self.popen.poll() is None:
            self.popen.terminate()
        self.popen.wait(60)


def _descendants(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    children = [int(line) for line in listed.stdout.split()]
    return children + [below for child in children for below in _descendants(child)]


@pytest.fixture
def run_process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts commands as processes (`ready`: a URL to wait for); kills what still runs when the test ends."""
    yield from _processes(tmp_path)


@pytest.fixture(scope="module")
def module_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Process]]:
    """`run_process` for servers that a whole module shares."""
    yield from _processes(tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow that `up` could have started, for all tests that keep to prompts, experiments and traces of
    names of their own: a start takes seven seconds of a processor. Who looks at its files or stops it starts another."""
    data = tmp_path_factory.mktemp("mlflow")
    settings = Settings(data=data, mlflow=Mlflow(uri=f"http://127.0.0.1:{_free_port()}"))
    argv, env = server_command(settings, data)
    for start in _processes(data):
        start(argv, ready=f"{settings.mlflow.uri}/health", env=env)
        yield settings.mlflow.uri


def _processes(folder: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(command: list[str], *, ready: str | None = None, env: dict[str, str] | None = None) -> Process:
        log = folder / f"process-{len(started)}.log"
        with log.open("wb") as out:
            popen = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}
            )
        process = Process(popen, log)
        started.append(process)
        if ready:
            wait_for(lambda: popen.poll() is not None or _answers(ready), what=f"{ready} ({log})")
            assert popen.poll() is None, log.read_text()
        return process

    yield start
    for process in started:
        if process.popen.poll() is None:
            process.kill_all()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False


def wait_for(condition: Callable[[], bool], *, what: str, within_s: float = 120.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_s} s for {what}"
        time.sleep(0.05)


@pytest.fixture(name="wait_for")
def wait_for_fixture() -> Callable[..., None]:
    """Waits until a condition holds, and says what it waited for when it never does."""
    return wait_for


RUNS = 4


def bounded(work: Callable[[], object], beside: Callable[[], object], *, times: float = 10.0, what: str = "work") -> None:
    """`work` takes less than `times` the processor time of `beside`, here and now: seconds say how fast a machine is. For
    four times as much, what is linear takes 4 times as long and what is quadratic 16: 10 parts them.

    The least of two runs of each, in turns, and of up to `RUNS` where others on this machine get in the way.
    """
    least = [float("inf"), float("inf")]
    for run in range(RUNS):
        for place, one in enumerate((work, beside)):  # in this order: what only the first run costs makes nothing pass
            began = time.process_time()
            one()
            least[place] = min(least[place], time.process_time() - began)
        if run and least[0] < times * least[1]:
            return
    ours, theirs = (seconds * 1e3 for seconds in least)
    raise AssertionError(f"{what}: {ours:.2f} ms are {ours / theirs:.2f} times {theirs:.2f} ms, not less than {times}")


@pytest.fixture(name="bounded", scope="session")
def bounded_fixture() -> Callable[..., None]:
    """The cost of one thing beside that of another: `bounded(lambda: f(4 * text), lambda: f(text))` where f is linear."""
    return bounded


OVERWRITES_NOTHING = """
import sqlite3
from sqlite3 import dbapi2

opened = sqlite3.connect

def connect(*arguments, **named):
    connection = opened(*arguments, **named)
    connection.execute("PRAGMA secure_delete = OFF").close()
    return connection

sqlite3.connect = dbapi2.connect = connect
"""


@pytest.fixture(scope="session")
def careless_sqlite(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What to add to the environment of a process so that its SQLite leaves deleted bytes where they are, as one that was
    built without SECURE_DELETE (most are; Debian's is not)."""
    folder = tmp_path_factory.mktemp("careless")
    (folder / "sitecustomize.py").write_text(OVERWRITES_NOTHING)
    return {"PYTHONPATH": str(folder)}


@pytest.fixture
def watchkeeper() -> list[str]:
    """The command line, as a list to add to."""
    return [sys.executable, "-m", "watchkeeper"]
