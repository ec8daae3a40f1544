"""One gateway worker before an upstream that answers at once, against LiteLLM's proxy before the same one.

Guards, encoder and grounding are off, as LiteLLM has none; cleaning and language detection stay on. Logged means:
everything into the spool, shipper and MLflow server at work beside it on the same machine; LiteLLM logs through its MLflow
callback to a server of the same kind. The same load on both (load.py), each prompt with a word of its own.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import peers
from load import Load, load
from servers import cpu_s, free_port, gateway, mlflow_server, process, resident_mb, shipper
from table import Figure, Row, figure

from watchkeeper.telemetry.shipper import ShipperStatus

HERE: Final = Path(__file__).parent
CONNECTIONS: Final = (1, 8, 64)
TOML: Final = """
[stages]
embed = false
ground = false
guard_in = false
check = false
guard_out = false
[mlflow]
uri = "{mlflow}"
[[upstreams]]
name = "instant"
model = "instant"
base_url = "{upstream}"
"""
CALLBACK: Final = "LiteLLM 1.106 with its MLflow callback"
DRAIN_S: Final = 600.0


@dataclass(frozen=True)
class Plan:
    """`requests`: of a run of ours; `seconds`: of a run of LiteLLM's; `memory`: requests after which memory is read."""

    runs: int = 3
    requests: int = 2_000
    seconds: float = 8.0
    memory: tuple[int, ...] = (10_000, 50_000, 100_000)


QUICK: Final = Plan(runs=1, requests=300, seconds=5.0, memory=(1_000, 2_000, 3_000))


@dataclass(frozen=True)
class Run:
    """A load, and what the gateway's process used of the processor for each of its answers."""

    load: Load
    cpu_us: float


LATENCY: Final[tuple[tuple[str, str, Callable[[Run], float]], ...]] = (
    ("p50", "ms", lambda run: run.load.p50_ms),
    ("p99", "ms", lambda run: run.load.p99_ms),
    ("CPU of the gateway a request", "µs", lambda run: run.cpu_us),
)

Runs = dict[int, list[Run]]
"""By the number of connections."""


def rows(quick: bool = False) -> Iterator[Row]:
    plan = QUICK if quick else Plan()
    with tempfile.TemporaryDirectory() as name, upstream_server(Path(name)) as upstream:
        folder = Path(name)
        logged, unlogged, complete = _ours(folder, upstream, plan)
        theirs = _theirs(folder, upstream, plan)
        if theirs:
            yield from _against(logged, theirs)
        for connections in CONNECTIONS:
            yield Row(
                f"CPU of the gateway a request, {connections} connections",
                of_runs(logged, connections, lambda run: run.cpu_us, "µs"),
                "ours without logging",
                of_runs(unlogged, connections, lambda run: run.cpu_us, "µs"),
            )
        answered = sum(run.load.answered for runs in logged.values() for run in runs)
        what = "requests complete in spool, MLflow and lake by `verify`, once drained"
        yield Row(what, figure([complete], ""), "answers that clients got", figure([answered], ""), less_is_better=False)
        yield from _memory(folder, upstream, plan)


def _against(ours: Runs, theirs: Runs) -> Iterator[Row]:
    for connections in CONNECTIONS:
        of = f"{connections} connection{'s' if connections > 1 else ''}, all logged"
        yield Row(
            f"requests a second, {of}",
            of_runs(ours, connections, lambda run: run.load.rate, "/s"),
            CALLBACK,
            of_runs(theirs, connections, lambda run: run.load.rate, "/s"),
            less_is_better=False,
        )
        for label, unit, of_run in LATENCY:
            mine, other = of_runs(ours, connections, of_run, unit), of_runs(theirs, connections, of_run, unit)
            yield Row(f"{label}, {of}", mine, CALLBACK, other)


def of_runs(runs: Runs, connections: int, of: Callable[[Run], float], unit: str) -> Figure:
    return figure([of(run) for run in runs[connections]], unit)


@contextlib.contextmanager
def upstream_server(folder: Path, sentences: int = 1) -> Iterator[str]:
    """An upstream that answers at once. Yields its URL, which ends in /v1."""
    port = free_port()
    command = [sys.executable, str(HERE / "upstream.py"), str(port), str(sentences)]
    with process(command, f"http://127.0.0.1:{port}/", folder / "upstream.log"):
        yield f"http://127.0.0.1:{port}/v1"


def _ours(folder: Path, upstream: str, plan: Plan) -> tuple[Runs, Runs, int]:
    """Runs with and without logging, in turn; and how many of the logged requests are complete in the end."""
    home = folder / "logged"
    with mlflow_server(folder / "server") as (mlflow, _):
        toml = TOML.format(mlflow=mlflow, upstream=upstream)
        with (
            gateway(home, toml) as (url, pid),
            gateway(folder / "unlogged", toml, (str(HERE / "unlogged.py"),)) as (bare_url, bare_pid),
            shipper(home / "watchkeeper.toml"),
        ):
            warm = run((url, pid), 8, plan.requests / 4)
            run((bare_url, bare_pid), 8, plan.requests / 4)
            logged: Runs = {connections: [] for connections in CONNECTIONS}
            unlogged: Runs = {connections: [] for connections in CONNECTIONS}
            for _ in range(plan.runs):
                for connections in CONNECTIONS:
                    _drained(home)
                    unlogged[connections].append(run((bare_url, bare_pid), connections, plan.requests))
                    logged[connections].append(run((url, pid), connections, plan.requests))
            _drained(home)
        complete = _complete(home) - warm.load.answered
    return logged, unlogged, complete


def run(one: tuple[str, int], connections: int, most: float, seconds: float = 60.0, key: str = "") -> Run:
    """`most` requests, or as many as `seconds` hold. Raises `RuntimeError` where one failed."""
    url, pid = one
    before = cpu_s(pid)
    done = load(url, connections, seconds=seconds, most=int(most), key=key)
    if done.failed or not done.answered:
        raise RuntimeError(f"{url}: {done.failed} of {done.failed + done.answered} requests failed")
    return Run(done, (cpu_s(pid) - before) / done.answered * 1e6)


def _drained(home: Path) -> None:
    """Waits until MLflow and the lake have all, so that what comes next is not measured beside their work."""
    until = time.monotonic() + DRAIN_S
    asked_at = time.time() * 1e6
    while time.monotonic() < until:
        time.sleep(0.5)
        with contextlib.suppress(OSError, msgspec.DecodeError):
            status = msgspec.json.decode((home / "data" / "shipper.json").read_bytes(), type=ShipperStatus)
            if status.at > asked_at and all(sink.pending == 0 for sink in status.sinks.values()):
                return
    raise RuntimeError(f"{home}: not delivered within {DRAIN_S:.0f} s")


def _complete(home: Path) -> int:
    """How many requests `verify` finds everywhere; 0 unless it finds all of them."""
    command = [sys.executable, "-m", "watchkeeper", "verify", "--json", "--config", str(home / "watchkeeper.toml")]
    done = subprocess.run(command, capture_output=True, timeout=600)
    told = msgspec.json.decode(done.stdout)
    return int(told["served"]) if done.returncode == 0 else 0


def _theirs(folder: Path, upstream: str, plan: Plan) -> Runs:
    """LiteLLM with its callback; nothing, with a word on why, where it cannot be had."""
    try:
        programs = peers.environment()
    except peers.PeerMissing as missing:
        print(f"without LiteLLM: {missing}", file=sys.stderr)
        return {}
    with mlflow_server(folder / "peer-server") as (mlflow, _):
        return proxied(folder / "callback", programs, upstream, mlflow, plan.runs, plan.seconds)


def proxied(folder: Path, programs: Path, upstream: str, mlflow: str | None, runs: int, seconds: float) -> Runs:
    """LiteLLM's proxy under load, logging to `mlflow` or nowhere."""
    with peers.proxy(folder, programs, upstream, mlflow) as one:
        run(one, 8, 50, key=peers.KEY)
        return {
            connections: [run(one, connections, 1e9, seconds, peers.KEY) for _ in range(runs)]
            for connections in CONNECTIONS
        }


def _memory(folder: Path, upstream: str, plan: Plan) -> Iterator[Row]:
    """Memory of one worker as it serves on, everything spooled."""
    with gateway(folder / "memory", TOML.format(mlflow="http://127.0.0.1:9", upstream=upstream)) as (url, pid):
        held: list[float] = []
        served = 0
        for requests in plan.memory:
            load(url, 8, seconds=600, most=requests - served)
            served = requests
            held.append(resident_mb(pid))
    for requests, now in zip(plan.memory[1:], held[1:], strict=True):
        what = f"memory of a gateway worker after {requests:,} requests"
        yield Row(what, figure([now], "MB"), f"itself after {plan.memory[0]:,}", figure(held[:1], "MB"))
