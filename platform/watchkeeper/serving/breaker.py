"""The breaker of one upstream: after failures in a row nothing is sent there for a while; then one request tries it.

    closed ── failures in a row, or told when to come back ──▶ open ── the pause is over ──▶ half open
      ▲                                                         ▲                              │ one probe at a time
      └──────────────────────── it answers ─────────────────────┴──────── it fails ────────────┘

What is slow is no failure: it shows in the latency. Knows nothing of other upstreams, nor who may be asked all the same.
"""

import random
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

State = Literal["closed", "half_open", "open"]

LONGEST_PAUSE_S: Final = 60.0
"""Pauses double up to here; and who tells a later time to come back is tried then all the same."""
JITTER: Final = 0.2
"""Workers and upstreams do not come back at the same instant."""


class Ticket(NamedTuple):
    """What a call remembers of how things stood when it began. `probe`: it is the one that tries."""

    era: int
    probe: bool


class Breaker:
    """`failures` in a row open it for `pause_s`, and twice as long each time that the probe fails. `clock`: seconds."""

    def __init__(self, failures: int, pause_s: float, *, clock: Callable[[], float], rng: random.Random) -> None:
        self._most = failures
        self._first_pause_s = pause_s
        self._clock = clock
        self._rng = rng
        self._in_a_row = 0
        self._pause_s = pause_s
        self._until: float | None = None
        self._probing = False
        self._era = 0
        """Counts openings and closings: how a call ends says nothing of a time after it began."""

    @property
    def state(self) -> State:
        if self._until is None:
            return "closed"
        return "open" if self._clock() < self._until else "half_open"

    @property
    def until(self) -> float:
        """When it may be tried again; long ago where it may be now."""
        return self._until or 0.0

    @property
    def ready(self) -> bool:
        """Whether a request may be sent: it is closed, or nobody is trying it yet."""
        return self._until is None or (not self._probing and self._clock() >= self._until)

    def begin(self) -> Ticket:
        """Notes that a call begins; gives what its end is told with. One may begin while it is not `ready`, where there is
        no other to ask: that it fails then tells nothing new, that it answers does."""
        probe = self._until is not None and self.ready
        self._probing = self._probing or probe
        return Ticket(self._era, probe)

    def succeeded(self, ticket: Ticket) -> None:
        if ticket.era != self._era:
            return
        self._in_a_row = 0
        if self._until is not None:
            self._until, self._probing, self._pause_s = None, False, self._first_pause_s
            self._era += 1

    def failed(self, ticket: Ticket, retry_after_s: float | None = None) -> None:
        """`retry_after_s`: what the upstream itself said."""
        if ticket.era != self._era or (self._until is not None and not ticket.probe):
            return
        self._in_a_row += 1
        if ticket.probe or retry_after_s is not None or self._in_a_row >= self._most:
            self._open(ticket.probe, retry_after_s)

    def abandoned(self, ticket: Ticket) -> None:
        """The call was given up before it told anything."""
        if ticket.era == self._era and ticket.probe:
            self._probing = False

    def _open(self, again: bool, retry_after_s: float | None) -> None:
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S) if again else self._first_pause_s
        pause_s = self._pause_s if retry_after_s is None else min(retry_after_s, LONGEST_PAUSE_S)
        self._until = self._clock() + pause_s * (1 + JITTER * self._rng.random())
        self._in_a_row, self._probing = 0, False
        self._era += 1
