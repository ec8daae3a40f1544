"""`watchkeeper demo`: starts everything in a fresh folder, sends two parts of real traffic, runs the jobs on both, and says
what came of it and where to look."""

import asyncio
import contextlib
import sys
import time
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import requests as http
import tomli_w
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from watchkeeper.cli import output
from watchkeeper.cli.demo.traffic import Counts, plan, send
from watchkeeper.cli.evaluate import plain as plain_evaluation
from watchkeeper.cli.output import WrongUse
from watchkeeper.cli.up import Supervisor, children, claim, is_free, ports
from watchkeeper.cli.verify import plain as plain_ledger
from watchkeeper.settings import Knowledge, Price, Settings
from watchkeeper.telemetry.ledger import Ledger, verify
from watchkeeper_evaluations.job import Evaluation, evaluate
from watchkeeper_evaluations.window import Window

DENIED: Final = {
    "legal advice": ("legal advice", "legal opinion", "sue my landlord"),
    "colleagues' pay": ("salaries of my team", "colleague earns"),
}
NOTIONAL: Final = Price(input=0.05, output=0.15)
"""USD per million tokens: a price that a small hosted model might have, so that the demo's cost is not zero. Notional."""
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
            summary = tell(settings, supervisor, requests)
        if as_json:
            output.document(summary)
        show(summary, Console(stderr=as_json))
        if not leave:
            output.note("\nEverything stays up until you press Ctrl-C.")
            supervisor.wait()
        return 0 if summary["ok"] else 1
    finally:
        supervisor.stop()
        lock.close()


def prepare(settings: Settings) -> Settings:
    """The demo's settings, written to a fresh folder: its knowledge base, its denied topics, and ports that are free."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    knowledge = Path(str(files(__package__).joinpath("knowledge")))
    updates: dict[str, Any] = {
        "data": settings.data / f"demo-{stamp}",
        "lake": settings.lake.model_copy(update={"uri": None}),
        "knowledge": settings.knowledge if settings.knowledge.folders else Knowledge(folders=(knowledge,)),
        "guards": settings.guards.model_copy(update={"denied_topics": settings.guards.denied_topics or DENIED}),
        "model": settings.model.model_copy(update={"price": NOTIONAL}),
    }
    settings = settings.model_copy(update=updates)
    settings = _with_free_ports(settings)
    settings.data.mkdir(parents=True)
    plain = settings.model_dump(mode="json", exclude_none=True)
    (settings.data / "watchkeeper.toml").write_text(tomli_w.dumps(plain), encoding="utf-8")
    return settings


def _with_free_ports(settings: Settings) -> Settings:
    """Moves every server whose port is taken to the next free one."""
    taken: set[int] = set()
    for setting, host, port in ports(settings):
        free = next((number for number in range(port, port + 200) if number not in taken and is_free(host, number)), None)
        if free is None:
            raise WrongUse(f"no port from {port} to {port + 199} is free; set another one for {setting}")
        taken.add(free)
        section, key = setting.split(".")
        value: int | str = f"http://{host}:{free}" if key == "uri" else free
        settings = settings.model_copy(update={section: getattr(settings, section).model_copy(update={key: value})})
    return settings


def tell(settings: Settings, supervisor: Supervisor, requests: int) -> dict[str, Any]:
    """The story: traffic, part by part, then the jobs, then the ledger. Returns the summary."""
    url = f"http://{settings.gateway.host}:{settings.gateway.port}"
    sizes = (requests - requests // 2, requests // 2)
    counts = Counts()
    windows: list[Window] = []
    began = time.monotonic()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        step = progress.add_task("starting the processes", total=len(supervisor.children))
        supervisor.wait_ready()
        progress.update(step, completed=len(supervisor.children))
        _wait_for_knowledge(url)
        for part, size in enumerate(sizes):
            start = datetime.now(UTC)
            step = progress.add_task(f"traffic, part {part + 1}", total=size)
            asyncio.run(send(f"{url}/v1", plan(size, part), counts, partial(progress.advance, step)))
            windows.append(Window(start, datetime.now(UTC)))
        step = progress.add_task("evaluating", total=3)
        evaluations: list[Evaluation] = []
        for job, window, reference in (
            ("toxicity", windows[0], None),
            ("toxicity", windows[1], None),
            ("drift", windows[1], windows[0]),
        ):
            evaluations.append(evaluate(settings, job, window, reference=reference, now=datetime.now(UTC)))
            progress.advance(step)
        ledger = _settled(settings)
    return _summary(settings, counts, evaluations, ledger, time.monotonic() - began)


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


def _summary(
    settings: Settings, counts: Counts, evaluations: list[Evaluation], ledger: Ledger, seconds: float
) -> dict[str, Any]:
    gateway, board = settings.gateway, settings.dashboard
    clients = len(set(counts.ids))
    equal = {clients, ledger.served, ledger.spooled, ledger.mlflow, ledger.lake, ledger.scored}
    return {
        "ok": ledger.ok and len(equal) == 1,
        "clients": clients,
        **plain_ledger(ledger),
        "blocked": counts.statuses[400] + counts.finish_reasons["content_filter"],
        "statuses": {str(status): count for status, count in sorted(counts.statuses.items())},
        "evaluations": [plain_evaluation(evaluation) for evaluation in evaluations],
        "seconds": round(seconds, 1),
        "data": str(settings.data),
        "config": str(settings.data / "watchkeeper.toml"),
        "dashboard": f"http://{board.host}:{board.port}",
        "mlflow_ui": settings.mlflow.uri,
        "gateway": f"http://{gateway.host}:{gateway.port}/v1",
    }


def show(summary: dict[str, Any], console: Console) -> None:
    """The summary for people."""
    console.print()
    names = ("clients", "served", "spooled", "mlflow", "lake", "scored")
    console.print("  ".join(f"{name} [bold]{summary[name]}[/bold]" for name in names), "  blocked", summary["blocked"])
    for evaluation in summary["evaluations"]:
        colour = {"pass": "green", "warn": "yellow", "fail": "red"}.get(evaluation["verdict"], "magenta")
        verdict = f"[{colour}]{evaluation['verdict']:<8}[/{colour}]"
        console.print(f"{evaluation['job']:<9}{verdict} n={evaluation['n']}  {evaluation['reason']}", highlight=False)
    console.print(f"\nOpen  {summary['dashboard']}  the dashboard\n      {summary['mlflow_ui']}  MLflow", highlight=False)
    console.print(f"Ask   {summary['gateway']}  the gateway (OpenAI's API, model watchkeeper)", highlight=False)
    console.print(f"Check watchkeeper verify --config {summary['config']}", highlight=False, soft_wrap=True)
    if not summary["ok"]:
        console.print("[red]The counts above differ: not every request is everywhere.[/red]")
