"""`watchkeeper erase`: what it would erase, a question, and what became of it, as a table or one JSON document."""

import getpass
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from watchkeeper.cli import output
from watchkeeper.cli.output import WrongUse
from watchkeeper.settings import Settings

if TYPE_CHECKING:
    from watchkeeper_evaluations.erasure import Asked, Erasure


def run(
    settings: Settings,
    *,
    user: str | None,
    tenant: str | None,
    requests: Sequence[str],
    ids: str | None,
    dry_run: bool,
    yes: bool,
    by: str | None,
    as_json: bool,
) -> int:
    """0: erased, or nothing was there; 1: something could not be reached, and is named."""
    from watchkeeper_evaluations.erasure import erase, look

    asked = _asked(settings, user, tenant, requests, ids)
    if not dry_run and not yes:
        if as_json or not sys.stdin.isatty():
            raise WrongUse("erasing cannot be undone: say --yes, or look first with --dry-run")
        found = look(settings, asked)
        _show(found)
        if not found.nothing:
            typer.confirm("Erase this everywhere? It cannot be undone.", abort=True, err=True)
    done = look(settings, asked) if dry_run else erase(settings, asked, by=by or getpass.getuser())
    if as_json:
        output.document(plain(done))
    else:
        _show(done)
    return 0 if done.complete else 1


def _asked(settings: Settings, user: str | None, tenant: str | None, requests: Sequence[str], ids: str | None) -> "Asked":
    from watchkeeper.serving.labels import labels
    from watchkeeper.serving.redact import Redactor
    from watchkeeper_evaluations.erasure import of_requests, of_user

    if sum((user is not None, bool(requests) or ids is not None)) != 1:
        raise WrongUse("say whose: --user, or --request (and --ids, a file of them)")
    if user is not None:
        return of_user(user, tenant, redact=Redactor(labels(settings)))
    if tenant is not None:
        raise WrongUse("--tenant goes with --user")
    return of_requests([*requests, *(_read(ids).splitlines() if ids is not None else ())])


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise WrongUse(f"{name}: {error.strerror}") from None


def plain(done: "Erasure") -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(done)
    return body | {"nothing": done.nothing, "complete": done.complete}


def _show(done: "Erasure") -> None:
    if done.nothing:
        output.note("nothing of it is here")
    else:
        rows = [("requests", done.requests), ("feedback", done.feedback), ("replays", done.replays)]
        output.table(("", "to erase" if done.dry_run else "erased"), [*rows, *done.removed.items()])
    for line in done.left:
        output.note(f"not reached: {line}")
    for line in done.elsewhere:
        output.note(f"not ours to reach: {line}")
    if done.left and not done.dry_run:
        output.note("run it again, and the rest is erased too")
    if done.lake_versions:
        versions = ", ".join(f"{table} {version}" for table, version in done.lake_versions.items())
        output.note(f"no older version of the lake can be replayed any more: {versions}")
