"""`watchkeeper ship --dead-letters`: what became of the letters, as a table or one JSON document."""

import msgspec

from watchkeeper.cli import output
from watchkeeper.settings import Settings
from watchkeeper.telemetry.resending import resend


def run(settings: Settings, *, as_json: bool) -> int:
    """0 when every letter was taken, or there was none; 1 when any is left."""
    resent = resend(settings)
    if as_json:
        output.document(msgspec.to_builtins(resent) | {"ok": resent.ok})
        return 0 if resent.ok else 1
    output.table(
        ("sink", "taken", "refused again", "error"),
        _rows(resent.taken, resent.errors, [one.sink for one in resent.refused]),
    )
    for one in resent.refused:
        output.note(f"{one.sink} refuses {one.kind} of {one.request_id}: {one.reason}")
    output.note("no letter is left" if resent.ok else f"{resent.left} letters are left")
    return 0 if resent.ok else 1


def _rows(taken: dict[str, int], errors: dict[str, str], refused: list[str]) -> list[tuple[object, ...]]:
    return [(sink, count, refused.count(sink), errors.get(sink, "")) for sink, count in taken.items()]
