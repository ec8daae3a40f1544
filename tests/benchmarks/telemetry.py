"""What logging costs, and what arrives: our spool and shipper against MLflow's own SDK, both into the same MLflow server.

Nine spans a trace, the same texts, a session and a tag (clients.py). What arrived is counted in the server's database, and
only whole: finished, with all nine. `python tests/benchmarks/telemetry.py [--quick]` prints this and the gateways' part.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import SubprocessError
from typing import Final

import clients
import gateways
from clients import Cost
from servers import cpu_s, free_port, mlflow_server, shipper, whole_traces
from table import Row, figure, show

SPANS: Final = len(clients.STAGES) + 1
SDK: Final = "mlflow.start_span"
BATCH: Final = {"MLFLOW_USE_BATCH_SPAN_PROCESSOR": "true"}
QUEUE: Final = {"MLFLOW_USE_BATCH_SPAN_PROCESSOR": "false"}
LOOK_S: Final = 0.5
QUIET_S: Final = 8.0
"""So long nothing more arrives, and its sender has ended: then nothing will."""
OUTAGE_S: Final = 10.0
PAUSE_S: Final = 0.01


@dataclass(frozen=True)
class Plan:
    """How often, and how much: of ours, of the SDK's, in the burst; and how long arrivals are waited for."""

    runs: int = 3
    ours: int = 3_000
    theirs: int = 200
    burst: int = 3_000
    outage: int = 300
    limit_s: float = 240.0


QUICK: Final = Plan(runs=1, ours=500, theirs=50, burst=300, outage=200, limit_s=90.0)


@dataclass(frozen=True)
class Arrived:
    """`whole`: traces that arrived with all their spans; `rate`: of them a second, from the first call until the last was
    there; `cost`: None where the sender did not end in time."""

    whole: int
    rate: float
    cost: Cost | None


class Bench:
    """One MLflow server, and a shipper that delivers to it what clients leave in its spool."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.plan = plan
        self.port = free_port()
        self.server = folder / "server"
        self.home = folder / "ours"
        self.home.mkdir(parents=True)
        self.config = self.home / "watchkeeper.toml"
        uri = f"http://127.0.0.1:{self.port}"
        self.uri = uri
        self.config.write_text(f'data = "{self.home / "data"}"\n[mlflow]\nuri = "{uri}"\nexperiment = "ours"\n')

    def ours(self, requests: int, pause_s: float = 0.0) -> Cost:
        return clients.run("ours", str(self.home / "data" / "spool"), str(requests), "process", "record", str(pause_s))

    def sdk(self, experiment: str, variant: dict[str, str], requests: int, pause_s: float) -> Cost:
        arguments = ("sdk", self.uri, experiment, str(requests), str(pause_s))
        return clients.run(*arguments, environment=variant, timeout=self.plan.limit_s)

    def whole(self, experiment: str) -> int:
        return whole_traces(self.server, experiment, SPANS)

    def arrive(self, experiment: str, log: Callable[[], Cost], expected: int, limit_s: float) -> Arrived:
        """Has something logged and watches what arrives of it."""
        before = last = self.whole(experiment)
        started = last_at = time.time()
        with ThreadPoolExecutor(1) as pool:
            logging = pool.submit(log)
            while last - before < expected and time.time() - started < limit_s:
                time.sleep(LOOK_S)
                now = self.whole(experiment)
                if now > last:
                    last, last_at = now, time.time()
                elif logging.done() and time.time() - max(last_at, started) > QUIET_S:
                    break
            cost = _ended(logging)
        began = cost.began_at if cost else started
        return Arrived(last - before, (last - before) / max(last_at - began, LOOK_S), cost)


def _ended(logging: "Future[Cost]") -> Cost | None:
    try:
        return logging.result()
    except SubprocessError:
        return None  # it did not end in time: what arrived was counted


def rows(quick: bool = False) -> Iterator[Row]:
    plan = QUICK if quick else Plan()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), plan)
        with mlflow_server(bench.server, bench.port), shipper(bench.config) as shipping:
            yield from _thread(bench, Path(folder))
            yield from _arrivals(bench, shipping)
        yield from _outage(bench)


def _thread(bench: Bench, folder: Path) -> Iterator[Row]:
    """What the thread that serves pays, and how long the last byte waits."""
    plan = bench.plan
    made: list[Cost] = []
    bare: list[Cost] = []
    power: list[Cost] = []
    sdk: list[Cost] = []
    for run in range(plan.runs):
        for costs, durability, make in (
            (made, "process", "record"),
            (bare, "process", "bare"),
            (power, "power", "record"),
        ):
            place = folder / f"{durability}-{make}-{run}"
            costs.append(clients.run("ours", str(place), str(plan.ours), durability, make, "0"))
        sdk.append(bench.sdk("thread", BATCH, plan.theirs, PAUSE_S))
    peer = f"{SDK}, asynchronous"

    def of(costs: list[Cost], name: str) -> list[float]:
        return [float(getattr(cost, name)) for cost in costs]

    for what, costs in (("redacted, made and spooled", made), ("spooled, its record already made", bare)):
        for name, label in (("wall_p50_us", "p50"), ("wall_p99_us", "p99"), ("thread_us", "CPU")):
            yield Row(
                f"time on the request's thread, {label}, {what}",
                figure(of(costs, name), "µs"),
                peer,
                figure(of(sdk, name), "µs"),
            )
    for name, label in (("wait_p50_ms", "p50"), ("wait_p99_ms", "p99")):
        yield Row(
            f"the last byte waits for the commit, {label}, `process`",
            figure(of(made, name), "ms"),
            "ours with `power`",
            figure(of(power, name), "ms"),
        )


def _arrivals(bench: Bench, shipping: int) -> Iterator[Row]:
    """CPU of the client until all is delivered, traces a second until they can be seen, and what a burst loses."""
    plan = bench.plan
    variants = {"batch": ("with BatchSpanProcessor, its default", BATCH), "queue": ("without BatchSpanProcessor", QUEUE)}
    mine: list[Arrived] = []
    cpu: list[float] = []
    theirs: dict[str, list[Arrived]] = {name: [] for name in variants}
    for _ in range(plan.runs):
        before = cpu_s(shipping)
        arrived = bench.arrive("ours", lambda: bench.ours(plan.ours), plan.ours, plan.limit_s)
        mine.append(arrived)
        if arrived.cost is not None and arrived.whole:
            cpu.append(arrived.cost.process_us + (cpu_s(shipping) - before) / arrived.whole * 1e6)
        for name, (_, variant) in variants.items():
            log = _sdk(bench, name, variant, plan.theirs)
            theirs[name].append(bench.arrive(name, log, plan.theirs, plan.limit_s))
    for name, (label, _) in variants.items():
        costs = [one.cost.process_us for one in theirs[name] if one.cost is not None]
        if costs and cpu:
            what = "CPU of the client until delivered, all threads, a trace (ours: into the lake too)"
            yield Row(what, figure(cpu, "µs"), f"{SDK} {label}", figure(costs, "µs"))
    for name, (label, _) in variants.items():
        yield Row(
            "traces a second until they can be seen, same MLflow server",
            figure([one.rate for one in mine], "/s"),
            f"{SDK} {label}",
            figure([one.rate for one in theirs[name]], "/s"),
            less_is_better=False,
        )
    kept = bench.arrive("ours", lambda: bench.ours(plan.burst), plan.burst, plan.limit_s).whole
    for name, (label, variant) in variants.items():
        arrived = bench.arrive(name, _sdk(bench, name, variant, plan.burst), plan.burst, plan.limit_s)
        yield Row(
            f"whole traces after a burst of {plan.burst:,}",
            figure([kept], ""),
            f"{SDK} {label}",
            figure([arrived.whole], ""),
            less_is_better=False,
        )


def _sdk(bench: Bench, experiment: str, variant: dict[str, str], requests: int) -> Callable[[], Cost]:
    return lambda: bench.sdk(experiment, variant, requests, 0.0)


def _outage(bench: Bench) -> Iterator[Row]:
    """What is left when the server is away for a while in mid-traffic."""
    plan = bench.plan
    pause_s = 2 * OUTAGE_S / plan.outage
    with shipper(bench.config):
        kept = _through(bench, "ours", lambda: bench.ours(plan.outage, pause_s))
    left = _through(bench, "outage", lambda: bench.sdk("outage", BATCH, plan.outage, pause_s))
    yield Row(
        f"whole traces of {plan.outage} when MLflow is away for {OUTAGE_S:.0f} s of {2 * OUTAGE_S:.0f} s",
        figure([kept], ""),
        f"{SDK} with BatchSpanProcessor, its default",
        figure([left], ""),
        less_is_better=False,
    )


def _through(bench: Bench, experiment: str, log: Callable[[], Cost]) -> int:
    plan = bench.plan
    with ThreadPoolExecutor(1) as pool:
        with mlflow_server(bench.server, bench.port):
            before = bench.whole(experiment)
            logging = pool.submit(log)
            _wait(lambda: bench.whole(experiment) > before, plan.limit_s)
        time.sleep(OUTAGE_S)
        with mlflow_server(bench.server, bench.port):
            arrived = bench.arrive(experiment, lambda: _result(logging), plan.outage, plan.limit_s / 2)
            extra = 1 if experiment != "ours" else 0  # the SDK's first trace only opens its connection
            return min(bench.whole(experiment) - before - extra, plan.outage) if arrived else 0


def _result(logging: "Future[Cost]") -> Cost:
    return logging.result()


def _wait(reached: Callable[[], bool], limit_s: float) -> None:
    until = time.monotonic() + limit_s
    while not reached() and time.monotonic() < until:
        time.sleep(LOOK_S)


if __name__ == "__main__":
    quick = "--quick" in sys.argv[1:]
    show([*rows(quick), *gateways.rows(quick)])
