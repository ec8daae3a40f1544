"""The frame around every page: header, navigation, time range, colour scheme, and the router that puts a page into it.

All but the router runs in the browser (assets/watchkeeper.js): switching the scheme or opening the menu asks no server.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, get_args

import dash_mantine_components as dmc
from dash import ALL, MATCH, ClientsideFunction, Dash, Input, Output, State, dcc, html, set_props
from dash.development.base_component import Component

from watchkeeper_dashboards import period, theme, units
from watchkeeper_dashboards.page import Group, Page, Sources
from watchkeeper_dashboards.parts import Child, Children, attributes, empty, graph, icon, notice, store

log = logging.getLogger(__name__)

POLL_MS: Final = 10_000
"""How often a page asks for news."""

_PENDING_MS: Final = 30_000
"""How often the navigation asks what is pending."""

# {%config%} and the rest are filled in by Dash; scheme.js must run before the first paint, so it is not among its scripts.
INDEX: Final = """<!DOCTYPE html>
<html lang="en" data-mantine-color-scheme="light">
  <head>
    {%metas%}
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="robots" content="noindex">
    <title>{%title%}</title>
    <link rel="icon" type="image/svg+xml" href="FAVICON">
    <script src="SCHEME"></script>
    <style>PALETTE</style>
    {%css%}
  </head>
  <body>
    {%app_entry%}
    <footer>{%config%}{%scripts%}{%renderer%}</footer>
  </body>
</html>"""


def index(app: Dash) -> str:
    """The document that carries the app."""
    return (
        INDEX.replace("FAVICON", app.get_asset_url("favicon.svg"))
        .replace("SCHEME", app.get_asset_url("scheme.js"))
        .replace("PALETTE", theme.css())
    )


def layout(pages: Sequence[Page], sources: Sources) -> Component:
    """The whole document's component tree; `page` is the place that the router fills."""
    frame = dmc.AppShell(
        [
            dmc.AppShellHeader(_header()),
            dmc.AppShellNavbar(_navigation(pages, sources)),
            dmc.AppShellMain(
                html.Div([html.Div(id="notice"), html.Div(id="page")], className="wk-main", id="content", tabIndex=-1)
            ),
        ],
        id="shell",
        header={"height": 53},
        navbar={"width": 208, "breakpoint": "sm", "collapsed": {"mobile": True, "desktop": False}},
        padding=0,
    )
    whole: Component = dmc.MantineProvider(
        [
            dcc.Location(id="url", refresh="callback-nav"),
            dcc.Store(id="scheme"),
            dcc.Store(id="range-default", data=period.DEFAULT),
            dcc.Store(id="title"),
            html.A("Skip to the content", href="#content", className="wk-skip"),
            frame,
        ],
        theme=theme.mantine(),
        defaultColorScheme="auto",
    )
    return whole


def _header() -> Component:
    return html.Div(
        [
            dmc.Burger(id="burger", opened=False, hiddenFrom="sm", size="sm", **attributes(aria_label="Menu")),
            dcc.Link(
                [html.Img(src="/assets/favicon.svg", alt=""), html.Span("Watchkeeper")],
                href="/",
                className="wk-brand",
                title="Watchkeeper: overview",
            ),
            html.Div(className="wk-grow"),
            html.Span(id="updated", className="wk-updated wk-num", role="status"),
            dmc.SegmentedControl(
                id="range",
                data=list(period.RANGES),
                value=period.DEFAULT,
                size="xs",
                **attributes(aria_label="Time range"),
            ),
            dmc.ColorSchemeToggle(
                lightIcon=icon("sun"),
                darkIcon=icon("moon"),
                variant="subtle",
                size=32,
                **attributes(aria_label="Switch between light and dark"),
            ),
        ],
        className="wk-header",
    )


def _navigation(pages: Sequence[Page], sources: Sources) -> Component:
    groups: list[Component] = []
    for group in get_args(Group):
        shown = [_nav_link(page) for page in pages if page.icon and page.group == group]
        groups += [html.Div(group, className="wk-nav-title"), *shown] if shown else []
    mlflow = dmc.NavLink(label="MLflow", href=sources.links.home(), target="_blank", leftSection=icon("external-link"))
    return html.Nav(
        [
            *groups,
            html.Div("Records", className="wk-nav-title"),
            mlflow,
            dcc.Interval(id="pending-clock", interval=_PENDING_MS),
        ],
        className="wk-nav",
        **attributes(aria_label="Pages"),
    )


def _nav_link(page: Page) -> Component:
    pending = html.Span(id=f"pending{page.path}", className="wk-pending") if page.pending else None
    link: Component = dmc.NavLink(
        id={"nav": page.path, "path": page.path},
        label=page.name,
        href=page.path,
        leftSection=icon(page.icon or ""),
        rightSection=pending,
        active="exact" if page.path == "/" else "partial",
    )
    return link


def register(app: Dash, pages: Sequence[Page], sources: Sources) -> None:
    """Adds the router and what keeps the frame's controls together."""

    @app.callback(
        Output("page", "children"), Output("title", "data"), Output("notice", "children"), Input("url", "pathname")
    )
    def route(pathname: str | None) -> tuple[Component, str, None]:
        for page in pages:
            value = page.matches(pathname or "/")
            if value is not None:
                return page.layout(sources, value), page.name, None
        return empty("There is no such page", dcc.Link("Go to the overview", href="/")), "Not found", None

    for page in pages:
        if page.pending is not None:
            _count_pending(app, page.path, page.pending, sources)
    browser(app, "title", Input("title", "data"))
    browser(app, "scheme", Output("scheme", "data"), Input("scheme", "id"))
    browser(
        app, "range", Output("url", "search"), Output("range", "value"),
        Input("range", "value"), Input("url", "search"), State("range-default", "data"),
    )  # fmt: skip
    browser(
        app, "links", Output({"nav": ALL, "path": ALL}, "href"),
        Input("url", "search"), Input({"nav": ALL, "path": ALL}, "id"),
    )  # fmt: skip
    browser(app, "navbar", Output("shell", "navbar"), Input("burger", "opened"), State("shell", "navbar"))
    browser(app, "close", Output("burger", "opened"), Input("url", "pathname"))
    browser(app, "paint", Output(graph(MATCH), "figure"), Input(store(MATCH), "data"), Input("scheme", "data"))


def _count_pending(app: Dash, path: str, pending: Callable[[Sources], int], sources: Sources) -> None:
    @app.callback(Output(f"pending{path}", "children"), Input("url", "pathname"), Input("pending-clock", "n_intervals"))
    def count(*_: object) -> list[Child]:
        waiting = pending(sources)
        return [units.count(waiting), html.Span(" open", className="wk-hidden")] if waiting else []


def browser(app: Dash, function: str, *wires: Any, **options: Any) -> None:
    """A callback that runs in the browser: `function` of assets/watchkeeper.js."""
    untyped: Any = app
    untyped.clientside_callback(ClientsideFunction("watchkeeper", function), *wires, **options)


def link(words: Children, address: str, title: str = "", class_name: str = "") -> Component:
    """A link inside the app, followed without loading the document again. `title` names a link that is only an icon."""
    named = [words, html.Span(title, className="wk-hidden")] if isinstance(words, Component) else words
    return dcc.Link(named, href=address, title=title, className=class_name)


def live(page: str, *children: Component) -> Component:
    """A page's own tree, with what its callbacks listen to: `<page>-url` (the address) and `<page>-tick` (look again).

    Both belong to the page, not to the frame, so that the callbacks of pages that are not shown never run.
    """
    return html.Div(
        [
            *children,
            dcc.Location(id=f"{page}-url", refresh="callback-nav"),
            dcc.Interval(id=f"{page}-clock", interval=POLL_MS),
            dcc.Store(id=f"{page}-tick"),
            dcc.Store(id=f"{page}-asking", data=False),
        ]
    )


def keep_ticking(app: Dash, page: str) -> None:
    """Lets the clock of a page tick, but not over a question that is still open: ticks that overtake answers starve it.

    The callback that answers says `running=while_running(page)`. A question that got no answer (the server was away) is
    given up after half a minute.
    """
    browser(
        app, "tick", Output(f"{page}-tick", "data"),
        Input(f"{page}-clock", "n_intervals"), State(f"{page}-asking", "data"), prevent_initial_call=True,
    )  # fmt: skip


def while_running(page: str) -> list[tuple[Output, bool, bool]]:
    """For `running` of the callback that answers a page's ticks."""
    return [(Output(f"{page}-asking", "data"), True, False)]


def report_success(now: datetime, took_s: float) -> None:
    """Says in the header when the page was read, and takes an old notice away."""
    set_props("updated", {"children": f"updated {units.clock(now)} UTC · {took_s * 1000:.0f} ms"})
    set_props("notice", {"children": None})


def report_failure(error: Exception) -> None:
    """What any callback's exception becomes: a sentence on the page, and the stack trace in the log."""
    log.error("a callback of the dashboard failed", exc_info=error)
    words = " ".join(str(error).split()) or type(error).__name__
    set_props(
        "notice", {"children": notice(f"This could not be read just now: {words[:300]}. Trying again every 10 seconds.")}
    )
