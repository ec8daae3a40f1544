"""The gateway before three replicas of which one is slow, comes and goes, or is dead, against round robin and least busy.

Each policy has three replicas of its own (replica.py), all run at the same time under the same arrivals (arrivals.py) at
60% of what three can do, with all that there is to learn in the run. p99 is given as a multiple of the gateway's own p99
before three healthy replicas in the same round; errors are counted by the clients. `python balancing.py [SECONDS ROUNDS]`.
"""

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import arrivals
from arrivals import Arrivals
from servers import free_port, gateway
from table import Row, figure, show

HERE: Final = Path(__file__).parent
MEDIAN_S: Final = 0.25
SIGMA: Final = 0.6
MEAN_S: Final = MEDIAN_S * math.exp(SIGMA**2 / 2)
SLOTS: Final = 8
REPLICAS: Final = 3
RATE: Final = 0.6 * REPLICAS * SLOTS / MEAN_S
POLICIES: Final = ("gateway", "round-robin", "least-busy")
SCENES: Final = ("healthy", "slow", "flapping", "dead")
TURN_S: Final = 2.0
"""How long the one that comes and goes is away, and there."""
READY_S: Final = 30.0
TOML: Final = """
[stages]
embed = false
ground = false
guard_in = false
check = false
guard_out = false
[mlflow]
uri = "http://127.0.0.1:9"
"""
UPSTREAM: Final = '[[upstreams]]\nname = "replica-{at}"\nmodel = "replica"\nbase_url = "{url}/v1"\n'


@dataclass
class Replica:
    """One process on a port of its own; `start` and `kill` as often as one likes."""

    factor: float
    seed: int
    port: int = field(default_factory=free_port)
    child: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        numbers = (self.port, MEDIAN_S * self.factor, SIGMA, SLOTS, self.seed)
        self.child = subprocess.Popen([sys.executable, str(HERE / "replica.py"), *map(str, numbers)])

    def kill(self) -> None:
        if self.child is not None:
            self.child.send_signal(signal.SIGKILL)
            self.child.wait()
            self.child = None

    def wait(self) -> None:
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise RuntimeError(f"a replica does not listen on {self.port}")


@contextlib.contextmanager
def _replicas(scene: str, seed: int) -> Iterator[list[Replica]]:
    """Three, of which the first is what the scene says."""
    factors = [10.0 if scene == "slow" else 1.0, 1.0, 1.0]
    made = [Replica(factor, seed + at) for at, factor in enumerate(factors)]
    over = threading.Event()
    flapping = threading.Thread(target=_come_and_go, args=(made[0], over))
    try:
        for replica in made[1:] if scene == "dead" else made:
            replica.start()
        for replica in made[1:] if scene == "dead" else made:
            replica.wait()
        if scene == "flapping":
            flapping.start()
        yield made
    finally:
        over.set()
        if flapping.ident is not None:
            flapping.join()
        for replica in made:
            replica.kill()


def _come_and_go(replica: Replica, over: threading.Event) -> None:
    while not over.wait(TURN_S):
        if replica.child is None:
            replica.start()
        else:
            replica.kill()


def _scene(scene: str, folder: Path, seconds: float, seed: int) -> dict[str, Arrivals]:
    """What clients got of each policy, all at the same time."""
    with contextlib.ExitStack() as stack:
        targets: dict[str, list[str]] = {}
        for policy in POLICIES:
            urls = [replica.url for replica in stack.enter_context(_replicas(scene, seed))]
            if policy == "gateway":
                toml = TOML + "".join(UPSTREAM.format(at=at, url=url) for at, url in enumerate(urls))
                url, _ = stack.enter_context(gateway(folder / f"{scene}-{seed}", toml))
                urls = [url]
            targets[policy] = urls
        sending = {policy: arrivals.start(policy, RATE, seconds, seed, urls) for policy, urls in targets.items()}
        return {policy: arrivals.finish(one, seconds) for policy, one in sending.items()}


def rows(seconds: float = 30.0, rounds: int = 3) -> Iterator[Row]:
    found: dict[str, list[dict[str, Arrivals]]] = {scene: [] for scene in SCENES}
    with tempfile.TemporaryDirectory() as name:
        for number in range(rounds):
            for scene in SCENES:
                done = _scene(scene, Path(name), seconds, 10 * number)
                found[scene].append(done)
                print(f"{scene} {number}, load {os.getloadavg()[0]:.1f}: {done}", file=sys.stderr)
    for scene in SCENES[1:]:
        for peer in POLICIES[1:]:
            yield from _rows(scene, peer, found["healthy"], found[scene])


def _rows(scene: str, peer: str, healthy: list[dict[str, Arrivals]], runs: list[dict[str, Arrivals]]) -> Iterator[Row]:
    theirs = peer.replace("-", " ")

    def times(policy: str, which: str) -> list[float]:
        return [
            getattr(run[policy], which) / getattr(well["gateway"], which) for well, run in zip(healthy, runs, strict=True)
        ]

    for which, when in (("p99_ms", "whole run"), ("settled_p99_ms", f"after {arrivals.SETTLED_S:.0f} s")):
        what = f"p99, one of three replicas {scene}, {when}"
        unit = "x healthy"
        yield Row(what, figure(times("gateway", which), unit), theirs, figure(times(peer, which), unit))
    ours, others = ([float(run[policy].failed) for run in runs] for policy in ("gateway", peer))
    of = f"of {runs[0]['gateway'].sent:,}"
    yield Row(f"errors, one of three replicas {scene}", figure(ours, of), theirs, figure(others, of))


if __name__ == "__main__":
    show(rows(float(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) == 3 else rows())
