"""The rows that are ticked in the list of requests, and the dataset that they go into."""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, html, no_update
from dash.development.base_component import Component

from watchkeeper_dashboards import actions, parts, shell, units
from watchkeeper_dashboards.page import Sources


def bar() -> Component:
    """Shown while something is ticked; what came of it stays below."""
    name = dmc.TextInput(
        id="traces-dataset", placeholder="a dataset: hard-cases", size="sm", w=220, **parts.attributes(aria_label="Dataset")
    )
    add = dmc.Button("Add 0 to dataset", id="traces-add", size="sm", disabled=True)
    note = html.Span("A new name makes a new dataset; requests that are in it already are not added again.",
                     className="wk-card-note")  # fmt: skip
    return html.Div(
        [
            html.Div([name, add, note], id="traces-picked", className="wk-picked", style={"display": "none"}),
            html.Div(id="traces-added"),
        ]
    )


def register(app: Dash, sources: Sources) -> None:
    shell.browser(
        app, "picked",
        Output("traces-picked", "style"), Output("traces-add", "children"), Input("traces-grid", "selectedRows"),
    )  # fmt: skip
    shell.browser(app, "lacks", Output("traces-add", "disabled"), Input("traces-dataset", "value"))

    @app.callback(
        Output("traces-added", "children"),
        Output("traces-grid", "selectedRows"),
        Input("traces-add", "n_clicks"),
        State("traces-dataset", "value"),
        State("traces-grid", "selectedRows"),
        running=[(Output("traces-add", "loading"), True, False)],
        prevent_initial_call=True,
    )
    def add(_: int | None, name: str | None, rows: Sequence[Mapping[str, Any]] | None) -> tuple[Component, Any]:
        ids = [str(row["request_id"]) for row in rows or []]
        dataset = (name or "").strip()
        if not ids or not dataset:
            return parts.notice("Tick the requests, and name the dataset that they go into."), no_update
        outcome = actions.run(sources.settings, adding(dataset, ids))
        return said(outcome, dataset, len(ids)), [] if outcome.ok else no_update


def adding(dataset: str, ids: Sequence[str]) -> actions.Command:
    """The ids go in on stdin: a command line has an end."""
    return actions.Command("dataset add", (dataset,), {"--create": None, "--ids": "-"}, stdin="\n".join(ids) + "\n")


def said(outcome: actions.Outcome, dataset: str, asked: int) -> Component:
    """What came of it: how many were added, or what was in the way."""
    typed = parts.command(outcome.command)
    if not outcome.ok:
        return parts.notice([outcome.error, typed])
    counts = [f"{units.count(outcome[name])} {words}" for name, words in _COUNTED if isinstance(outcome[name], int)]
    return parts.done([html.Strong(dataset), f": {', '.join(counts) or f'{asked} requests given'}", typed])


_COUNTED = (("added", "added"), ("already", "already in it"), ("skipped", "left out"), ("cases", "cases in all"))
"""Fields of the command's document → what they say."""
