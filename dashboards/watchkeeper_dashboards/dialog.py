"""A question before something is done: what will happen, why (asked for in words), and the button that does it.

Opened by a link (`?promote=watchkeeper@2`), so that it needs no callback of its own and stays over a tick. What came of it
is shown in the dialog, which stays open until it is closed. Knows nothing of what is done.
"""

from collections.abc import Sequence

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html
from dash.development.base_component import Component

from watchkeeper_dashboards import parts, shell


def dialog(page: str, keys: Sequence[str], verb: str, *fields: Component) -> Component:
    """`keys`: the names in the URL's query that open it. `verb`: what its button says. Callbacks fill `<page>-dialog`
    (title), `<page>-question` and `<page>-said`; the button is `<page>-do`."""
    buttons = html.Div(
        [
            dmc.Button("Close", id=f"{page}-close", variant="default", size="sm"),
            dmc.Button(verb, id=f"{page}-do", size="sm", disabled=True),
        ],
        className="wk-buttons",
    )
    modal = dmc.Modal(
        [
            html.Div(id=f"{page}-question", className="wk-question"),
            *fields,
            html.Div(id=f"{page}-said", className="wk-said"),
            buttons,
        ],
        id=f"{page}-dialog",
        title="",
        opened=False,
        centered=True,
        size="lg",
        closeButtonProps=parts.attributes(aria_label="Close"),
    )
    # An address of its own, or the page's callbacks would wait for this one whenever they ask for theirs; beside the modal,
    # which takes out of the page what is in it while it is closed.
    address = dcc.Location(id=f"{page}-dialog-url", refresh="callback-nav")
    return html.Div([dcc.Store(id=f"{page}-keys", data=list(keys)), address, modal])


def register(app: Dash, page: str, *required: str) -> None:
    """Opens and closes it with the URL; the button is on once the `required` fields hold words."""
    shell.browser(
        app, "dialog",
        Output(f"{page}-dialog-url", "search"), Output(f"{page}-dialog", "opened"),
        Input(f"{page}-dialog-url", "search"), Input(f"{page}-dialog", "opened"), Input(f"{page}-close", "n_clicks"),
        State(f"{page}-keys", "data"),
    )  # fmt: skip
    shell.browser(app, "lacks", Output(f"{page}-do", "disabled"), *(Input(name, "value") for name in required))


def words(identifier: str, label: str, description: str, *, required: bool = True) -> Component:
    """A field for a sentence."""
    field: Component = dmc.Textarea(
        id=identifier,
        label=label,
        description=description,
        required=required,
        autosize=True,
        minRows=2,
        maxRows=6,
        size="sm",
    )
    return field
