"""One experiment: its releases, how two of them differ and how certain that is, the gate, and the cases behind it.

Which comparison is shown, by what the cases are sorted, and a single case stand in the URL.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from watchkeeper.lake.experiments import Answer, Compared, Trial, answers, comparisons, trials
from watchkeeper_dashboards import actions, deltas, parts, shell, units
from watchkeeper_dashboards.metrics import metric_of
from watchkeeper_dashboards.page import Page, Sources
from watchkeeper_dashboards.pages import experiment_cases as cases
from watchkeeper_dashboards.pages import experiment_reference

_TRIALS: Final = (("Release", "wk-nowrap"), ("Answers", "wk-num"), ("Failed", "wk-num"))
_SHOWN: Final = ("relevance", "grounded", "support", "reference_f1", "total_ms.p50", "total_ms.p95", "cost_usd")
_RULES: Final = (
    ("Metric", "wk-nowrap"),
    ("Rule", "wk-nowrap"),
    ("Margin or limit", "wk-num"),
    ("Verdict", ""),
    ("Why", "wk-wide"),
)
_HIDDEN: Final = {"display": "none"}


@dataclass(frozen=True)
class View:
    """What the URL asks for."""

    experiment_id: str
    query: Mapping[str, str]

    def address(self, **changes: str | None) -> str:
        """The same page with something else chosen."""
        kept = {name: value for name, value in {**self.query, **changes}.items() if value}
        return f"/experiments/{self.experiment_id}{'?' + urlencode(kept) if kept else ''}"


def layout(sources: Sources, experiment_id: str) -> Component:
    return shell.live(
        "experiment",
        dcc.Store(id="experiment-id", data=experiment_id),
        html.Div(id="experiment-body"),
        html.Div(_gate_form(sources), id="experiment-form", style=_HIDDEN),
        html.Div(id="experiment-cases"),
        experiment_reference.place(),
    )


def _gate_form(sources: Sources) -> Component:
    def select(name: str, label: str) -> Component:
        control: Component = dmc.Select(
            id=f"experiment-{name}", label=label, data=[], size="sm", w=190, allowDeselect=False,
            comboboxProps={"shadow": "md"},
        )  # fmt: skip
        return control

    refused = actions.refusal(sources.settings)
    button = dmc.Button("Run the gate", id="experiment-gate", size="sm", disabled=refused is not None)
    return parts.card(
        "Hold two releases against each other",
        refused or "the gate says whether the candidate may be promoted, by the rules of its policy",
        html.Div([select("base", "Base"), select("candidate", "Candidate"), button], className="wk-form"),
        html.Div(id="experiment-said"),
    )


def register(app: Dash, sources: Sources) -> None:
    shell.keep_ticking(app, "experiment")
    experiment_reference.register(app, sources)

    @app.callback(
        Output("experiment-body", "children"),
        Output("experiment-cases", "children"),
        Output("experiment-form", "style"),
        Output("experiment-base", "data"),
        Output("experiment-candidate", "data"),
        Output("experiment-base", "value"),
        Output("experiment-candidate", "value"),
        Input("experiment-id", "data"),
        Input("experiment-tick", "data"),
        Input("experiment-url", "search"),
        State("experiment-base", "value"),
        State("experiment-candidate", "value"),
        running=shell.while_running("experiment"),
    )
    def read(experiment_id: str, _: object, search: str | None, base: str | None, candidate: str | None) -> Any:
        began = time.perf_counter()
        view = View(experiment_id, {name: values[-1] for name, values in parse_qs((search or "").lstrip("?")).items()})
        done = trials(sources.lake, experiment_id)
        if not done:
            shell.report_success(sources.now(), time.perf_counter() - began)
            return _not_there(experiment_id), None, _HIDDEN, [], [], None, None
        body, below, chosen = _page(sources, view, done)
        shell.report_success(sources.now(), time.perf_counter() - began)
        names = [trial.release for trial in done]
        return (
            body, below, _HIDDEN if "case" in view.query or len(done) < 2 else {}, names, names,
            no_update if base else chosen[0], no_update if candidate else chosen[1],
        )  # fmt: skip

    @app.callback(
        Output("experiment-said", "children"),
        Input("experiment-gate", "n_clicks"),
        State("experiment-id", "data"),
        State("experiment-base", "value"),
        State("experiment-candidate", "value"),
        running=[(Output("experiment-gate", "loading"), True, False)],
        prevent_initial_call=True,
    )
    def gate(_: int | None, experiment_id: str, base: str | None, candidate: str | None) -> Component:
        if not base or not candidate or base == candidate:
            return parts.notice("Choose two different releases.")
        return said(actions.run(sources.settings, gating(experiment_id, base, candidate)))


def gating(experiment_id: str, base: str, candidate: str) -> actions.Command:
    return actions.Command("gate", (base, candidate), {"--experiment": experiment_id})


def said(outcome: actions.Outcome) -> Component:
    """What the gate said; a fail and too little evidence are answers, not errors."""
    typed = parts.command(outcome.command)
    verdict = outcome["verdict"]
    if verdict is None:
        return parts.notice([outcome.error or "It gave no verdict.", typed])
    words: list[parts.Child] = [parts.badge(str(verdict)), f" {outcome['reason'] or ''}", typed]
    return parts.done(words) if outcome.ok else parts.notice(words)


def _page(sources: Sources, view: View, done: Sequence[Trial]) -> tuple[list[Component], Component | None, tuple[str, str]]:
    """The page above and below the form, and the two releases that it is about."""
    compared = comparisons(sources.lake, view.experiment_id, limit=200)
    wanted = view.query.get("comparison")
    shown = next((one for one in compared if one.comparison_id == wanted), compared[0] if compared else None)
    base, candidate = (shown.base, shown.candidate) if shown else (done[0].release, done[-1].release)
    given = answers(sources.lake, view.experiment_id)
    found = cases.pairs(given, base, candidate)
    name, order = _sorting(view, given, shown)
    found = cases.ordered(found, name, order)
    keys = [cases.key_of(pair) for pair in found]
    if "case" in view.query:
        at = keys.index(view.query["case"]) if view.query["case"] in keys else None
        if at is None:
            return [_no_case(view)], None, (base, candidate)
        older = view.address(case=keys[at - 1]) if at else None
        newer = view.address(case=keys[at + 1]) if at + 1 < len(keys) else None
        case = cases.case_page(sources, found[at], base, candidate, older, newer, view.address(case=None))
        return case, None, (base, candidate)
    body = [
        html.Div(shell.link([parts.icon("arrow-left"), "Experiments"], _list(view), class_name="wk-back")),
        _heading(sources, done),
        html.Div([_trials(sources, done), *_comparison(sources, view, compared, shown)], className="wk-stack"),
    ]
    below = _cases(view, found, name, order, (base, candidate), cases.names_of(given)) if len(done) > 1 else None
    return body, below, (base, candidate)


def _sorting(view: View, given: Sequence[Answer], shown: Compared | None) -> tuple[str, cases.Order]:
    """What the cases are sorted by: as the URL says, else the first primary metric that the answers have."""
    names = cases.names_of(given)
    metrics = (shown.result.get("metrics") or []) if shown else []
    primary = [row["name"] for row in metrics if row.get("primary") and row["name"] in names]
    wanted = view.query.get("metric")
    name = wanted if wanted in names else (primary or names)[0]
    return name, "better" if view.query.get("order") == "better" else "worse"


def _list(view: View) -> str:
    return f"/experiments?range={view.query['range']}" if "range" in view.query else "/experiments"


def _heading(sources: Sources, done: Sequence[Trial]) -> Component:
    first = done[0]
    parent = sources.links.experiment_run(first.mlflow_parent_id) if first.mlflow_parent_id else None
    return html.Div(
        [
            html.H1(first.experiment_id, className="wk-title"),
            html.Span(f"on {first.dataset}, {units.moment(min(trial.started_at for trial in done))}", className="wk-dim"),
            html.Span(className="wk-grow"),
            parts.outside("Experiment in MLflow", parent) if parent else None,
        ],
        className="wk-trace-head",
    )


def _trials(sources: Sources, done: Sequence[Trial]) -> Component:
    names = [name for name in _SHOWN if any(name in trial.metrics for trial in done)]
    measured = tuple((metric_of(name).label, "wk-num wk-optional") for name in names)
    columns = (*_TRIALS, *measured, ("", "wk-nowrap"))
    rows = []
    for trial in done:
        run = sources.links.experiment_run(trial.mlflow_run_id) if trial.mlflow_run_id else None
        values = (
            html.Strong(trial.release),
            units.count(trial.n),
            html.Span(units.count(trial.failed), className="wk-bad" if trial.failed else "wk-dim"),
            *(metric_of(name).shown(trial.metrics.get(name)) for name in names),
            parts.outside("run in MLflow", run) if run else None,
        )
        rows.append(parts.cells(columns, values))
    digest = done[0].dataset_digest[:12]
    note = f"means over all answers to {done[0].dataset} (digest {digest}); an answer that failed counts nowhere as a pass"
    return parts.card("Releases", note, parts.table(columns, rows, "Releases of the experiment"))


def _comparison(sources: Sources, view: View, compared: Sequence[Compared], shown: Compared | None) -> list[Component]:
    if shown is None:
        return [
            html.Div(
                parts.empty(
                    "Not compared yet",
                    "Run the gate below, or type:",
                    command=f"watchkeeper compare BASE CANDIDATE --experiment {view.experiment_id}",
                ),
                className="wk-card",
            )
        ]
    failed = shown.result.get("failed") or {}
    note = (
        f"paired by case, {units.count(shown.n)} pairs; a line is the 95% interval of the difference. Failed answers: "
        f"base {failed.get('base', 0)}, candidate {failed.get('candidate', 0)}"
    )
    run = sources.links.experiment_run(shown.mlflow_run_id) if shown.mlflow_run_id else None
    tables = deltas.tables(shown.result, shown.base, shown.candidate)
    legend = parts.legend(("win", "square", "green"), ("tie", "square", "mute"), ("loss", "square block", "block"))
    differences = parts.card(
        f"{shown.candidate} against {shown.base}", note, legend, *tables,
        aside=parts.outside("run in MLflow", run) if run else None, class_name="wk-comparison",
    )  # fmt: skip
    others = [_other(view, one, one.comparison_id == shown.comparison_id) for one in compared]
    return [*([html.Div(others, className="wk-chips")] if len(others) > 1 else []), *_gate(shown), differences]


def _other(view: View, one: Compared, current: bool) -> Component:
    words = f"{one.candidate} against {one.base}, {units.day_and_clock(one.compared_at)[:-3]}"
    inside = [parts.badge(one.verdict) if one.verdict else None, words]
    address = view.address(comparison=one.comparison_id)
    return _choice(inside, address, current)


def _choice(words: parts.Children, address: str, current: bool) -> Component:
    return dcc.Link(words, href=address, className="wk-choice wk-current" if current else "wk-choice")


def _gate(shown: Compared) -> list[Component]:
    """The gate's verdict with its rules; nothing where it was a mere comparison."""
    if shown.verdict is None:
        return []
    rows = []
    for rule in shown.result.get("rules") or []:
        metric = metric_of(str(rule.get("metric")))
        margin = rule.get("margin") if rule.get("value") is None else rule.get("value")
        values = (
            metric.label, str(rule.get("rule") or "").replace("_", " "), units.NONE if margin is None else f"{margin:g}",
            parts.badge(str(rule.get("verdict"))), str(rule.get("reason") or ""),
        )  # fmt: skip
        rows.append(parts.cells(_RULES, values))
    table = parts.table(_RULES, rows, "Rules of the gate") if rows else None
    note = f"may {shown.candidate} take the place of {shown.base}? {units.moment(shown.compared_at)}"
    reason = html.P(shown.reason, className="wk-reason wk-gate-reason") if shown.reason else None
    return [parts.card("Gate", note, reason, table, aside=parts.badge(shown.verdict))]


def _cases(
    view: View, found: Sequence[cases.Pair], name: str, order: cases.Order, releases: tuple[str, str], names: Sequence[str]
) -> Component:
    choices = [_choice(metric_of(other).label, view.address(metric=other), other == name) for other in names]
    turned = "better" if order == "worse" else "worse"
    turn = shell.link(f"what became {turned} first", view.address(order=turned))
    address = {cases.key_of(pair): view.address(case=cases.key_of(pair)) for pair in found}
    more = f"; the first {cases.SHOWN} of {units.count(len(found))}" if len(found) > cases.SHOWN else ""
    note = f"by {metric_of(name).label.lower()}, what became {order} first{more}; a row opens both answers"
    listed = cases.table(found, name, *releases, address)
    return parts.card("Cases", note, html.Div(choices, className="wk-chips"), listed, aside=turn, class_name="wk-below")


def _not_there(experiment_id: str) -> Component:
    return html.Div(
        parts.empty(
            "There is no such experiment",
            f"{experiment_id[:80]!r} is not in the lake: it is still running, was cut off, or never ran. ",
            shell.link("All experiments", "/experiments"),
        ),
        className="wk-card",
    )


def _no_case(view: View) -> Component:
    return html.Div(
        parts.empty(
            "There is no such case in this comparison",
            shell.link("Back to the experiment", view.address(case=None)),
        ),
        className="wk-card",
    )


PAGE: Final = Page("/experiments/<experiment_id>", "Experiment", layout, register)
