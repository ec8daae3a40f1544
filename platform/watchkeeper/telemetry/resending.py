"""Dead letters sent again, once somebody has seen to the cause: each sink gets those that it refused, beside a shipper
that may be at work.

A letter goes when its sink has it, and not before; what is refused again stays, behind all others, with the new reason. As
from the spool it arrives once: sent twice, MLflow's trace overwrites itself, and the lake knows the letter's number.
"""

import os
from typing import Final

import msgspec

from watchkeeper.carrying import carrying
from watchkeeper.settings import Settings
from watchkeeper.telemetry.collector_sink import CollectorSink
from watchkeeper.telemetry.dead_letters import DeadLetters, Letterbox
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.locks import lock
from watchkeeper.telemetry.shipper import lake_of, mlflow_of
from watchkeeper.telemetry.sinks import LAKE, MLFLOW, LakeSink, RefusedAgain, Sink

LOCK: Final = "dead_letters.lock"


class ResendingBusy(Exception):
    """Another process sends the dead letters of this data folder; the message is one line."""


class Refusal(msgspec.Struct, frozen=True):
    """A letter that stays. `reason`: the sink's, one line."""

    sink: str
    kind: str
    request_id: str
    reason: str


class Resent(msgspec.Struct, frozen=True):
    """`taken`: letters of each sink that it has now. `refused`: again. `errors`: of a sink that could not be asked. `left`:
    letters that are there still, those included that came meanwhile."""

    taken: dict[str, int]
    refused: list[Refusal]
    errors: dict[str, str]
    left: int

    @property
    def ok(self) -> bool:
        """Every letter was taken."""
        return not self.refused and not self.errors and not self.left


def resend(settings: Settings) -> Resent:
    """Sends every dead letter once more. Raises `ResendingBusy`."""
    settings.data.mkdir(parents=True, exist_ok=True)
    held = lock(settings.data / LOCK)
    if held is None:
        raise ResendingBusy(f"the dead letters of {settings.data} are being sent already; wait for that to end")
    deliveries, dead = Deliveries(settings.data), DeadLetters(settings.data)
    try:
        taken: dict[str, int] = {}
        refused: list[Refusal] = []
        errors: dict[str, str] = {}
        drops = {name: RefusedAgain(dead, name) for name in (MLFLOW, LAKE, *(one.name for one in settings.collectors))}
        sinks: list[Sink] = [
            mlflow_of(settings, deliveries, drops[MLFLOW]),
            LakeSink(lake_of(settings), drops[LAKE]),
            *(CollectorSink(one, deliveries, drops[one.name]) for one in settings.collectors),
        ]
        for sink in sinks:
            name = sink.name
            try:
                with carrying(settings.data, "shipping"):
                    taken[name] = _empty(sink, dead)
            except Exception as error:  # the sink is away: its letters stay, and the other's are not held up
                taken[name] = 0
                errors[name] = f"{type(error).__name__}: {error}"
            refused += [Refusal(name, row.kind, row.request_id, reason) for row, reason in drops[name].letters]
        return Resent(taken, refused, errors, dead.count())
    finally:
        deliveries.close()
        dead.close()
        os.close(held)


def _empty(sink: Sink, dead: DeadLetters) -> int:
    """Sends a sink's letters batch by batch, and removes those that it has. Returns how many those are."""
    box = Letterbox(dead, sink.name)
    # What it had before, and was cut off before it was removed.
    taken = dead.remove_upto(sink.name, sink.position(box))
    while sink.step(box):
        taken += dead.remove_upto(sink.name, sink.position(box))
    return taken
