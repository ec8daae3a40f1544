"""The card that says what people said of an answer, and takes what the reader says: a thumb, with a comment or without.

What is given goes to the gateway, which redacts it and keeps it, and comes back from the lake: nothing is written here. It
is an action, so it is offered on loopback only, where `delivery` lets no other page's request in.
"""

import os
from typing import Any, Final

import dash_mantine_components as dmc
import msgspec
import requests
from dash import Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from watchkeeper.embedded.openai_api import ErrorBody
from watchkeeper.lake.feedback import feedback_of
from watchkeeper.settings import Settings
from watchkeeper_dashboards import parts, units
from watchkeeper_dashboards.actions import refusal
from watchkeeper_dashboards.evidence import Row
from watchkeeper_dashboards.page import Sources

TIMEOUT_S: Final = (2.0, 10.0)

_SCORES: Final = {"feedback-up": 1.0, "feedback-down": 0.0}
_THUMBS: Final = {1.0: ("thumb-up", "Good"), 0.0: ("thumb-down", "Bad")}
_COLUMNS: Final = (
    ("Given", "wk-nowrap"), ("What", "wk-optional"), ("Comment", ""), ("By", "wk-optional"), ("Time (UTC)", "wk-nowrap"),
)  # fmt: skip

_BOUND: Final = "dashboard.host is another address, and there is no log-in yet."

Sent = dict[str, str]
"""What became of the reader's own: `id` of what the gateway took, or `error`, one line."""


def card(settings: Settings) -> Component:
    """The card, without what was given yet. It stays while the page is read anew: a comment would be lost else."""
    closed = parts.empty("", f"Feedback is given here only on loopback: {_BOUND}", small=True)
    return parts.card(
        "Feedback",
        "what people said of this answer; personal data is taken out before it is kept",
        closed if refusal(settings) else _form(),
        dcc.Store(id="feedback-sent"),
        html.Div(id="feedback-given"),
    )


def _form() -> Component:
    return html.Div(
        [
            dmc.Textarea(
                id="feedback-comment",
                label="Comment, if you like",
                minRows=2,
                resize="vertical",
                size="xs",
                className="wk-grow",
            ),
            *(
                dmc.Button(
                    f"{words} answer",
                    id=f"feedback-{name.removeprefix('thumb-')}",
                    leftSection=parts.icon(name),
                    size="xs",
                    variant="default",
                )
                for name, words in _THUMBS.values()
            ),
        ],
        className="wk-feedback-form",
    )


def register(app: Dash, sources: Sources) -> None:
    """The two callbacks of the card, on the page `trace`: one sends, one shows."""

    @app.callback(
        Output("feedback-sent", "data"),
        Output("feedback-comment", "value"),
        *(Input(name, "n_clicks") for name in _SCORES),
        State("trace-id", "data"),
        State("feedback-comment", "value"),
        running=[(Output(name, "disabled"), True, False) for name in _SCORES],
        prevent_initial_call=True,
    )
    def say(up: int | None, down: int | None, request_id: str, comment: str | None) -> tuple[Sent, Any]:
        if refusal(sources.settings):
            return {"error": f"This was not recorded: {_BOUND}"}, no_update
        sent = send(sources.settings, request_id, _SCORES[str(ctx.triggered_id)], comment)
        return sent, no_update if "error" in sent else ""

    @app.callback(
        Output("feedback-given", "children"),
        Input("feedback-sent", "data"),
        Input("trace-tick", "data"),
        State("trace-id", "data"),
    )
    def show(sent: Sent | None, _: object, request_id: str) -> list[Component]:
        rows = feedback_of(sources.lake, request_id.strip().lower().removeprefix("tr-"))
        return [*_note(sent or {}, rows), _given(rows)]


class _Taken(msgspec.Struct):
    id: str


def send(settings: Settings, request_id: str, score: float, comment: str | None) -> Sent:
    """Gives one opinion to the gateway of the settings. What goes wrong is one line that says whether to try again."""
    url = settings.gateway.url
    body = {"request_id": request_id.strip(), "score": score} | ({"comment": comment} if comment else {})
    key = os.environ.get(settings.dashboard.key_env) if settings.dashboard.key_env else None
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = requests.post(f"{url}/v1/feedback", json=body, headers=headers, timeout=TIMEOUT_S)
    except requests.ReadTimeout:
        return {"error": f"The gateway at {url} has not answered in time: see whether it appears here, then try again."}
    except requests.RequestException:
        return {"error": f"The gateway does not answer at {url}: start it with watchkeeper serve and try again."}
    try:
        if answer.status_code == 200:
            return {"id": msgspec.json.decode(answer.content, type=_Taken).id}
        why = msgspec.json.decode(answer.content, type=ErrorBody).error.message
    except msgspec.DecodeError:
        why = f"HTTP {answer.status_code}, and not as our gateway answers"
    return {"error": f"The gateway at {url} did not record it: {' '.join(why.split())[:300]}"}


def _note(sent: Sent, rows: list[Row]) -> list[Component]:
    """What became of the reader's own, until it is among what was given."""
    if "error" in sent:
        return [parts.notice(sent["error"])]
    if "id" in sent and all(row["feedback_id"] != sent["id"] for row in rows):
        return [html.P("Recorded; it appears here within seconds.", className="wk-feedback-note", role="status")]
    return []


def _given(rows: list[Row]) -> Component:
    if not rows:
        return parts.empty("Nobody has said anything yet.", small=True)
    cells = [
        parts.cells(
            _COLUMNS,
            (_verdict(row), row["name"], row["comment"] or "", row["user"] or "", units.day_and_clock(row["received_at"])),
        )
        for row in rows
    ]
    return parts.table(_COLUMNS, cells, "Feedback on this answer, newest first")


def _verdict(row: Row) -> parts.Children:
    if row["score"] is None:
        return str(row["label"])
    if row["score"] in _THUMBS:
        name, words = _THUMBS[row["score"]]
        return [parts.icon(name), f" {words}"]
    return units.score(row["score"])
