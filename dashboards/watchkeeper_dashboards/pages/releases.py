"""What serves, since when, and what could: every release with the gate that judged it, and what has happened to them.

Promoting and rolling back are our own commands, asked for in a dialog with a reason.
"""

import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from dash import Dash, Input, Output, State, ctx, html
from dash.development.base_component import Component

from watchkeeper import release as serving_release
from watchkeeper.lake.experiments import gates
from watchkeeper.release import Release
from watchkeeper_dashboards import actions, dialog, parts, release_log, shell, units
from watchkeeper_dashboards.page import Page, Sources
from watchkeeper_dashboards.release_log import SERVING, Event, Version

_VERSIONS: Final = (
    ("Release", "wk-nowrap"), ("What is new", "wk-wide wk-optional"), ("Registered (UTC)", "wk-nowrap wk-optional"),
    ("Gate", "wk-nowrap"), ("Last in service from (UTC)", "wk-nowrap wk-optional"), ("", "wk-nowrap wk-end"),
)  # fmt: skip
_EVENTS: Final = (
    ("When (UTC)", "wk-nowrap"), ("What", "wk-nowrap"), ("Release", "wk-nowrap"), ("Before", "wk-nowrap wk-optional"),
    ("Why", "wk-wide"), ("By", "wk-optional"),
)  # fmt: skip
_KEYS: Final = ("promote", "rollback")
_EVENTS_SHOWN: Final = 200
_FOLLOW: Final = "Gateways follow within five seconds."


def layout(sources: Sources, _: str) -> Component:
    return shell.live(
        "releases",
        parts.head("Releases", "What serves, since when, and what could take its place?"),
        html.Div(id="releases-body", className="wk-stack"),
        dialog.dialog(
            "releases", _KEYS, "Do it",
            dialog.words("releases-reason", "Reason", "Kept in the log."),
            html.Div(
                dialog.words("releases-override", "Override", "Promotes without a passing gate. Say why; it is kept in the "
                             "log and marked there.", required=False),
                id="releases-override-place",
            ),
        ),
    )  # fmt: skip


def register(app: Dash, sources: Sources) -> None:
    shell.keep_ticking(app, "releases")
    dialog.register(app, "releases", "releases-reason")

    @app.callback(
        Output("releases-body", "children"),
        Input("releases-url", "search"),
        Input("releases-tick", "data"),
        running=shell.while_running("releases"),
    )
    def read(search: str | None, _: object) -> list[Component]:
        began = time.perf_counter()
        body = _body(sources, search)
        shell.report_success(sources.now(), time.perf_counter() - began)
        return body

    @app.callback(
        Output("releases-dialog", "title"),
        Output("releases-question", "children"),
        Output("releases-do", "children"),
        Output("releases-override-place", "style"),
        Output("releases-reason", "value"),
        Output("releases-override", "value"),
        Input("releases-url", "search"),
    )
    def ask(search: str | None) -> tuple[Any, ...]:
        wanted, serving = asked(search), serving_release.champion(sources.settings.data)
        if wanted is None:
            return "", None, "Do it", {}, "", ""
        action, ref = wanted
        if action == "rollback":
            words = f"What served before {serving.id} is put back, whatever a gate said of it. {_FOLLOW}"
            return "Roll back", words, "Roll back", {"display": "none"}, "", ""
        words = f"{ref} takes the place of {serving.id}, if a gate has let it pass against what serves now. {_FOLLOW}"
        return f"Promote {ref}", words, "Promote", {}, "", ""

    @app.callback(
        Output("releases-said", "children"),
        Input("releases-do", "n_clicks"),
        Input("releases-url", "search"),
        State("releases-reason", "value"),
        State("releases-override", "value"),
        running=[(Output("releases-do", "loading"), True, False), (Output("releases-close", "disabled"), True, False)],
        prevent_initial_call=True,
    )
    def do(_: int | None, search: str | None, reason: str | None, override: str | None) -> Component | None:
        if ctx.triggered_id != "releases-do":  # another question: what came of the last one is gone
            return None
        command = commanded(search, reason, override)
        if command is None:
            return parts.notice("Say why.")
        return said(actions.run(sources.settings, command))


def asked(search: str | None) -> tuple[str, str] | None:
    """What the URL asks to be done: `promote` or `rollback`, and of what."""
    query = parse_qs((search or "").lstrip("?"))
    return next(((key, query[key][-1]) for key in _KEYS if key in query), None)


def commanded(search: str | None, reason: str | None, override: str | None) -> actions.Command | None:
    """The command that does it; None while the reason is missing."""
    wanted, why = asked(search), (reason or "").strip()
    if wanted is None or not why:
        return None
    if wanted[0] == "rollback":
        return actions.Command("release rollback", options={"--reason": why})
    more = {"--override": override.strip()} if override and override.strip() else {}
    return actions.Command("release promote", (wanted[1],), {"--reason": why, **more})


def said(outcome: actions.Outcome) -> Component:
    """What came of it."""
    typed = parts.command(outcome.command)
    if not outcome.ok:
        return parts.notice([outcome.error, typed])
    untold = [f" {line}" for line in outcome["untold"] or []]
    if outcome["changed"] is False:
        return parts.done([html.Strong(outcome["release"]), " serves already; nothing was changed.", *untold, typed])
    return parts.done([html.Strong(outcome["release"]), f" serves. {_FOLLOW}", *untold, typed])


def _body(sources: Sources, search: str | None) -> list[Component]:
    log = release_log.events(sources.lake)
    serving = serving_release.champion(sources.settings.data)
    known = release_log.versions(log, gates(sources.lake), serving.digest)
    refused = actions.refusal(sources.settings)
    body = [_serving(serving, log, search, refused), _versions(known, serving, search, refused)]
    return [*body, _events(log)] if log else body


def _serving(serving: Release, log: Sequence[Event], search: str | None, refused: str | None) -> Component:
    newest = next((event for event in log if event["event"] in SERVING), None)
    since = newest if newest and newest["digest"] == serving.digest else None
    grounding, parameters = serving.grounding, serving.parameters
    facts: list[tuple[str, parts.Children]] = [
        ("Since (UTC)", units.moment(since["at"]).removesuffix(" UTC") if since else "before the log begins"),
        ("Put there by", since["by"] if since else None),
        ("Reason", since["reason"] if since else None),
        ("Without a gate", parts.badge("override", "flag") if since and since["override"] else None),
        ("Model", serving.model or "whichever the router picks"),
        ("At most", f"{units.count(parameters.max_tokens)} tokens"),
        ("Temperature", f"{parameters.temperature:g}"),
        ("Passages", f"{grounding.k}, from a score of {grounding.min_score:g} on"),
        ("Digest", html.Span(serving.digest[:12], className="wk-mono", title=serving.digest)),
    ]
    other = newest if newest and newest["digest"] != serving.digest else None
    late = parts.notice(
        f"The log says that {other['release']} was put into service {units.day_and_clock(other['at'])} UTC, the "
        "file of the data folder still has another one. It follows within five seconds; if it does not, the shipper is not "
        "running: watchkeeper doctor."
    ) if other else None  # fmt: skip
    back = (
        _button("arrow-back-up", "Roll back", _address(search, rollback="1")) if len(_served(log)) and not refused else None
    )
    return parts.card(
        f"{serving.id} serves", refused or "what gateways put around every prompt that names no release",
        late, parts.facts([(name, value) for name, value in facts if value]), _prompt(serving), aside=back,
    )  # fmt: skip


def _served(log: Sequence[Event]) -> list[Event]:
    """The events after which something else served than before: what can be rolled back."""
    return [event for event in log if event["event"] in SERVING and event["previous"]]


def _prompt(serving: Release) -> Component:
    return html.Details(
        [html.Summary("Prompt"), parts.text(serving.template), parts.text(serving.grounded)], className="wk-details"
    )


def _versions(known: Sequence[Version], serving: Release, search: str | None, refused: str | None) -> Component:
    note = "every registered release, newest first; a gate judges a candidate against what serves"
    if not known:
        nothing = parts.empty(
            "", "No release is registered yet. Write down what should differ from what serves, and register it:",
            command="watchkeeper release show champion > better.toml\nwatchkeeper release register better.toml",
            small=True,
        )  # fmt: skip
        return parts.card("Releases", note, nothing)
    rows = [_version_row(version, serving, search, refused) for version in known]
    return parts.card("Releases", note, parts.table(_VERSIONS, rows, "Releases, newest first"))


def _version_row(version: Version, serving: Release, search: str | None, refused: str | None) -> Component:
    registered, put = version.registered, version.put_into_service
    serves = version.release == serving.id
    promote = None if serves or refused else _button("rocket", "Promote", _address(search, promote=version.release))
    values = (
        html.Span([html.Strong(version.release), parts.badge("serves", "pass") if serves else None], className="wk-pair"),
        registered["reason"] if registered else "",
        units.day_and_clock(registered["at"]) if registered else units.NONE,
        _gate(version, serving),
        units.day_and_clock(put["at"]) if put else units.NONE,
        promote,
    )
    return parts.cells(_VERSIONS, values)


def _gate(version: Version, serving: Release) -> Component:
    gate = version.gate
    if gate is None:
        return html.Span("no gate yet", className="wk-dim")
    address = f"/experiments/{gate.experiment_id}?{urlencode({'comparison': gate.comparison_id})}"
    now = gate.base_digest == serving.digest or version.release == serving.id
    against = f"against {gate.base}" if now else f"against {gate.base}, which does not serve now"
    return html.Span([parts.badge(gate.verdict or "unknown"), shell.link(against, address)], className="wk-pair")


def _events(log: Sequence[Event]) -> Component:
    rows = [
        parts.cells(
            _EVENTS,
            (
                units.day_and_clock(event["at"]),
                _what(event),
                event["release"],
                event["previous"] or units.NONE,
                event["reason"] or "",
                event["by"] or "",
            ),
        )
        for event in log[:_EVENTS_SHOWN]
    ]  # fmt: skip
    more = f"; the newest {_EVENTS_SHOWN} of {units.count(len(log))}" if len(log) > _EVENTS_SHOWN else ""
    return parts.card("What happened", f"newest first{more}", parts.table(_EVENTS, rows, "What happened to releases"))


def _what(event: Event) -> Component:
    override = parts.badge("override", "flag") if event["override"] else None
    return html.Span([event["event"].replace("_", " "), override], className="wk-pair")


def _button(icon: str, words: str, address: str) -> Component:
    return shell.link([parts.icon(icon), words], address, class_name="wk-button")


def _address(search: str | None, **more: str) -> str:
    query = {name: values[-1] for name, values in parse_qs((search or "").lstrip("?")).items() if name not in _KEYS}
    return f"/releases?{urlencode(query | more)}"


PAGE: Final = Page("/releases", "Releases", layout, register, icon="rocket", group="Improve")
