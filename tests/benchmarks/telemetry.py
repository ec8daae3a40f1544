"""What logging costs, and what arrives: our spool and shipper against MLflow's own SDK, both into the same MLflow server.

Nine spans a trace, the same texts, a session and a tag (clients.py). What arrived is counted in the server's database, and
only whole: finished, with all nine. `python tests/benchmarks/telemetry.py [--quick]` prints this and the gateways' part.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from subprocess import SubprocessError
from typing import Final

import clients
import gateways
from clients import Cost
from servers import cpu_s, free_port, mlflow_server, shipper, whole_traces
from table import Figure, Row, figure, show

SPANS: Final = len(clients.STAGES) + 1
SDK: Final = "mlflow.start_span"
OURS: Final = "ours"
BATCH: Final = {"MLFLOW_USE_BATCH_SPAN_PROCESSOR": "true"}
VARIANTS: Final = {
    "BatchSpanProcessor (its default)": BATCH,
    "asynchronous queue": {"MLFLOW_USE_BATCH_SPAN_PROCESSOR": "false"},
}
"""By the name of the experiment that each logs to."""
LOOK_S: Final = 0.5
QUIET_S: Final = 8.0
"""So long nothing more arrives, and its sender has ended: then nothing will."""
OUTAGE_S: Final = 10.0
WARM: Final = 100
START_S: Final = 90.0
PAUSE_S: Final = 0.01


@dataclass(frozen=True)
class Plan:
    """How often, and how much: of ours, of the SDK's, in the burst, during the outage; how long arrivals are waited for."""

    runs: int = 3
    ours: int = 2_000
    theirs: int = 150
    burst: int = 3_000
    outage: int = 1_500
    limit_s: float = 150.0


QUICK: Final = Plan(runs=1, ours=500, theirs=50, burst=300, outage=200, limit_s=90.0)


@dataclass(frozen=True)
class Arrived:
    """`whole`: traces that arrived with all their spans; `rate`: of them a second, from the first call until the last was
    there; `server_us`: CPU of the MLflow server for each; `cost`: None where the sender did not end in time."""

    whole: int
    rate: float
    server_us: float
    cost: Cost | None


class Bench:
    """Where an MLflow server works, and the settings of a shipper that delivers to it what clients leave in a spool."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.plan = plan
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder / "server"
        home = folder / "ours"
        home.mkdir(parents=True)
        self.spool = home / "data" / "spool"
        self.config = home / "watchkeeper.toml"
        self.config.write_text(f'data = "{home / "data"}"\n[mlflow]\nuri = "{self.uri}"\nexperiment = "{OURS}"\n')

    def server(self) -> AbstractContextManager[tuple[str, int]]:
        return mlflow_server(self.folder, self.port)

    def ours(self, requests: int, pause_s: float = 0.0) -> Cost:
        return clients.run(*self.command(OURS, requests, pause_s), timeout=self.plan.limit_s)

    def sdk(self, experiment: str, variant: dict[str, str], requests: int, pause_s: float = 0.0) -> Cost:
        command = self.command(experiment, requests, pause_s)
        return clients.run(*command, environment=variant, timeout=self.plan.limit_s)

    def command(self, experiment: str, requests: int, pause_s: float) -> tuple[str, ...]:
        """What `clients.py` is asked to do."""
        if experiment == OURS:
            return "ours", str(self.spool), str(requests), "process", "redacted", str(pause_s)
        return "sdk", self.uri, experiment, str(requests), str(pause_s)

    def whole(self, experiment: str) -> int:
        return whole_traces(self.folder, experiment, SPANS)

    def arrive(self, server: int, experiment: str, log: Callable[[], Cost], expected: int) -> Arrived:
        """Has something logged and watches what arrives of it. `server`: the process whose CPU that takes."""
        expected += experiment != OURS  # the SDK's first opens its connection, and is not measured
        before = last = self.whole(experiment)
        started = last_at = time.time()
        used = cpu_s(server)
        with ThreadPoolExecutor(1) as pool:
            logging = pool.submit(log)
            while last - before < expected and time.time() - started < self.plan.limit_s:
                time.sleep(LOOK_S)
                now = self.whole(experiment)
                if now > last:
                    last, last_at = now, time.time()
                elif logging.done() and time.time() - last_at > QUIET_S:
                    break
            cost = _ended(logging)
        whole = max(0, last - before - (experiment != OURS))
        spent = max(last_at - (cost.began_at if cost else started), LOOK_S)
        return Arrived(whole, whole / spent, (cpu_s(server) - used) / max(whole, 1) * 1e6, cost)


def _ended(logging: "Future[Cost]") -> Cost | None:
    try:
        return logging.result()
    except SubprocessError:
        return None  # it did not end in time: what arrived was counted


def rows(quick: bool = False) -> Iterator[Row]:
    plan = QUICK if quick else Plan()
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), plan)
        with bench.server() as (_, server):
            yield from _thread(bench, Path(name))
            with shipper(bench.config) as shipping:
                yield from _arrivals(bench, server, shipping)
        yield from _outage(bench)


def _thread(bench: Bench, folder: Path) -> Iterator[Row]:
    """What the thread that serves pays, and how long the last byte waits."""
    plan = bench.plan
    ways = (("process", "redacted"), ("process", "raw"), ("power", "redacted"))
    ours: dict[tuple[str, str], list[Cost]] = {way: [] for way in ways}
    sdk: list[Cost] = []
    for run in range(plan.runs):
        for durability, make in ways:
            place = str(folder / f"{durability}-{make}-{run}")
            ours[durability, make].append(clients.run("ours", place, str(plan.ours), durability, make, "0"))
        sdk.append(bench.sdk("thread", BATCH, plan.theirs, PAUSE_S))
    for way, what in (("redacted", "redacted, made and spooled"), ("raw", "made and spooled, not redacted")):
        for name, label in (("wall_p50_us", "p50"), ("wall_p99_us", "p99"), ("thread_us", "CPU")):
            mine, theirs = _of(ours["process", way], name, "µs"), _of(sdk, name, "µs")
            yield Row(f"time on the request's thread, {label}, {what}", mine, f"{SDK}, asynchronous", theirs)
    for name, label in (("wait_p50_ms", "p50"), ("wait_p99_ms", "p99")):
        mine, theirs = _of(ours["process", "redacted"], name, "ms"), _of(ours["power", "redacted"], name, "ms")
        yield Row(f"the last byte waits until its record is durable, {label}, `process`", mine, "ours with `power`", theirs)


def _of(costs: list[Cost], name: str, unit: str) -> Figure:
    return figure([float(getattr(cost, name)) for cost in costs], unit)


def _arrivals(bench: Bench, server: int, shipping: int) -> Iterator[Row]:
    """CPU of client and server, traces a second until they can be seen, and what is left of a burst."""
    plan = bench.plan
    mine: list[Arrived] = []
    cpu: list[float] = []
    theirs: dict[str, list[Arrived]] = {name: [] for name in VARIANTS}
    bench.arrive(server, OURS, lambda: bench.ours(WARM), WARM)  # as the SDK's first trace is not measured either
    for _ in range(plan.runs):
        before = cpu_s(shipping)
        arrived = bench.arrive(server, OURS, lambda: bench.ours(plan.ours), plan.ours)
        mine.append(arrived)
        if arrived.cost is not None:
            cpu.append(arrived.cost.process_us + (cpu_s(shipping) - before) / max(arrived.whole, 1) * 1e6)
        for name, variant in VARIANTS.items():
            theirs[name].append(bench.arrive(server, name, _sdk(bench, name, variant, plan.theirs), plan.theirs))
    for name, arrivals in theirs.items():
        peer = f"{SDK}, {name}"
        costs = [one.cost.process_us for one in arrivals if one.cost is not None]
        if costs and cpu:
            what = "CPU of the client a trace until delivered, all threads (ours: into the lake too)"
            yield Row(what, figure(cpu, "µs"), peer, figure(costs, "µs"))
        servers = (figure([one.server_us for one in some], "µs") for some in (mine, arrivals))
        yield Row("CPU of the MLflow server a trace", next(servers), peer, next(servers))
        rates = (figure([one.rate for one in some], "/s") for some in (mine, arrivals))
        what = "traces a second until they can be seen, same MLflow server"
        yield Row(what, next(rates), peer, next(rates), less_is_better=False)
    kept = bench.arrive(server, OURS, lambda: bench.ours(plan.burst), plan.burst).whole
    for name, variant in VARIANTS.items():
        left = bench.arrive(server, name, _sdk(bench, name, variant, plan.burst), plan.burst).whole
        what = f"whole traces of a burst of {plan.burst:,}, {plan.limit_s:.0f} s later at most"
        yield Row(what, figure([kept], ""), f"{SDK}, {name}", figure([left], ""), less_is_better=False)


def _sdk(bench: Bench, experiment: str, variant: dict[str, str], requests: int) -> Callable[[], Cost]:
    return lambda: bench.sdk(experiment, variant, requests)


def _outage(bench: Bench) -> Iterator[Row]:
    """What is left when MLflow is away for a while in mid-traffic; and when the client is killed before it is back."""
    requests = bench.plan.outage
    for killed in (False, True):
        with shipper(bench.config):
            kept = _through(bench, OURS, killed=killed)
        left = _through(bench, "outage", killed=killed)
        away = f"MLflow is away for {OUTAGE_S:.0f} s" + (", the client killed (-9) meanwhile" if killed else "")
        what = f"whole traces of {requests:,} when {away}"
        yield Row(what, figure([kept], ""), f"{SDK}, its default", figure([left], ""), less_is_better=False)


def _through(bench: Bench, experiment: str, *, killed: bool) -> int:
    """How many arrive of those that were logged, most of them while the server was away."""
    requests = bench.plan.outage
    command = bench.command(experiment, requests, OUTAGE_S / requests)
    with bench.server():
        before = bench.whole(experiment)
        client = clients.start(*command)
        _wait(lambda: bench.whole(experiment) > before or client.poll() is not None, START_S)
    try:
        clients.wait_logged(client, START_S)
        if killed:
            client.kill()
        with bench.server():
            last, last_at = bench.whole(experiment), time.monotonic()
            while time.monotonic() - last_at < (2 * QUIET_S if killed or client.poll() is not None else bench.plan.limit_s):
                time.sleep(LOOK_S)
                now = bench.whole(experiment)
                if now > last:
                    last, last_at = now, time.monotonic()
            return last - before - (experiment != OURS)
    finally:
        client.kill()
        client.wait()


def _wait(reached: Callable[[], bool], limit_s: float) -> None:
    until = time.monotonic() + limit_s
    while not reached() and time.monotonic() < until:
        time.sleep(LOOK_S)


if __name__ == "__main__":
    quick = "--quick" in sys.argv[1:]
    show([*rows(quick), *gateways.rows(quick)])
