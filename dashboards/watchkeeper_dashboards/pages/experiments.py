"""The experiments: which releases answered which dataset, when, how many failed, and what the gate said."""

import time
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from dash import Dash, Input, Output, html
from dash.development.base_component import Component

from watchkeeper.lake.experiments import Compared, Trial, comparisons, newest_trials
from watchkeeper_dashboards import parts, shell, units
from watchkeeper_dashboards.page import Page, Sources

_COLUMNS: Final = (
    ("When (UTC)", "wk-nowrap"), ("Dataset", ""), ("Releases", ""), ("Answers", "wk-num"), ("Failed", "wk-num"),
    ("Gate", "wk-nowrap"), ("Experiment", "wk-optional wk-nowrap"),
)  # fmt: skip
_MOST: Final = 100


def layout(sources: Sources, _: str) -> Component:
    return shell.live(
        "experiments",
        parts.head("Experiments", "Which release answers better, on the same cases?"),
        html.Div(id="experiments-body"),
    )


def register(app: Dash, sources: Sources) -> None:
    shell.keep_ticking(app, "experiments")

    @app.callback(
        Output("experiments-body", "children"),
        Input("experiments-url", "search"),
        Input("experiments-tick", "data"),
        running=shell.while_running("experiments"),
    )
    def read(search: str | None, _: object) -> Component:
        began = time.perf_counter()
        trials = newest_trials(sources.lake, _MOST)
        gates = comparisons(sources.lake, limit=1000)
        shell.report_success(sources.now(), time.perf_counter() - began)
        if not trials:
            return html.Div(_nothing(), className="wk-card")
        rows = [
            _row(list(group), [gate for gate in gates if gate.experiment_id == experiment_id], search or "")
            for experiment_id, group in groupby(trials, key=lambda trial: trial.experiment_id)
        ]
        note = "every release answers every case through the real loop; a row opens the experiment"
        return parts.card("Experiments", note, parts.table(_COLUMNS, rows, "Experiments, newest first"))


def _row(trials: Sequence[Trial], compared: Sequence[Compared], search: str) -> Component:
    first = trials[0]
    failed = sum(trial.failed for trial in trials)
    gate = next((one for one in compared if one.verdict), None)
    link = shell.link(
        units.day_and_clock(min(trial.started_at for trial in trials)),
        f"/experiments/{first.experiment_id}{search}",
        class_name="wk-row-link",
    )
    values = (
        link,
        first.dataset,
        ", ".join(trial.release for trial in trials),
        units.count(sum(trial.n for trial in trials)),
        html.Span(units.count(failed), className="wk-bad" if failed else "wk-dim"),
        verdict_of(gate) if gate else html.Span("compared" if compared else "not yet", className="wk-dim"),
        html.Span(first.experiment_id, className="wk-mono wk-dim"),
    )
    return parts.cells(_COLUMNS, values, "wk-linked")


def verdict_of(gate: Compared) -> Component:
    """What a gate said, and of whom."""
    return html.Span([parts.badge(gate.verdict or "unknown"), html.Span(f" {gate.candidate}", className="wk-dim")])


def _nothing() -> Component:
    return parts.empty(
        "No experiment yet",
        "Tick requests under Traces and add them to a dataset. Then close it, and let two releases answer it:",
        command="watchkeeper dataset freeze NAME\n"
        "watchkeeper experiment run --dataset NAME --release champion --release watchkeeper@2",
    )


PAGE: Final = Page("/experiments", "Experiments", layout, register, icon="flask", group="Improve")
