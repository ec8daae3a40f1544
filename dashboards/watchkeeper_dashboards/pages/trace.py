"""One request, all of it: question and answer, every stage's time, what guards and judges said, what the answer rests on.

All texts here are hostile until proven otherwise and are shown as plain text.
"""

import json
import re
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html
from dash.development.base_component import Component

from watchkeeper.lake import reading
from watchkeeper.lake.rollup import status_of
from watchkeeper.record import UNGUARDED, Record
from watchkeeper_dashboards import feedback, parts, shell, units
from watchkeeper_dashboards.evidence import Row
from watchkeeper_dashboards.figures import STAGE_LABELS
from watchkeeper_dashboards.page import Page, Sources
from watchkeeper_dashboards.waterfall import waterfall

_ID: Final = re.compile(r"[0-9a-f]{32}")

_VERDICTS: Final = (
    ("Guard", "wk-nowrap"), ("Target", ""), ("Category", ""), ("Action", ""), ("Score", "wk-num"), ("Rule", ""),
)  # fmt: skip
_SCORES: Final = (
    ("Scorer", ""), ("Score", ""), ("Value", "wk-num"), ("Explanation", ""), ("Scored", "wk-nowrap wk-optional"),
)  # fmt: skip


def layout(sources: Sources, request_id: str) -> Component:
    said = [feedback.card(sources.settings)] if _ID.fullmatch(_named(request_id)) else []
    return shell.live("trace", dcc.Store(id="trace-id", data=request_id), html.Div(id="trace-body"), *said)


def register(app: Dash, sources: Sources) -> None:
    shell.keep_ticking(app, "trace")
    feedback.register(app, sources)

    @app.callback(
        Output("trace-body", "children"),
        Input("trace-id", "data"),
        Input("trace-tick", "data"),
        State("trace-url", "search"),
        running=shell.while_running("trace"),
    )
    def read(request_id: str, _: object, search: str | None) -> Component:
        began = time.perf_counter()
        wanted = _named(request_id)
        back = html.Div(
            shell.link([parts.icon("arrow-left"), "Traces"], f"/traces{search or ''}", class_name="wk-back"),
        )
        if not _ID.fullmatch(wanted):
            return html.Div([back, _no_id(request_id)])
        found = reading.trace(sources.lake, wanted)
        body = [_not_yet(wanted)] if found is None else _body(sources, found)
        shell.report_success(sources.now(), time.perf_counter() - began)
        return html.Div([back, *body])


def _named(text: str) -> str:
    """A request id as the lake has it, however it is written in the address."""
    return text.strip().lower().removeprefix("tr-")


def _no_id(text: str) -> Component:
    return html.Div(
        parts.empty(
            "That is no request id",
            f"A request id is 32 hexadecimal digits, as in the answer's header x-request-id; not {text[:80]!r}.",
        ),
        className="wk-card",
    )


def _not_yet(request_id: str) -> Component:
    return html.Div(
        parts.empty(
            "This request is not in the lake yet",
            html.Span(request_id, className="wk-mono"),
            html.Br(),
            "A request is shipped a few seconds after it was answered, and this page looks again every 10 seconds. "
            "If it stays away, it was never served here, or it was erased. To see what has not arrived:",
            command="watchkeeper verify",
        ),
        className="wk-card",
    )


def _body(sources: Sources, trace: reading.Trace) -> list[Component]:
    row = trace.interaction
    scores = list({(score["scorer"], score["name"]): score for score in trace.scores}.values())
    conversation = parts.card(
        "Conversation", "as the model saw it; what was redacted was redacted before it was kept", *_messages(row)
    )
    return [
        _heading(sources, row),
        html.Div(
            [
                html.Div([parts.facts(_measures(row), big=True), parts.facts(_facts(row))], className="wk-card"),
                parts.card("Stages", _stages_note(row), waterfall(row)),
                html.Div(
                    [
                        html.Div([conversation, _sources(row)], className="wk-stack"),
                        html.Div([_verdicts(row), _scores(scores)], className="wk-stack"),
                    ],
                    className="wk-row wk-row-even",
                ),
            ],
            className="wk-stack",
        ),
    ]


def _heading(sources: Sources, row: Row) -> Component:
    # The route of an imported request is the experiment that it was imported from.
    mlflow = sources.links.trace(row["request_id"], row["route"] if row["source"] == "mlflow" else None)
    ended = {name: row[name] for name in ("request_id", "status", "error", "finish_reason")}
    outcome = status_of(Record(received_at=0, **ended))
    return html.Div(
        [
            html.H1(row["request_id"], className="wk-title"),
            dmc.CopyButton(
                "Copy id",
                value=row["request_id"],
                copiedChildren="Copied",
                size="compact-xs",
                variant="default",
                copiedColor="watch",
            ),
            parts.badge(outcome, _OUTCOMES[outcome]),
            parts.badge(row["action"]),
            html.Span(className="wk-grow"),
            parts.outside("Trace in MLflow", mlflow) if mlflow else None,
        ],
        className="wk-trace-head",
    )


_OUTCOMES: Final = {"ok": "pass", "blocked": "block", "error": "error", "rejected": "unknown"}


def _measures(row: Row) -> list[tuple[str, parts.Children]]:
    """What it took: time, tokens, money; and how well the answer is supported."""
    return [
        ("Total", units.milliseconds(row["total_ms"])),
        ("First token", units.milliseconds(row["ttft_ms"])),
        ("Our overhead" if row["source"] not in UNGUARDED else "Beside generation", units.milliseconds(row["overhead_ms"])),
        ("Tokens in / out", f"{units.count(row['input_tokens'] or 0)} / {units.count(row['output_tokens'] or 0)}"),
        ("Cost", units.dollars(row["cost_usd"])),
        ("Support", units.score(row["support"])),
    ]


def _facts(row: Row) -> list[tuple[str, parts.Children]]:
    """Where it came from and what served it; what this request does not have is left out."""
    pairs: list[tuple[str, parts.Children]] = [
        ("Received (UTC)", units.moment(row["received_at"]).removesuffix(" UTC")),
        ("Status", str(row["status"])),
        ("Error", row["error"]),
        ("Finished", row["finish_reason"]),
        ("Release", _filtered("release", row["release"]) if row["release"] else None),
        ("Model", _filtered("model", row["model"]) if row["model"] else None),
        ("Upstream", row["upstream"]),
        ("Route", row["route"]),
        ("Session", _filtered("session", row["session"]) if row["session"] else None),
        ("User", _filtered("user", row["user"]) if row["user"] else None),
        ("Tenant", row["tenant"] if row["tenant"] != "default" else None),
        ("Language", row["language"]),
        ("Streamed", "yes" if row["stream"] else "no"),
        ("Attempts", str(row["attempts"]) if (row["attempts"] or 0) > 1 else None),
        ("Redacted", ", ".join(f"{item['n']} {item['name']}" for item in row["redactions"] or [])),
        ("Tags", _tags(row["tags"])),
        ("Origin", row["source"] if row["source"] != "gateway" else None),
    ]
    return [(name, value) for name, value in pairs if value]


def _filtered(name: str, value: str) -> Component:
    """A value that leads to all requests that share it."""
    return shell.link(value, f"/traces?{urlencode({'range': 'all', name: value})}", f"All requests with this {name}")


def _tags(text: str | None) -> str:
    tags = _parsed(text)
    return ", ".join(f"{name}={value}" for name, value in tags.items()) if isinstance(tags, dict) else ""


def _stages_note(row: Row) -> str:
    worst = [stage["name"] for stage in row["stages"] or [] if stage["status"] in ("degraded", "error")]
    if not worst:
        return "when each stage ran and for how long; the mark is the first token"
    return f"not as it should be: {', '.join(STAGE_LABELS.get(name, name) for name in worst)}"


def _messages(row: Row) -> list[Component]:
    """The turns, then the answer."""
    turns = _parsed(row["prompt"])
    shown = [
        _message(str(turn.get("role", "?")), str(turn.get("content", "")))
        for turn in (turns if isinstance(turns, list) else [])
    ]
    if not shown and row["prompt_text"]:
        shown = [_message("user", row["prompt_text"])]
    if row["output_text"]:
        shown.append(_message("assistant", row["output_text"]))
    else:
        why = row["error"] or row["finish_reason"] or "nothing was answered"
        shown.append(parts.empty("", f"There is no answer: {why}.", small=True))
    return shown


def _message(role: str, content: str) -> Component:
    return html.Div(
        [html.Div(role, className="wk-message-role"), parts.text(content)],
        className="wk-message",
        **parts.attributes(data_role=role),
    )


def _sources(row: Row) -> Component:
    found = row["sources"] or []
    support = (
        f"; {units.share(row['support'])} of the answer's sentences are supported" if row["support"] is not None else ""
    )
    if not found:
        return parts.card("Sources", "passages that grounded the answer", parts.empty("No passage was used.", small=True))
    return parts.card("Sources", f"passages that grounded the answer{support}", *(_source(source) for source in found))


def _source(source: Row) -> Component:
    head = [html.Span(source["title"] or source["id"]), html.Span(units.score(source["score"]), className="wk-num wk-dim")]
    return html.Div(
        [
            html.Div(head, className="wk-source-head"),
            html.Div(source["id"], className="wk-mono wk-dim"),
            parts.text(source["text"]) if source["text"] else None,
        ],
        className="wk-source",
    )


def _verdicts(row: Row) -> Component:
    verdicts = sorted(row["verdicts"] or [], key=lambda verdict: verdict["action"] == "pass")
    if not verdicts:
        return parts.card("Verdicts", "what the guards said", parts.empty("No guard looked at this request.", small=True))
    rows = [
        parts.cells(
            _VERDICTS,
            (
                verdict["guard"], verdict["target"], verdict["category"], parts.badge(verdict["action"]),
                units.score(verdict["score"]),
                html.Span(verdict["rule"] or "", className="wk-mono", title=f"version {verdict['version']}"),
            ),
        )
        for verdict in verdicts
    ]  # fmt: skip
    return parts.card("Verdicts", "what the guards said", parts.table(_VERDICTS, rows, "Verdicts of the guards"))


def _scores(scores: Sequence[Row]) -> Component:
    if not scores:
        return parts.card(
            "Scores",
            "what the judges said later",
            parts.empty("Not scored yet: evaluation jobs run on a schedule.", small=True),
        )
    rows = [
        parts.cells(
            _SCORES,
            (
                f"{score['scorer']} {score['scorer_version'] or ''}", score["name"], _value(score),
                score["error"] or score["explanation"] or "", units.day_and_clock(score["scored_at"]),
            ),
        )
        for score in scores
    ]  # fmt: skip
    return parts.card("Scores", "what the judges said later", parts.table(_SCORES, rows, "Scores of the judges"))


def _value(score: Row) -> str:
    if score["error"]:
        return "error"
    if score["kind"] == "label":
        return str(score["label"] or units.NONE)
    if score["kind"] == "assertion":
        return {1.0: "yes", 0.0: "no"}.get(score["value"], units.NONE)
    return units.score(score["value"])


def _parsed(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except ValueError:
        return None


PAGE: Final = Page("/traces/<request_id>", "Trace", layout, register)
