"""`watchkeeper keys …`: who may use the gateway. What a key is, and its file, is in `watchkeeper.serving.keys`."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchkeeper.cli import output
from watchkeeper.cli.options import Config, Data, Json, example

if TYPE_CHECKING:
    from watchkeeper.serving.keys import Key

app = typer.Typer(
    help="API keys: who may use the gateway, as which tenant. While there is none, everybody may.",
    no_args_is_help=True,
    epilog=example("watchkeeper keys add --tenant acme --expires 90d"),
)


@app.command(epilog=example("watchkeeper keys add --tenant acme --expires 90d"))
def add(
    tenant: Annotated[str, typer.Option("--tenant", help="As whom its holder asks.")],
    expires: Annotated[str | None, typer.Option("--expires", help="After so long (90d), or at a time (ISO 8601).")] = None,
    role: Annotated[str, typer.Option("--role", help="client, or operator: also reads /metrics.")] = "client",
    note: Annotated[str, typer.Option("--note", help="What it is for.")] = "",
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a key, and print it: this once, since only its hash is kept."""
    from watchkeeper.serving import keys

    settings = output.settings(config, data)
    if role not in ("client", "operator"):
        raise output.WrongUse(f"--role: client or operator, not {role!r}")
    now = time.time()
    ends = None if expires is None else _ending(expires, now)
    try:
        made, text = keys.add(
            settings.keys_file, tenant, role="operator" if role == "operator" else "client", expires_at=ends, note=note
        )
    except ValueError as error:
        raise output.WrongUse(f"--tenant: {error}") from None
    if all(tenant != other.name for other in settings.tenants):
        output.note(f"{tenant} has no limits: no [[tenants]] of the settings has this name")
    if as_json:
        output.document(_plain(made, now) | {"key": text, "file": str(settings.keys_file)})
    else:
        output.note(f"key {made.id} of {tenant}; it is shown this once:")
        print(text)


@app.command("list", epilog=example("watchkeeper keys list --json"))
def list_(config: Config = None, data: Data = None, as_json: Json = False) -> None:
    """Every key, without the key itself."""
    from watchkeeper.serving import keys

    settings = output.settings(config, data)
    found, now = keys.read(settings.keys_file), time.time()
    rows = [_plain(key, now) for key in found or ()]
    if as_json:
        output.document({"file": str(settings.keys_file), "required": found is not None, "keys": rows})
        return
    output.table(("id", "tenant", "role", "state", "made", "ends", "note"), (_cells(row) for row in rows))
    if found is None:
        output.note("there is none: everybody may use the gateway")


@app.command(epilog=example("watchkeeper keys revoke 3f9a0c51b2d7"))
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `keys list` shows it.")],
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """End a key. Gateways that run follow within a second or two."""
    from watchkeeper.serving import keys

    now = time.time()
    gone = keys.revoke(output.settings(config, data).keys_file, key_id, now)
    if as_json:
        output.document(_plain(gone, now))
    else:
        output.note(f"key {gone.id} of {gone.tenant} has ended")


def _ending(text: str, now: float) -> float:
    """`90d` or a time → seconds since the epoch."""
    from watchkeeper.settings import seconds

    try:
        return now + seconds(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise output.WrongUse(f"--expires: a duration like 90d or a time like 2027-01-31, not {text!r}") from None
    ends = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    if ends <= now:
        raise output.WrongUse(f"--expires: {text} is over")
    return ends


def _plain(key: "Key", now: float) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "role": key.role,
        "state": "good" if key.good(now) else "revoked" if key.revoked_at is not None else "expired",
        "created_at": _time(key.created_at),
        "expires_at": _time(key.expires_at),
        "revoked_at": _time(key.revoked_at),
        "note": key.note,
    }


def _cells(row: dict[str, Any]) -> list[Any]:
    ends = row["revoked_at"] or row["expires_at"]
    return [row["id"], row["tenant"], row["role"], row["state"], row["created_at"], ends or "never", row["note"]]


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
