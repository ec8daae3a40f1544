"""The expected answer of a case. It is in the dataset, which MLflow keeps: our own command looks it up when asked."""

from urllib.parse import parse_qs

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, ctx, html
from dash.development.base_component import Component

from watchkeeper.lake.experiments import trials
from watchkeeper_dashboards import actions, parts
from watchkeeper_dashboards.page import Sources

HIDDEN = {"display": "none"}


def place() -> Component:
    """Shown below a case."""
    button = dmc.Button("Look it up", id="experiment-look-up", size="xs", variant="default")
    return html.Div(
        parts.card("Expected answer", "from the dataset, where the case has one", html.Div(id="experiment-expected"),
                   aside=button),
        id="experiment-reference", className="wk-below", style=HIDDEN,
    )  # fmt: skip


def register(app: Dash, sources: Sources) -> None:
    @app.callback(
        Output("experiment-reference", "style"),
        Input("experiment-url", "search"),
    )
    def show(search: str | None) -> dict[str, str]:
        return {} if case_of(search) else HIDDEN

    @app.callback(
        Output("experiment-expected", "children"),
        Input("experiment-look-up", "n_clicks"),
        Input("experiment-url", "search"),
        State("experiment-id", "data"),
        running=[(Output("experiment-look-up", "loading"), True, False)],
        prevent_initial_call=True,
    )
    def look_up(_: int | None, search: str | None, experiment_id: str) -> Component | None:
        if ctx.triggered_id != "experiment-look-up":  # another case
            return None
        done, case_id = trials(sources.lake, experiment_id), case_of(search)
        if not done or case_id is None:
            return None
        outcome = actions.run(sources.settings, actions.Command("dataset show", (done[0].dataset,)))
        return expected(outcome, case_id)


def case_of(search: str | None) -> str | None:
    """The id of the case in the URL, without which time it was asked."""
    value = parse_qs((search or "").lstrip("?")).get("case", [""])[-1]
    return value.rpartition(".")[0] or None


def expected(outcome: actions.Outcome, case_id: str) -> Component:
    """The reference of the case in what the command printed."""
    if not outcome.ok:
        return parts.notice([outcome.error, parts.command(outcome.command)])
    case = next((case for case in outcome["cases"] or [] if case.get("case_id") == case_id), None)
    if case is None:
        return parts.empty("The dataset does not have this case any more.", small=True)
    reference = case.get("reference")
    return parts.text(str(reference)) if reference else parts.empty("This case has no expected answer.", small=True)
