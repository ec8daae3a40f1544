"""The list of requests: filtered and sorted on the server, fetched in blocks as the reader scrolls.

Filters and the time range live in the URL, so a filtered list is a link: also one to the requests behind a point of a chart
(`since`, `until`, `score`), worst first. A row opens its trace; rows that are ticked can go into a dataset.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from watchkeeper.lake import reading
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import STATUSES
from watchkeeper.record import ACTIONS
from watchkeeper_dashboards import evidence, parts, shell, theme, units
from watchkeeper_dashboards.page import Page, Sources
from watchkeeper_dashboards.pages import traces_selection
from watchkeeper_dashboards.period import Period, chosen, named, period
from watchkeeper_dashboards.scores import ScoreWords, score_of_one, words_of

BLOCK: Final = 100
_MOST: Final = 500
"""Rows that one request may ask for, whatever it says."""

_CONTROLS: Final = ("q", "action", "status", "language", "release")
"""Filters with a control of their own; the others come by a link and show as a chip."""
_CHIPS: Final = ("session", "user", "model")
_SCORE: Final = ("score", "below", "at_least")
_TIME: Final = ("since", "until")
_EQUAL: Final = ("action", "language", "release", *_CHIPS)

Cursors = dict[str, list[Any]]
"""Number of a block's first row → the lake's cursor from which it is read; kept by the browser."""

_BEGINNING: Final = datetime(2000, 1, 1, tzinfo=UTC)

_MARKED: Final = {f"wk-mark wk-tone-{action}": f"params.value == '{action}'" for action in ACTIONS}
_COLUMNS: Final[tuple[dict[str, Any], ...]] = (
    {"field": "time", "colId": "received_at", "headerName": "Time (UTC)", "width": 132},
    {"field": "request_id", "headerName": "Request", "width": 92, "sortable": False, "cellClassRules": {"wk-mono": "true"},
     "valueFormatter": {"function": "params.value ? params.value.slice(0, 10) : ''"}, "tooltipField": "request_id"},
    {"field": "score", "headerName": "Score", "width": 92, "type": "rightAligned", "hide": True},
    {"field": "prompt", "headerName": "Prompt", "flex": 1, "minWidth": 130, "sortable": False},
    {"field": "action", "headerName": "Verdict", "width": 94, "sortable": False, "cellClassRules": _MARKED},
    {"field": "status", "headerName": "Status", "width": 82, "sortable": False,
     "cellClassRules": {"wk-bad": "params.value == 'error'"}},
    {"field": "model", "headerName": "Model", "tooltipField": "model", "width": 104},
    {"field": "total", "colId": "total_ms", "headerName": "Total", "width": 76, "type": "rightAligned"},
    {"field": "ttft", "colId": "ttft_ms", "headerName": "TTFT", "width": 76, "type": "rightAligned"},
    {"field": "tokens", "colId": "output_tokens", "headerName": "Tokens", "width": 74, "type": "rightAligned"},
    {"field": "cost", "colId": "cost_usd", "headerName": "Cost", "width": 88, "type": "rightAligned"},
    {"field": "support", "headerName": "Support", "width": 78, "type": "rightAligned"},
    {"field": "toxicity", "headerName": "Toxicity", "width": 80, "sortable": False, "type": "rightAligned"},
)  # fmt: skip

# AG Grid's own colours, all from our tokens: the grid follows the scheme without a callback.
_THEME: Final = {
    "accentColor": "var(--wk-accent)",
    "backgroundColor": "var(--wk-card)",
    "foregroundColor": "var(--wk-text)",
    "borderColor": "var(--wk-border)",
    "chromeBackgroundColor": "var(--wk-page)",
    "headerTextColor": "var(--wk-dim)",
    "rowHoverColor": "var(--wk-hover)",
    "browserColorScheme": "inherit",
    "fontFamily": theme.FONT,
    "fontSize": 13,
    "headerFontSize": 12,
    "headerFontWeight": 550,
    "rowHeight": 38,
    "headerHeight": 38,
    "wrapperBorderRadius": 8,
}


def layout(sources: Sources, _: str) -> Component:
    return shell.live(
        "traces",
        parts.head("Traces", "Every request in the chosen time, newest first; a row opens its trace"),
        html.Div(
            [
                _filters(),
                html.Div(id="traces-chips", className="wk-chips"),
                traces_selection.bar(),
                html.Div(id="traces-empty"),
                html.Div(_grid(), id="traces-frame", className="wk-grid"),
                html.P(id="traces-note", className="wk-card-note", role="status"),
            ],
            className="wk-card",
        ),
        dcc.Store(id="traces-cursors"),
        dcc.Store(id="traces-names", data=list(_CONTROLS)),
    )


def _filters() -> Component:
    def select(name: str, label: str, choices: Sequence[str]) -> Component:
        control: Component = dmc.Select(
            id=f"traces-{name}", label=label, data=list(choices), placeholder="any", clearable=True, size="sm",
            comboboxProps={"shadow": "md"},
        )  # fmt: skip
        return control

    return html.Div(
        [
            dmc.TextInput(
                id="traces-q", label="Text", placeholder="in prompts and answers, or the start of an id", debounce=400,
                leftSection=parts.icon("search"), size="sm",
            ),
            select("action", "Verdict", ACTIONS),
            select("status", "Status", STATUSES),
            select("language", "Language", ()),
            select("release", "Release", ()),
        ],
        className="wk-filters",
    )  # fmt: skip


def _grid() -> Component:
    parameters = ", ".join(f"{name}: {value!r}" for name, value in _THEME.items())
    grid: Component = dag.AgGrid(
        id="traces-grid",
        rowModelType="infinite",
        columnDefs=list(_COLUMNS),
        defaultColDef={"sortable": True, "resizable": True, "suppressMovable": True, "sortingOrder": ["desc", "asc", None]},
        getRowId="params.data.request_id",
        dashGridOptions={
            "theme": {"function": f"themeQuartz.withParams({{{parameters}}})"},
            "cacheBlockSize": BLOCK,
            # The grid hands out one pending answer at a time: a second question would get the answer to the first.
            "maxConcurrentDatasourceRequests": 1,
            "maxBlocksInCache": 10,
            "ensureDomOrder": True,
            "animateRows": False,
            "tooltipShowDelay": 300,
            "rowSelection": {"mode": "multiRow", "checkboxes": True, "headerCheckbox": False,
                             "enableClickSelection": False},
            "selectionColumnDef": {"width": 44, "suppressHeaderMenuButton": True},
        },
        style={"height": "calc(100vh - 290px)", "minHeight": "320px"},
    )  # fmt: skip
    return grid


def register(app: Dash, sources: Sources) -> None:
    shell.keep_ticking(app, "traces")
    traces_selection.register(app, sources)
    controls = [f"traces-{name}" for name in _CONTROLS]
    shell.browser(
        app, "filters",
        Output("traces-url", "search"), *(Output(control, "value") for control in controls),
        *(Input(control, "value") for control in controls), Input("traces-url", "search"), State("traces-names", "data"),
    )  # fmt: skip
    shell.browser(
        app, "refreshGrid",
        Input("traces-url", "search"), Input("traces-tick", "data"), State("traces-grid", "getRowsRequest"),
        prevent_initial_call=True,
    )  # fmt: skip
    shell.browser(
        app, "scoreColumn", Output("traces-grid", "columnDefs"),
        Input("traces-url", "search"), State("traces-grid", "columnDefs"),
    )  # fmt: skip

    @app.callback(
        Output("traces-grid", "getRowsResponse"),
        Output("traces-cursors", "data"),
        Output("traces-note", "children"),
        Output("traces-empty", "children"),
        Output("traces-frame", "style"),
        Input("traces-grid", "getRowsRequest"),
        State("traces-url", "search"),
        State("traces-cursors", "data"),
        running=shell.while_running("traces"),
        prevent_initial_call=True,
    )
    def rows(asked: Mapping[str, Any] | None, search: str | None, kept: Mapping[str, Any] | None) -> tuple[Any, ...]:
        if asked is None:
            return (no_update,) * 5
        began = time.perf_counter()
        span, filters = _span(search, sources), filters_of(search)
        # Cursors belong to one order of one list: those of another would lead to the wrong rows.
        order = [search, asked.get("sortModel")]
        cursors = kept["cursors"] if kept and kept["order"] == order else {}
        block = read_block(sources.lake, span, filters, asked, cursors)
        shell.report_success(sources.now(), time.perf_counter() - began)
        score = words_of(filters["score"]) if "score" in filters else None
        response = {"rowData": [_row(row, score) for row in block.rows], "rowCount": block.last}
        if block.last == 0:
            return response, None, "", _nothing(span, filters), {"display": "none"}
        known = f"{units.count(block.last)} requests" if block.last is not None else "Scroll for more requests"
        return response, {"order": order, "cursors": block.cursors}, f"{known} in {span.words}. Times are UTC.", None, {}

    @app.callback(
        Output("traces-language", "data"),
        Output("traces-release", "data"),
        Output("traces-chips", "children"),
        Input("traces-url", "search"),
    )
    def choices(search: str | None) -> tuple[list[str], list[str], list[Component]]:
        span, filters = _span(search, sources), filters_of(search)
        languages = evidence.languages(sources.lake, span.start, span.end)
        releases = reading.slices(sources.lake, span.start, span.end)["release"]
        chips = [_chip(words, value, names, search or "") for words, value, names in _shown(search, filters)]
        return _offered(languages, filters.get("language")), _offered(releases, filters.get("release")), chips


def filters_of(search: str | None) -> dict[str, str]:
    """The filters in a URL's query; names that are no filter are left out."""
    query = parse_qs((search or "").lstrip("?"))
    return {name: query[name][-1] for name in (*_CONTROLS, *_CHIPS, *_SCORE) if query.get(name)}


def scored_of(filters: Mapping[str, str]) -> reading.Scored | None:
    """Which scored requests are asked for; a bound that is no number is none."""
    if "score" not in filters:
        return None
    return reading.Scored(filters["score"], _number(filters.get("below")), _number(filters.get("at_least")))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_block(lake: Lake, span: Period, filters: Mapping[str, str], asked: Mapping[str, Any], cursors: Cursors) -> "Block":
    """The rows that the grid asked for: from `startRow` up to `endRow`, in the order of its `sortModel`.

    The lake reads on from a cursor, so that a block far down costs no more than the first. The browser keeps the cursors
    of the blocks that it has seen; a block whose cursor it does not know is reached from the nearest one above it.
    """
    start = max(int(asked.get("startRow") or 0), 0)
    size = min(max(int(asked.get("endRow") or BLOCK) - start, 1), _MOST)
    scored = scored_of(filters)
    sort, descending = _order(asked.get("sortModel") or [], scored)
    known = {int(row): cursor for row, cursor in cursors.items() if 0 < int(row) <= start} if start else {}
    nearest = max(known, default=0)
    page = reading.traces(
        lake,
        span.start,
        span.end,
        limit=start - nearest + size,
        after=(known[nearest][0], known[nearest][1]) if nearest else None,
        sort=sort,
        descending=descending,
        status=filters.get("status"),
        text=filters.get("q"),
        equal={name: filters[name] for name in _EQUAL if name in filters},
        scored=scored,
    )
    rows = page.rows.slice(start - nearest).to_pylist()
    scores = evidence.toxicity(lake, rows)
    following = {} if page.after is None else {str(start + size): list(page.after)}
    return Block(
        [row | {"toxicity": scores.get(row["request_id"])} for row in rows],
        start + len(rows) if page.after is None else None,
        {**(cursors if start else {}), **following},
    )


@dataclass(frozen=True)
class Block:
    """Rows of the list; how many there are in all, once the last is reached; and the cursors to read on from."""

    rows: list[evidence.Row]
    last: int | None
    cursors: Cursors


def _order(model: Sequence[Mapping[str, str]], scored: reading.Scored | None) -> tuple[str, bool]:
    """The column to sort by, and whether downwards: as the grid says, else the worst score or the newest first."""
    sortable = {*reading.SORTABLE, *(["score"] if scored else [])}
    for item in model:
        if item.get("colId") in sortable:
            return item["colId"], item.get("sort", "desc") == "desc"
    return ("score", words_of(scored.name).better == "lower") if scored else ("received_at", True)


def _span(search: str | None, sources: Sources) -> Period:
    asked = named(search)
    if asked is not None:
        return asked
    name = chosen(search)
    return period(name, sources.now(), _BEGINNING if name == "all" else None)


def _row(row: evidence.Row, score: ScoreWords | None) -> dict[str, Any]:
    """One row as the grid shows it: strings, already in their units. `score`: the one that the list is about."""
    return {
        "time": units.day_and_clock(row["received_at"]),
        "request_id": row["request_id"],
        "prompt": row["prompt_text"],
        "action": row["action"],
        "status": row["status"],
        "model": row["model"],
        "total": units.milliseconds(row["total_ms"]),
        "ttft": units.milliseconds(row["ttft_ms"]),
        "tokens": units.count((row["input_tokens"] or 0) + (row["output_tokens"] or 0)),
        "cost": units.dollars(row["cost_usd"]),
        "support": units.score(row["support"]),
        "toxicity": units.score(row["toxicity"]),
        **({"score": score_of_one(score, row["score"])} if score else {}),
    }


def _offered(found: Sequence[str], chosen_one: str | None) -> list[str]:
    """What is chosen stays a choice even where the window no longer has it."""
    return list(dict.fromkeys([*found, *([chosen_one] if chosen_one else [])]))


def _nothing(span: Period, filters: Mapping[str, str]) -> Component:
    if filters:
        return parts.empty(
            "No request matches", f"Nothing in {span.words} passes these filters: take one away, or widen the time."
        )
    return parts.empty(
        f"No requests in {span.words}",
        "Widen the time, or send the gateway a request: it shows up here a few seconds later.",
    )


def _shown(search: str | None, filters: Mapping[str, str]) -> list[tuple[str, str, tuple[str, ...]]]:
    """The filters without a control: name, value, and which parts of the query they are."""
    shown: list[tuple[str, str, tuple[str, ...]]] = [(name, filters[name], (name,)) for name in _CHIPS if name in filters]
    scored, span = scored_of(filters), named(search)
    if scored is not None:
        bounds = (("below", scored.below), ("at least", scored.at_least))
        limits = [f"{words} {bound:g}" for words, bound in bounds if bound is not None]
        shown.insert(0, ("score", " ".join([scored.name, *limits]), _SCORE))
    if span is not None:
        shown.insert(0, ("time", span.words, _TIME))
    return shown


def _chip(name: str, value: str, names: Sequence[str], search: str) -> Component:
    """A filter that has no control of its own, with a way to take it away."""
    rest = "&".join(part for part in search.lstrip("?").split("&") if part.split("=")[0] not in names)
    remove = shell.link(parts.icon("x"), f"/traces?{rest}" if rest else "/traces", f"Take the filter on {name} away")
    return html.Span([f"{name}: ", html.Span(value, className="wk-mono"), remove], className="wk-chip")


PAGE: Final = Page("/traces", "Traces", layout, register, icon="list-details")
