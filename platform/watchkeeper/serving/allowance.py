"""One tenant's allowance: what it may have now of its limits, and what it holds. Arithmetic only: no clock, no file.

A reservation is all or nothing. It takes what a request may come to (prompt and longest answer); what was too much comes
back when it is settled, what was too little is owed, and paid by what flows in before anything can be reserved again. So a
bucket is never below zero nor above its capacity, and over long times nobody gets more than the limits say.

A bucket holds a minute's worth: within 60 s a tenant can have twice its limit at most, of which one is what it had saved.
"""

import math
from array import array
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from watchkeeper.settings import Tenant

MINUTE_S: Final = 60.0
DAY_S: Final = 86_400
ROUNDING: Final = 1e-6
WORKERS: Final = 64
"""Workers of a gateway that share an allowance, at most."""


@dataclass(slots=True)
class Bucket:
    """`level`: what may be taken; `owed`: what was taken beyond; `at`: when that was so, seconds since the epoch."""

    level: float
    owed: float = 0.0
    at: float = 0.0

    def flow(self, capacity: float, now: float) -> None:
        """What has come in since. A clock that went back brings nothing."""
        if now > self.at:
            self.give(capacity * (now - self.at) / MINUTE_S, capacity)
        self.at = now

    def give(self, amount: float, capacity: float) -> None:
        if self.owed:
            paid = min(self.owed, amount)
            self.owed -= paid
            amount -= paid
        self.level = min(capacity, self.level + amount)

    def charge(self, amount: float) -> None:
        """Takes what is there, and owes the rest."""
        taken = min(self.level, amount)
        self.level -= taken
        self.owed += amount - taken

    def holds(self, amount: float) -> bool:
        """Whether `amount` is there, but for what floats lose on the way: who comes when told must not be too early."""
        return self.level >= amount - ROUNDING

    def wait_s(self, amount: float, capacity: float) -> float:
        """How long until `amount` is there, if nobody takes anything meanwhile."""
        return max(0.0, amount - self.level + self.owed) * MINUTE_S / capacity


@dataclass(slots=True)
class Spend:
    """`usd` in a `period`: a day or a month, numbered. Another period begins at nothing."""

    period: int = 0
    usd: float = 0.0

    def turn(self, period: int) -> None:
        if period != self.period:
            self.period, self.usd = period, 0.0

    def add(self, period: int, usd: float) -> None:
        """What belongs to a period that is over changes nothing any more."""
        if period == self.period:
            self.usd = max(0.0, self.usd + usd)


@dataclass(slots=True)
class Allowance:
    """`running`: requests under way, by worker."""

    requests: Bucket
    tokens: Bucket
    day: Spend = field(default_factory=Spend)
    month: Spend = field(default_factory=Spend)
    running: "array[int]" = field(default_factory=lambda: array("H", bytes(2 * WORKERS)))


class Reservation(NamedTuple):
    """What a request holds of its tenant's allowance, and how that stands now: what is left of each bucket, and seconds
    until it is full again; the shares of the budgets that are spent. None where there is no such limit."""

    tenant: str
    tokens: float
    usd: float
    day: int
    month: int
    requests_left: int | None
    requests_full_s: float
    tokens_left: int | None
    tokens_full_s: float
    day_share: float | None
    month_share: float | None


class Denied(NamedTuple):
    """`reason`: requests, tokens, in_flight, usd_per_day or usd_per_month. `wait_s`: after so long it is worth another try;
    None: never as it stands."""

    reason: str
    wait_s: float | None
    message: str


def opened(limits: Tenant, now: float) -> Allowance:
    """An allowance of which nothing was ever taken."""
    return Allowance(Bucket(limits.requests_per_minute or 0, at=now), Bucket(limits.tokens_per_minute or 0, at=now))


def bring_up(allowance: Allowance, limits: Tenant, now: float) -> None:
    """The allowance as it is at `now`. A bucket without a limit stands still, and so is full when it gets one."""
    if limits.requests_per_minute is not None:
        allowance.requests.flow(limits.requests_per_minute, now)
    if limits.tokens_per_minute is not None:
        allowance.tokens.flow(limits.tokens_per_minute, now)
    day, month = _periods(int(now // DAY_S))
    allowance.day.turn(day)
    allowance.month.turn(month)


def reserve(
    allowance: Allowance, limits: Tenant, now: float, tokens: float, usd: float, worker: int, stay_s: float = 1.0
) -> Reservation | Denied:
    """Takes one request, these tokens and this money, or nothing. `stay_s`: how long a request takes, as far as is
    known."""
    bring_up(allowance, limits, now)
    denied = _denied(allowance, limits, now, tokens, usd, stay_s)
    if denied:
        # None is the longest of waits; of the others the one is told after which all are over.
        return max(denied, key=lambda one: math.inf if one.wait_s is None else one.wait_s)
    if limits.requests_per_minute is not None:
        allowance.requests.charge(1)
    if limits.tokens_per_minute is not None:
        allowance.tokens.charge(tokens)
    allowance.day.add(allowance.day.period, usd)
    allowance.month.add(allowance.month.period, usd)
    allowance.running[worker] += 1
    return standing(allowance, limits, tokens, usd)


def settle(
    allowance: Allowance,
    limits: Tenant,
    now: float,
    held: Reservation,
    tokens: float,
    usd: float,
    worker: int,
    *,
    asked: bool,
) -> None:
    """Ends a reservation: the request took these tokens and this money. `asked`: whether it counts as a request; one that
    we sent away ourselves does not."""
    bring_up(allowance, limits, now)
    if limits.requests_per_minute is not None and not asked:
        allowance.requests.give(1, limits.requests_per_minute)
    if limits.tokens_per_minute is not None:
        if tokens > held.tokens:
            allowance.tokens.charge(tokens - held.tokens)
        else:
            allowance.tokens.give(held.tokens - tokens, limits.tokens_per_minute)
    allowance.day.add(held.day, usd - held.usd)
    allowance.month.add(held.month, usd - held.usd)
    allowance.running[worker] = max(0, allowance.running[worker] - 1)


def standing(allowance: Allowance, limits: Tenant, tokens: float = 0.0, usd: float = 0.0) -> Reservation:
    """How an allowance that was brought up stands."""
    per_minute, most = limits.requests_per_minute, limits.tokens_per_minute
    return Reservation(
        limits.name,
        tokens,
        usd,
        allowance.day.period,
        allowance.month.period,
        None if per_minute is None else int(allowance.requests.level),
        0.0 if per_minute is None else allowance.requests.wait_s(per_minute, per_minute),
        None if most is None else int(allowance.tokens.level),
        0.0 if most is None else allowance.tokens.wait_s(most, most),
        None if limits.usd_per_day is None else allowance.day.usd / limits.usd_per_day,
        None if limits.usd_per_month is None else allowance.month.usd / limits.usd_per_month,
    )


def _denied(allowance: Allowance, limits: Tenant, now: float, tokens: float, usd: float, stay_s: float) -> list[Denied]:
    found: list[Denied] = []
    most = limits.requests_per_minute
    if most is not None and not allowance.requests.holds(1):
        message = f"more than {most} requests a minute; try again later"
        found.append(Denied("requests", allowance.requests.wait_s(1, most), message))
    most = limits.tokens_per_minute
    if most is not None and not allowance.tokens.holds(tokens):
        wait = allowance.tokens.wait_s(tokens, most) if tokens <= most else None
        message = f"this request may come to {tokens:.0f} tokens, prompt and answer, and {most} a minute are allowed"
        found.append(
            Denied("tokens", wait, f"{message}; {'try again later' if wait else 'shorten it, or lower max_tokens'}")
        )
    most = limits.max_in_flight
    if most is not None and sum(allowance.running) >= most:
        found.append(Denied("in_flight", stay_s / most, f"more than {most} requests at a time; try again"))
    budgets = (
        ("usd_per_day", limits.usd_per_day, allowance.day, _to_next_day),
        ("usd_per_month", limits.usd_per_month, allowance.month, _to_next_month),
    )
    for reason, budget, spent, rest in budgets:
        if budget is None or spent.usd + usd <= budget:
            continue
        period = reason.removeprefix("usd_per_")
        if usd > budget:
            message = f"this request may cost {usd:.4g} USD, and {budget:g} a {period} are allowed; lower max_tokens"
            found.append(Denied(reason, None, message))
        else:
            message = f"the budget of {budget:g} USD a {period} is used up; the next {period} (UTC) has another"
            found.append(Denied(reason, rest(now), message))
    return found


@lru_cache(maxsize=4)
def _periods(days: int) -> tuple[int, int]:
    """Day and month, as 20261129 and 202611, so many days after the epoch."""
    at = datetime.fromtimestamp(days * DAY_S, UTC)
    month = at.year * 100 + at.month
    return month * 100 + at.day, month


def _to_next_day(now: float) -> float:
    at = datetime.fromtimestamp(now, UTC)
    return ((at + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0) - at).total_seconds()


def _to_next_month(now: float) -> float:
    at = datetime.fromtimestamp(now, UTC)
    first = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return ((first + timedelta(days=32)).replace(day=1) - at).total_seconds()
