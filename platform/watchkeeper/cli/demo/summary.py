"""What the demo tells at its end: each step with its figures and where to look, for people and as one document."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape

from watchkeeper.cli.demo.circle import POLICY, Improvement
from watchkeeper.cli.demo.traffic import Counts
from watchkeeper.cli.evaluate import plain as plain_evaluation
from watchkeeper.cli.verify import plain as plain_ledger
from watchkeeper.settings import Settings
from watchkeeper.telemetry.ledger import Ledger
from watchkeeper_evaluations.job import Evaluation

SHOWN: Final = ("grounded", "reference_similarity", "relevance", "toxicity.output", "total_ms")
COLOURS: Final = {"pass": "green", "warn": "yellow", "fail": "red"}


def summary(
    settings: Settings,
    counts: Counts,
    parts: Sequence[Sequence[Evaluation]],
    improvement: Improvement | None,
    ledger: Ledger,
    seconds: float,
) -> dict[str, Any]:
    """`ok`: everything that the clients sent is everywhere and scored, once. What the story came to is told, not judged."""
    gateway, board = settings.gateway, settings.dashboard
    clients = len(set(counts.ids))
    equal = {clients, ledger.served, ledger.spooled, ledger.mlflow, ledger.lake, ledger.scored}
    return {
        "ok": ledger.ok and len(equal) == 1,
        "clients": clients,
        **plain_ledger(ledger),
        "blocked": counts.statuses[400] + counts.finish_reasons["content_filter"],
        "statuses": {str(status): count for status, count in sorted(counts.statuses.items())},
        "evaluations": [plain_evaluation(evaluation) for part in parts for evaluation in part],
        "parts": [
            {evaluation.job: {"verdict": evaluation.verdict, "reason": evaluation.reason} for evaluation in part}
            for part in parts
        ],
        "grounded": [_grounded(part) for part in parts],
        "improvement": None if improvement is None else msgspec.to_builtins(improvement),
        "seconds": round(seconds, 1),
        "data": str(settings.data),
        "config": str(settings.data / "watchkeeper.toml"),
        "dashboard": f"http://{board.host}:{board.port}",
        "mlflow_ui": settings.mlflow.uri,
        "gateway": f"http://{gateway.host}:{gateway.port}/v1",
    }


def _grounded(part: Sequence[Evaluation]) -> float | None:
    """The share of answers of a part that rest on the knowledge base."""
    return next((evaluation.metrics.get("grounded.mean") for evaluation in part if evaluation.job == "quality"), None)


def show(told: Mapping[str, Any], console: Console) -> None:
    """The summary for people."""

    def line(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    board, config = told["dashboard"], told["config"]
    names = ("clients", "served", "spooled", "mlflow", "lake", "scored")
    line("\n" + "  ".join(f"{name} [bold]{told[name]}[/bold]" for name in names) + f"  blocked {told['blocked']}")
    for number, part in enumerate(told["parts"], start=1):
        line(f"\n[bold]Part {number}[/bold]: {_TITLES[number - 1]}")
        for job, found in part.items():
            colour = COLOURS.get(found["verdict"], "magenta")
            line(f"  {job:<9}[{colour}]{found['verdict']:<8}[/{colour}]{escape(found['reason'])}")
        if number == 2:
            _show_improvement(told["improvement"], line)
    line(f"\nOpen   {board}  the dashboard; {board}/quality what fell and recovered, {board}/alerts what it set off,")
    line(f"       {board}/experiments the comparison, {board}/releases what serves and why")
    line(f"       {told['mlflow_ui']}  MLflow: traces, runs of jobs, the experiment, the dataset, the prompt's versions")
    line(f"Ask    {told['gateway']}  the gateway (OpenAI's API, model watchkeeper)")
    line(f"Check  watchkeeper verify --config {config}")
    line(f"Go on  watchkeeper gate --policy {POLICY} --config {config}")
    if not told["ok"]:
        line("[red]The counts above differ: not every request is everywhere.[/red]")


_TITLES: Final = (
    "questions in the handbook's own words",
    "the topic shifts to bills, which customers ask about in other words",
    "the same traffic after the promotion",
)


def _show_improvement(found: Mapping[str, Any] | None, line: Any) -> None:
    line("\n[bold]The circle[/bold]")
    if found is None:
        line("  no answer about bills failed: there is nothing to improve")
        return
    line(f"  {found['cases']} failing traces became the dataset {found['dataset']}, with the answers that a person wrote")
    line(f"  {found['candidate']} was tried against {found['base']} on every case: {found['run_url']}")
    for name in SHOWN:
        if name in found["metrics"]:
            metric = found["metrics"][name]
            between = "" if metric["low"] is None else f" (95% {metric['low']:+.3g} to {metric['high']:+.3g})"
            line(f"    {name:<21}{metric['base']:.3g} → {metric['candidate']:.3g}{between}, p {metric['p']:.2g}")
    colour = COLOURS.get(found["verdict"], "magenta")
    line(f"  gate     [{colour}]{found['verdict']}[/{colour}]  {escape(found['reason'])}")
    if found["followed_s"] is not None:
        line(f"  {found['candidate']} was promoted; the gateway served it {found['followed_s']} s later")
    elif found["verdict"] != "pass":
        line(f"  {found['candidate']} was not promoted: only a gate that passes lets a release into service")
