"""What the loop adds to an answer: with every stage on, against calls of the encoder; with guards, encoder and grounding
off, against LiteLLM's proxy that logs nothing, while ours writes its spool and nothing reads it.

A prompt of about 50 tokens, an answer of about 60, an upstream that answers at once. Added means: beyond what the upstream
takes for the same load when asked directly. `python tests/benchmarks/serving.py [--quick]` prints this part.
"""

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import gateways
import peers
import requests
from gateways import CONNECTIONS, Run, Runs
from load import Load, load, word
from servers import free_port, gateway, process
from table import Figure, Row, figure, show

import watchkeeper
from watchkeeper.encoder.client import EncoderClient
from watchkeeper.record import STAGES, Record
from watchkeeper.telemetry.erasure import waiting

KNOWLEDGE: Final = Path(watchkeeper.__file__).parent / "cli" / "demo" / "knowledge"
PROMPT: Final = (
    "I began here as a {} in spring and work four days a week. How many days of annual leave do I have this year, how "
    "many of them may I carry over into the next one, and until when do I have to take those?"
)
BARE: Final = "LiteLLM 1.106 bare, nothing logged"
CALL: Final = "calls of the encoder, p50, one at a time"
P50_CALLS: Final = 4
P99_CALLS: Final = 10
WHOLE: Final = """
[knowledge]
folders = ["{knowledge}"]
[encoder]
port = {encoder}
[mlflow]
uri = "http://127.0.0.1:9"
[[upstreams]]
name = "instant"
model = "instant"
base_url = "{upstream}"
"""
READY_S: Final = 120.0
TIMES: Final[tuple[tuple[str, Callable[[Load], float]], ...]] = (
    ("p50", lambda load: load.p50_ms),
    ("p99", lambda load: load.p99_ms),
)


@dataclass(frozen=True)
class Plan:
    """`runs`: of each; `prompts`: one after the other in a run; `requests`: of a run under load; `seconds`: of a run of the
    peer's."""

    runs: int = 3
    prompts: int = 200
    requests: int = 2_000
    seconds: float = 6.0


QUICK: Final = Plan(runs=1, prompts=50, requests=300, seconds=4.0)


def rows(quick: bool = False) -> Iterator[Row]:
    plan = QUICK if quick else Plan()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with gateways.upstream_server(folder, sentences=2) as upstream, _encoder(folder) as encoder:
            toml = WHOLE.format(knowledge=KNOWLEDGE, encoder=encoder, upstream=upstream)
            with gateway(folder / "whole", toml) as one:
                _wait_ready(one[0])
                yield from _overhead(one[0], f"http://127.0.0.1:{encoder}/v1", folder / "whole", plan)
                guarded = {
                    connections: [_guarded(one, connections, plan) for _ in range(plan.runs)] for connections in CONNECTIONS
                }
        yield from _against_litellm(folder, guarded, plan)


def _overhead(url: str, encoder: str, home: Path, plan: Plan) -> Iterator[Row]:
    """Every stage on, one request at a time."""
    _prompts(url, plan.prompts // 4)
    p50, p99, call = [], [], []
    for _ in range(plan.runs):
        call.append(asyncio.run(_encoder_call_ms(encoder, plan.prompts)))
        told = sorted(_prompts(url, plan.prompts))
        p50.append(statistics.median(told))
        p99.append(told[int(len(told) * 0.99)])
    for what, mine, calls in (("p50", p50, P50_CALLS), ("p99", p99, P99_CALLS)):
        peer = figure([one * calls for one in call], "ms")
        yield Row(f"overhead, every stage on, one at a time, {what}", figure(mine, "ms"), f"{calls} {CALL}", peer)
    records = _records(home)[-plan.prompts * plan.runs :]
    for stage in STAGES:
        spent = sorted(one.ms for record in records for one in record.stages if one.name == stage)
        if stage != "generate":
            at = Figure(statistics.median(spent), spent[len(spent) // 100], spent[int(len(spent) * 0.99)], "ms")
            yield Row(
                f"of it in {stage}, p50 (p1-p99)", at, "one call of the encoder, p50, one at a time", figure(call, "ms")
            )


def _prompts(url: str, count: int) -> list[float]:
    """Milliseconds of overhead, as each answer tells."""
    told: list[float] = []
    with requests.Session() as session:
        for _ in range(count):
            messages = [{"role": "user", "content": PROMPT.format(word())}]
            answer = session.post(
                f"{url}/v1/chat/completions", json={"model": "watchkeeper", "messages": messages}, timeout=60
            )
            answer.raise_for_status()
            told.append(float(answer.headers["x-watchkeeper-overhead-ms"]))
    return told


async def _encoder_call_ms(url: str, count: int) -> float:
    """How long the gateway's own client takes for one prompt, p50."""
    took: list[float] = []
    async with aiohttp.ClientSession() as session:
        client = EncoderClient(url, "all-minilm-l6-v2", session, timeout_s=30.0)
        for _ in range(count):
            begun = time.perf_counter()
            await client.embed([PROMPT.format(word())])
            took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took)


def _records(home: Path) -> list[Record]:
    """All that the gateway has written so far, in order."""
    found = (said for said in waiting(home / "data" / "spool") if isinstance(said, Record))
    return sorted(found, key=lambda record: record.received_at)


def _guarded(one: tuple[str, int], connections: int, plan: Plan) -> Run:
    return gateways.run(one, connections, plan.requests / 10)


def _against_litellm(folder: Path, guarded: Runs, plan: Plan) -> Iterator[Row]:
    with gateways.upstream_server(folder) as upstream:
        try:
            programs = peers.environment()
        except peers.PeerMissing as missing:
            print(f"without LiteLLM: {missing}", file=sys.stderr)
            return
        direct: dict[int, list[Load]] = {n: [] for n in CONNECTIONS}
        ours: Runs = {n: [] for n in CONNECTIONS}
        with gateway(folder / "lean", gateways.TOML.format(mlflow="http://127.0.0.1:9", upstream=upstream)) as one:
            gateways.run(one, 8, plan.requests / 4)
            for _ in range(plan.runs):
                for n in CONNECTIONS:
                    direct[n].append(load(upstream.removesuffix("/v1"), n, seconds=60, most=plan.requests))
                    ours[n].append(gateways.run(one, n, plan.requests))
        theirs = gateways.proxied(folder / "bare", programs, upstream, None, plan.runs, plan.seconds)
    for n in CONNECTIONS:
        of = f"{n} connection{'s' if n > 1 else ''}, guards, encoder and grounding off"
        yield _faster(of, ours[n], theirs[n])
        for label, at in TIMES:
            base = statistics.median(at(one) for one in direct[n])
            mine, other = (figure([at(one.load) - base for one in some], "ms") for some in (ours[n], theirs[n]))
            yield Row(f"added to {label}, {of}", mine, BARE, other)
    for n in CONNECTIONS:
        yield _faster(f"{n} connection{'s' if n > 1 else ''}, every stage on", guarded[n], theirs[n])


def _faster(of: str, ours: Sequence[Run], theirs: Sequence[Run]) -> Row:
    mine, other = (figure([one.load.rate for one in some], "/s") for some in (ours, theirs))
    return Row(f"requests a second, {of}", mine, BARE, other, less_is_better=False)


@contextlib.contextmanager
def _encoder(folder: Path) -> Iterator[int]:
    """The encoder's process, as `watchkeeper up` starts it. Yields its port."""
    port = free_port()
    home = folder / "encoder"
    home.mkdir()
    config = home / "watchkeeper.toml"
    config.write_text(f'data = "{home / "data"}"\n[encoder]\nport = {port}\n')
    command = [sys.executable, "-m", "watchkeeper", "encoder", "--config", str(config)]
    with process(command, f"http://127.0.0.1:{port}/health/ready", home / "encoder.log"):
        yield port


def _wait_ready(url: str) -> None:
    """Until the knowledge base can be searched by meaning."""
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        told = requests.get(f"{url}/health/ready", timeout=10).json()
        if told["encoder"] == "ok" and told["knowledge"] == "ready":
            return
        time.sleep(0.2)
    raise RuntimeError(f"{url}: not ready within {READY_S:.0f} s")


if __name__ == "__main__":
    show(rows("--quick" in sys.argv[1:]))
