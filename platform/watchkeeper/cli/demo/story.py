"""`watchkeeper demo`: starts everything in a fresh folder and tells how the circle closes, with real traffic.

traffic ▸ jobs ▸ the topic shifts ▸ jobs say so ▸ failing traces ▸ dataset ▸ experiment ▸ gate ▸ promotion ▸ traffic ▸ jobs
"""

import asyncio
import contextlib
import sys
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import requests as http
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from watchkeeper.cli import output
from watchkeeper.cli.demo import circle, summary
from watchkeeper.cli.demo.setting import prepare
from watchkeeper.cli.demo.traffic import Counts, plan, send
from watchkeeper.cli.up import Supervisor, children, claim
from watchkeeper.settings import Settings
from watchkeeper.telemetry.ledger import Ledger, verify
from watchkeeper_evaluations.job import JOBS, Evaluation, evaluate
from watchkeeper_evaluations.window import Window

PARTS: Final = 3
SETTLE_S: Final = 120.0


def run(settings: Settings, *, requests: int, leave: bool, as_json: bool) -> int:
    """Returns 0 when every request that the clients sent is in the spool, MLflow, the lake and scored; else 1."""
    settings = prepare(settings)
    lock = claim(settings.data)
    supervisor = Supervisor(children(settings, settings.data / "watchkeeper.toml"))
    output.on_termination(supervisor.request_stop)
    try:
        supervisor.start()
        with contextlib.redirect_stdout(sys.stderr):
            told = tell(settings, supervisor, requests)
        if as_json:
            output.document(told)
        summary.show(told, Console(stderr=as_json))
        if not leave:
            output.note("\nEverything stays up until you press Ctrl-C.")
            supervisor.wait()
        return 0 if told["ok"] else 1
    finally:
        supervisor.stop()
        lock.close()


def tell(settings: Settings, supervisor: Supervisor, requests: int) -> dict[str, Any]:
    """The story; returns the summary."""
    url = f"http://{settings.gateway.host}:{settings.gateway.port}"
    counts = Counts()
    began = time.monotonic()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        step = progress.add_task("starting the processes", total=len(supervisor.children))
        supervisor.wait_ready()
        progress.update(step, completed=len(supervisor.children))
        _wait_for_knowledge(url)
        circle.begin(settings)
        windows: list[Window] = []
        judged: list[list[Evaluation]] = []
        improvement = None
        for part in range(PARTS):
            size = requests * (part + 1) // PARTS - requests * part // PARTS
            windows.append(_traffic(url, part, size, counts, progress))
            judged.append(_judged(settings, windows, progress))
            if part == 1:
                step = progress.add_task("experiment: both releases on every failing case", total=None)
                improvement = circle.improve(settings, windows[-1], url, partial(_advance, progress, step))
        step = progress.add_task("counting on all sides", total=1)
        ledger = _settled(settings)
        progress.advance(step)
    return summary.summary(settings, counts, judged, improvement, ledger, time.monotonic() - began)


def _traffic(url: str, part: int, size: int, counts: Counts, progress: Progress) -> Window:
    """Sends one part; returns when that was."""
    start = datetime.now(UTC)
    step = progress.add_task(f"traffic, part {part + 1}", total=size)
    asyncio.run(send(f"{url}/v1", plan(size, part), counts, partial(progress.advance, step)))
    return Window(start, datetime.now(UTC))


def _judged(settings: Settings, windows: list[Window], progress: Progress) -> list[Evaluation]:
    """All jobs over the newest window; drift compares it with the one before, and has nothing to say of the first."""
    jobs = [job for job in JOBS.values() if len(windows) > 1 or not job.compares]
    step = progress.add_task(f"jobs over part {len(windows)}", total=len(jobs))
    done = []
    for job in jobs:
        reference = windows[-2] if job.compares else None
        done.append(evaluate(settings, job.name, windows[-1], reference=reference, now=datetime.now(UTC)))
        progress.advance(step)
    return done


def _advance(progress: Progress, step: Any, done: int, total: int) -> None:
    progress.update(step, completed=done, total=total)


def _wait_for_knowledge(url: str) -> None:
    """Until the gateway has indexed the knowledge base with embeddings, or for a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if http.get(f"{url}/health/ready", timeout=5).json().get("knowledge") == "ready":
            return
        time.sleep(0.2)


def _settled(settings: Settings) -> Ledger:
    """The ledger once nothing is pending, or as it stands after two minutes."""
    deadline = time.monotonic() + SETTLE_S
    ledger = verify(settings)
    while not ledger.ok and time.monotonic() < deadline:
        time.sleep(1.0)
        ledger = verify(settings)
    return ledger
