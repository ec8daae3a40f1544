"""`watchkeeper verify`: the ledger as a table or one JSON document."""

from typing import Any

import msgspec

from watchkeeper.cli import output
from watchkeeper.settings import Settings
from watchkeeper.telemetry.hours import Hour
from watchkeeper.telemetry.ledger import Ledger, verify


def run(settings: Settings, *, scored: bool, by_hour: bool, as_json: bool) -> int:
    """0 when every request that was served is where it is meant to be (`scored`: and has been scored), else 1."""
    ledger = verify(settings, by_hour=by_hour)
    good = ledger.ok and (not scored or ledger.scored == ledger.served)
    if as_json:
        output.document(plain(ledger) | {"ok": good})
    else:
        output.table(("", "requests"), ((key, value) for key, value in plain(ledger).items() if key != "hours"))
        if ledger.hours:
            fields = msgspec.structs.fields(Hour)
            output.table([field.name for field in fields], [msgspec.structs.astuple(hour) for hour in ledger.hours])
        output.note("complete: nothing is missing, nothing is doubled" if good else "not complete")
    return 0 if good else 1


def plain(ledger: Ledger) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(ledger)
    return body
