"""`watchkeeper release …`: what serves, and what could. What the commands do is in `watchkeeper_evaluations.promotion`."""

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchkeeper.cli import output
from watchkeeper.cli.options import Config, Data, Json, example

if TYPE_CHECKING:
    from watchkeeper.tracking.prompts import Registered
    from watchkeeper_evaluations.canary import Canary
    from watchkeeper_evaluations.promotion import Promotion

app = typer.Typer(
    help="Releases: what serves (prompt, model, parameters, grounding, policies), kept in MLflow.",
    no_args_is_help=True,
    epilog=example('watchkeeper release promote watchkeeper@3 --reason "answers about bills"'),
)

Ref = Annotated[str, typer.Argument(help="A release: watchkeeper@3, its version 3, or an alias such as champion.")]
SHORT = 12
"""Characters of a digest in a table."""


@app.command("list", epilog=example("watchkeeper release list --json"))
def list_(config: Config = None, data: Data = None, as_json: Json = False) -> None:
    """Every release, newest first, and which one serves since when."""
    from watchkeeper.lake.lake import Lake
    from watchkeeper.lake.releases import served
    from watchkeeper_evaluations.promotion import releases_of, serving

    settings = output.settings(config, data)
    shelf, now = releases_of(settings).shelf(), serving(settings)
    newest = next(iter(served(Lake(settings.lake_uri, settings.lake.storage_options))), None)
    since = newest.since if newest is not None and newest.digest == now.digest else None
    rows = [_plain(one) | {"serving_since": since if one.release.id == now.id else None} for one in shelf.registered]
    if as_json:
        changed = [{"release": other.id, "why": other.why} for other in shelf.changed]
        output.document({"serving": {"release": now.id, "digest": now.digest}, "releases": rows, "changed": changed})
        return
    header = ("release", "aliases", "digest", "registered", "serving since", "note")
    output.table(header, (_cells(row) for row in rows))
    for other in shelf.changed:
        output.note(f"not a release: {other.why}")
    if not shelf.registered:
        output.note(f"none is registered yet; {now.id} serves")


@app.command(epilog=example('watchkeeper release register better.toml --note "shorter answers, three passages"'))
def register(
    file: Annotated[Path, typer.Argument(help="TOML: what differs from the champion (see `release show`).")],
    note: Annotated[str, typer.Option("--note", help="What is new about it.")] = "",
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Register a release: the champion, with what FILE says. It serves only whoever names it."""
    from watchkeeper_evaluations import promotion, release_file

    settings = output.settings(config, data)
    upstreams = [upstream.name for upstream in settings.all_upstreams]
    release = release_file.read(file, promotion.serving(settings), upstreams)
    done = promotion.register(settings, release, note, _user(), datetime.now(UTC))
    if as_json:
        first = done.first.id if done.first else None
        output.document({"release": done.release.id, "digest": done.release.digest, "first": first, "untold": done.untold})
    else:
        if done.first:
            output.note(f"{done.first.id} is what served until now, and is the champion")
        output.table(("release", "digest"), [(done.release.id, done.release.digest[:SHORT])])
    _tell(done.untold)


@app.command(epilog=example("watchkeeper release show champion > better.toml"))
def show(ref: Ref, config: Config = None, data: Data = None, as_json: Json = False) -> None:
    """All that a release is, as a file that `register` reads."""
    from watchkeeper_evaluations.promotion import releases_of
    from watchkeeper_evaluations.release_file import written

    one = releases_of(output.settings(config, data)).find(ref)
    if as_json:
        import msgspec

        output.document(_plain(one) | {"content": msgspec.to_builtins(one.release)})
        return
    aliases = f" ({', '.join(one.aliases)})" if one.aliases else ""
    print(f"# {one.release.id}{aliases}, registered {one.created_at:%Y-%m-%d %H:%M:%S}Z, digest {one.release.digest}")
    print(*(f"# {line}\n" for line in one.description.splitlines()), written(one.release), sep="", end="")


@app.command(epilog=example("watchkeeper release diff champion watchkeeper@3"))
def diff(
    base: Ref,
    candidate: Annotated[str, typer.Argument(help="Another release.")],
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """What differs between two releases."""
    from watchkeeper_evaluations.promotion import releases_of
    from watchkeeper_evaluations.release_file import difference

    releases = releases_of(output.settings(config, data))
    one, other = releases.get(base), releases.get(candidate)
    differs = difference(one, other)
    if as_json:
        output.document({"base": one.id, "candidate": other.id, "same": not differs, "diff": differs})
    elif differs:
        print(differs, end="")
    else:
        output.note(f"{one.id} and {other.id} are the same")


@app.command(epilog=example('watchkeeper release promote watchkeeper@3 --reason "answers about bills"'))
def promote(
    ref: Ref,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the log.")] = "",
    override: Annotated[
        str | None, typer.Option("--override", metavar="REASON", help="Promote without a passing gate; kept in the log.")
    ] = None,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Put a release into service. 1: no gate has let it pass against what serves."""
    from watchkeeper_evaluations.promotion import PromotionRefused
    from watchkeeper_evaluations.promotion import promote as put

    settings = output.settings(config, data)
    if override is not None and not override.strip():
        raise output.WrongUse("--override: say why")
    try:
        done = put(settings, ref, reason=reason, override=override, by=_user(), now=datetime.now(UTC))
    except PromotionRefused as refused:
        raise typer.Exit(_refused(refused, as_json)) from None
    _say(done, as_json)


@app.command(epilog=example('watchkeeper release rollback --reason "answers got worse"'))
def rollback(
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the log.")],
    to: Annotated[str | None, typer.Option("--to", metavar="REF", help="This release, not the one before.")] = None,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Put back what served before; no gate is asked. 1: nothing served before."""
    from watchkeeper_evaluations.promotion import PromotionRefused
    from watchkeeper_evaluations.promotion import rollback as put_back

    settings = output.settings(config, data)
    if not reason.strip():
        raise output.WrongUse("--reason: say why")
    try:
        done = put_back(settings, to=to, reason=reason, by=_user(), now=datetime.now(UTC))
    except PromotionRefused as refused:
        raise typer.Exit(_refused(refused, as_json)) from None
    _say(done, as_json)


@app.command(epilog=example('watchkeeper release canary watchkeeper@3 --share 0.1 --reason "shorter answers"'))
def canary(
    ref: Annotated[str | None, typer.Argument(help="The release; without one: which serves a share now.")] = None,
    share: Annotated[float | None, typer.Option("--share", help="Of the requests that name none, at most 0.5.")] = None,
    stop: Annotated[bool, typer.Option("--stop", help="The champion serves all again.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the log.")] = "",
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Let a release serve a share of the requests beside the champion; a session stays with one of them. No gate is
    asked."""
    from watchkeeper_evaluations import canary as canaries

    settings = output.settings(config, data)
    if stop and (ref is not None or share is not None):
        raise output.WrongUse("--stop ends whichever canary runs: it takes neither a release nor --share")
    if (ref is None) != (share is None):
        raise output.WrongUse("a canary needs both a release and its share: watchkeeper release canary REF --share 0.1")
    if stop:
        done = canaries.stop(settings, reason=reason, by=_user(), now=datetime.now(UTC))
    elif ref is None or share is None:
        done = canaries.running(settings)
    else:
        done = canaries.start(settings, ref, share, reason=reason, by=_user(), now=datetime.now(UTC))
    _say_canary(done, as_json)


def _say_canary(done: "Canary", as_json: bool) -> None:
    now, before = done.challenger, done.before
    if as_json:
        output.document(
            {
                "champion": done.champion.id,
                "challenger": now.release.id if now else None,
                "share": now.share if now else 0.0,
                "before": {"challenger": before.release.id, "share": before.share} if before else None,
                "changed": done.changed,
                "untold": done.untold,
            }
        )
    else:
        follow = "; gateways follow within five seconds" if done.changed else ""
        if now:
            output.note(f"{now.release.id} serves {now.share:.3g} of the requests beside {done.champion.id}{follow}")
        else:
            output.note(f"{done.champion.id} serves all requests{follow}")
        if before and done.changed and (now is None or now.release != before.release):
            output.note(f"the canary of {before.release.id} has ended")
    _tell(done.untold)


def _say(done: "Promotion", as_json: bool) -> None:
    if as_json:
        output.document(
            {
                "event": done.event,
                "changed": done.changed,
                "release": done.release.id,
                "digest": done.release.digest,
                "previous": done.previous.id,
                "at": done.at.isoformat(),
                "by": done.by,
                "reason": done.reason,
                "override": done.override,
                "comparison_id": done.comparison_id,
                "canary_ended": done.ended.id if done.ended else None,
                "untold": done.untold,
            }
        )
    elif done.changed:
        output.note(f"{done.release.id} serves, after {done.previous.id}; gateways follow within five seconds")
        if done.ended:
            output.note(f"the canary of {done.ended.id} has ended")
    else:
        output.note(f"{done.release.id} serves already; nothing was changed")
    _tell(done.untold)


def _refused(refused: Exception, as_json: bool) -> int:
    if as_json:
        output.document({"changed": False, "refused": str(refused)})
    output.note(f"watchkeeper: {refused}")
    return 1


def _tell(lines: tuple[str, ...]) -> None:
    for line in lines:
        output.note(f"watchkeeper: {line}")


def _plain(one: "Registered") -> dict[str, Any]:
    return {
        "release": one.release.id,
        "aliases": one.aliases,
        "digest": one.release.digest,
        "registered_at": one.created_at,
        "note": one.description,
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    since = row["serving_since"]
    return (
        row["release"],
        ", ".join(row["aliases"]),
        row["digest"][:SHORT],
        f"{row['registered_at']:%Y-%m-%d %H:%M:%S}Z",
        f"{since:%Y-%m-%d %H:%M:%S}Z" if since else "",
        row["note"],
    )


def _user() -> str:
    """Who runs the command; `unknown` where the system does not say, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
