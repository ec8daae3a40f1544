"""`watchkeeper verify`: the ledger as a table or one JSON document."""

from typing import Any

import msgspec

from watchkeeper.cli import output
from watchkeeper.settings import Settings
from watchkeeper.telemetry.ledger import Ledger, verify


def run(settings: Settings, *, scored: bool, as_json: bool) -> int:
    """0 when every request that was served is everywhere (`scored`: and has been scored), else 1."""
    ledger = verify(settings)
    good = ledger.ok and (not scored or ledger.scored == ledger.served)
    if as_json:
        output.document(plain(ledger) | {"ok": good})
    else:
        output.table(("", "requests"), ((key, value) for key, value in plain(ledger).items()))
        output.note("complete: nothing is missing, nothing is doubled" if good else "not complete")
    return 0 if good else 1


def plain(ledger: Ledger) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(ledger)
    return body
