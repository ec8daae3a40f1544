"""The building blocks of a page: card, tile, badge, table, notice, empty state, figure. Text stays text.

Everything here makes Dash components of strings, which the browser shows as text: there is no Markdown and no raw HTML,
because prompts and answers are hostile. Knows nothing of the lake, nor what the numbers mean.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal
from urllib.parse import quote

from dash import dcc, html
from dash.dependencies import Wildcard
from dash.development.base_component import Component

from watchkeeper_dashboards.sparkline import shape

Child = Component | str | None
Children = Child | Sequence[Child]
Tone = Literal["good", "bad", "neutral"]

FIGURE_CONFIG: Final[Any] = {"displayModeBar": False, "responsive": True, "showTips": False, "doubleClick": False}


def attributes(**given: str | int) -> dict[str, Any]:
    """`aria_label="x"` → `{"aria-label": "x"}`: attributes whose names are no Python."""
    return {name.replace("_", "-"): value for name, value in given.items()}


def head(title: str, subtitle: str) -> Component:
    """A page's heading."""
    return html.Div([html.H1(title, className="wk-title"), html.P(subtitle, className="wk-subtitle")])


def icon(name: str) -> Component:
    """A decorative icon (icons.css); what it means must also stand beside it as text."""
    return html.Span(className=f"wk-icon wk-icon-{name}", **attributes(aria_hidden="true"))


def card(title: str, note: Children, *body: Child, aside: Child = None, class_name: str = "") -> Component:
    """A titled box. `note`: the line under the title that says what is shown."""
    words = html.Div([html.H2(title), html.P(note, className="wk-card-note")])
    return html.Section(
        [html.Div([words, aside], className="wk-card-head"), *body], className=f"wk-card {class_name}".strip()
    )


def tile(
    label: str, value: str, change: str, tone: Tone, series: Sequence[float | None], token: str, explanation: str
) -> Component:
    """One key figure: its value now, how it changed, and a sparkline in the colour `token`."""
    mask = f'url("data:image/svg+xml,{quote(shape(series))}")'
    return html.Div(
        [
            html.Div(label, className="wk-tile-label"),
            html.Div(value, className="wk-tile-value"),
            html.Div(change, className="wk-tile-change", **attributes(data_tone=tone)),
            html.Div(
                className="wk-spark",
                style={"--spark": f"var(--wk-{token})", "--shape": mask},
                **attributes(aria_hidden="true"),
            ),
        ],
        className="wk-card wk-tile",
        title=explanation,
    )


def badge(text: str, tone: str | None = None) -> Component:
    """A word with a mark whose shape and colour say how bad it is: an action, a verdict, a stage's status."""
    return html.Span(text, className="wk-badge", **attributes(data_tone=tone or text))


def legend(*keys: tuple[str, str, str]) -> Component:
    """The key of a chart: (words, shape, colour token). Shapes: line, dotted, band, dot, ring, diamond, square (hatched
    like an action where its name follows). Plotly's own key would take the chart's room and cannot wrap."""
    marks = [
        html.Span(
            [html.Span(className="wk-key", style={"--tone": f"var(--wk-{token})"}, **attributes(data_shape=shape)), words],
            className="wk-legend-item",
        )
        for words, shape, token in keys
    ]
    return html.Div(marks, className="wk-legend", **attributes(aria_hidden="true"))


def graph(name: str | Wildcard) -> dict[str, Any]:
    """The id of a figure's graph."""
    return {"part": "graph", "figure": name}


def store(name: str | Wildcard) -> dict[str, Any]:
    """The id of the store that the server fills for a figure."""
    return {"part": "store", "figure": name}


def figure(name: str, height: int, label: str, clickable: bool = False) -> Component:
    """A chart: the server fills the store (tokens for colours), the browser paints it into the graph in its scheme."""
    return html.Div(
        [
            dcc.Store(id=store(name)),
            dcc.Graph(
                id=graph(name),
                figure={"data": [], "layout": {"height": height, "xaxis": {"visible": False}, "yaxis": {"visible": False},
                                               "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"}},
                config=FIGURE_CONFIG,
                style={"height": f"{height}px"},
            ),
        ],
        className="wk-figure wk-clickable" if clickable else "wk-figure",
        role="img",
        **attributes(aria_label=label),
    )  # fmt: skip


def table(columns: Sequence[tuple[Child, str]], rows: Sequence[Component], caption: str, class_name: str = "") -> Component:
    """A plain table. `columns`: heading and class (`wk-num` aligns right, `wk-optional` goes on a small screen)."""
    headings = html.Tr([html.Th(name, className=style, scope="col") for name, style in columns])
    return html.Div(
        html.Table(
            [html.Caption(caption, className="wk-hidden"), html.Thead(headings), html.Tbody(list(rows))],
            className=f"wk-table {class_name}".strip(),
        ),
        className="wk-table-frame",
        tabIndex=0,
        role="region",
        **attributes(aria_label=caption),
    )


def cells(columns: Sequence[tuple[str, str]], values: Sequence[Children], class_name: str = "") -> Component:
    """One row of a `table` with the same columns."""
    return html.Tr(
        [html.Td(value, className=style) for (_, style), value in zip(columns, values, strict=True)], className=class_name
    )


def notice(text: Children, role: Literal["alert", "status"] = "alert") -> Component:
    """Something went wrong, in a sentence. `role`: an alert interrupts a screen reader, a status waits."""
    return html.Div([icon("alert-triangle"), html.P(text)], className="wk-notice", role=role)


def done(text: Children) -> Component:
    """Something that was asked for has happened, in a sentence."""
    return html.Div([icon("check"), html.P(text)], className="wk-notice wk-done", role="status")


def command(text: str) -> Component:
    """A command as it is typed."""
    return html.Code(text, className="wk-typed")


def empty(title: str, *words: Child, command: str | None = None, small: bool = False) -> Component:
    """There is nothing to show: why, and what to do about it."""
    children: list[Child] = [] if small else [icon("database-off"), html.Strong(title)]
    children += [html.Span(list(words) if words else title)]
    if command:
        children.append(html.Pre(command))
    return html.Div(children, className="wk-empty wk-small-empty" if small else "wk-empty")


def text(value: str) -> Component:
    """Text of a user or a model, as it is: line breaks kept, nothing interpreted."""
    return html.Pre(value, className="wk-text", tabIndex=0)


def facts(pairs: Sequence[tuple[str, Children]], big: bool = False) -> Component:
    """Names and values, as a definition list."""
    style = "wk-big" if big else ""
    return html.Dl(
        [html.Div([html.Dt(name), html.Dd(value, className=style)]) for name, value in pairs], className="wk-facts"
    )


def outside(label: str, address: str) -> Component:
    """A link that leaves the dashboard, in a tab of its own."""
    return html.A([label, " ", icon("external-link")], href=address, target="_blank", rel="noopener noreferrer")
