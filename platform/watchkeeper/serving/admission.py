"""Who is let in: what a tenant may at all, then its limits, then the line. For the stage admit, and once more when a
request has ended.

Limits come first: whoever has used up his own learns that at once and takes nobody's place in the line. What a request may
come to is an upper bound made of lengths, since tokens are counted later; the settlement puts it right.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Final

from watchkeeper.record import Record, Scalar
from watchkeeper.serving.allowance import Allowance, Reservation
from watchkeeper.serving.budgets import BEAT_S, FILE_NAME, Budgets, Exhausted
from watchkeeper.serving.failure import log_defect
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.queueing import Overloaded, Queue
from watchkeeper.serving.request import Refused
from watchkeeper.settings import Price, Settings, Tenant

BYTES_OF_A_TOKEN: Final = 4
MESSAGE_TOKENS: Final = 4
SMOOTHING: Final = 0.05

_CODES: Final = {"usd_per_day": "insufficient_quota", "usd_per_month": "insufficient_quota"}
"""As OpenAI has it; all other limits are a `rate_limit_exceeded`."""


class Admission:
    """For one worker. `clock`: monotonic seconds."""

    def __init__(self, settings: Settings, budgets: Budgets, clock: Callable[[], float]) -> None:
        gateway = settings.gateway
        self.queue = Queue(
            gateway.max_in_flight,
            gateway.max_queue,
            limit_s=gateway.queue_limit_ms / 1000,
            target_s=gateway.queue_target_ms / 1000,
            clock=clock,
        )
        self._budgets = budgets
        self._tenants = {tenant.name: tenant for tenant in settings.tenants}
        self._unlimited: dict[str, Tenant] = {}
        self._prices = {upstream.name: upstream.price for upstream in settings.all_upstreams}
        prices = self._prices.values()
        self._dearest = Price(input=max(price.input for price in prices), output=max(price.output for price in prices))
        self._passages = settings.stages.ground and bool(settings.knowledge.folders)
        self._stay_s = 1.0

    @classmethod
    def open(cls, settings: Settings, worker: str, clock: Callable[[], float]) -> "Admission":
        """Of a worker by its name, which ends in its number. Raises `BudgetsBroken`."""
        number = int(worker.rpartition("-")[2])
        return cls(settings, Budgets(settings.data / FILE_NAME, settings.tenants, number), clock)

    def of(self, tenant: str) -> Tenant:
        """What a tenant may: everything, where the settings do not know it."""
        known = self._tenants.get(tenant) or self._unlimited.get(tenant)
        if known is None:
            known = self._unlimited[tenant] = Tenant(name=tenant)  # as many as keys name
        return known

    def allowances(self) -> Iterator[tuple[Tenant, Allowance]]:
        """What every tenant with limits has left."""
        return self._budgets.allowances()

    async def enter(self, journey: Journey, span: Span) -> None:
        """Lets a request in; it may have to wait. Raises `Refused`. What it holds is given back by `leave`, always."""
        tenant = self.of(journey.tenant)
        if journey.key:
            span.attributes["key"] = journey.key
        self._may(tenant, journey, span)
        if tenant.metered:
            self._reserve(tenant, journey, span)
        asked = journey.request.extension.priority
        priority = tenant.priority if asked is None else min(asked, max(tenant.priority, tenant.max_priority))
        if self.queue.waiting:
            span.attributes["waiting"] = self.queue.waiting
        try:
            waited_s = await self.queue.enter(tenant.name, priority)
        except Overloaded as full:
            span.attributes["refused"] = full.reason
            message = "too many requests wait already" if full.reason == "queue_full" else "nobody was free in time"
            raise Refused(503, "overloaded", f"{message}; try again", retry_after=full.retry_after) from None
        journey.seated = True
        span.attributes |= {"priority": priority, "queue_ms": waited_s * 1000}

    def leave(self, journey: Journey, record: Record | None) -> None:
        """Settles what a request took, by its record. Once, whatever became of it; a second time does nothing."""
        asked = journey.seated
        if journey.seated:
            journey.seated = False
            self._stay_s += SMOOTHING * (journey.elapsed_ms / 1000 - self._stay_s)
            self.queue.leave()
        held, journey.reservation = journey.reservation, None
        if held is not None:
            try:
                self._budgets.settle(held, *_used(journey, record), asked=asked)
            except OSError as error:  # the answer is there; what it took is counted in full
                log_defect(f"request {journey.request_id}", error)

    @contextlib.contextmanager
    def counted(self, tenant: str, tokens: int) -> Iterator[None]:
        """Counts what is no journey: one request, and its tokens if it goes well. Raises `Refused`."""
        try:
            held = self._budgets.reserve(tenant, tokens, 0.0, self._stay_s)
        except Exhausted as exhausted:
            raise _denied(exhausted) from None
        taken = 0
        try:
            yield
            taken = tokens
        finally:
            if held is not None:
                self._budgets.settle(held, taken, 0.0)

    async def run(self) -> None:
        """Keeps the shared file alive and on the disk, until it is cancelled."""
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                self._budgets.beat()
                await asyncio.to_thread(self._budgets.sync)
            except OSError as error:
                log_defect("budgets", error)

    def close(self) -> None:
        self._budgets.close()

    def _may(self, tenant: Tenant, journey: Journey, span: Span) -> None:
        for what, asked, allowed in (
            ("model", journey.request.model, tenant.models),
            ("route", journey.request.extension.route, tenant.routes),
        ):
            if allowed is not None and asked not in allowed:
                span.attributes["refused"] = what
                message = f"{what}: {tenant.name} may not use {asked[:100]!r}, but {', '.join(allowed) or 'none'}"
                raise Refused(403, f"{what}_not_allowed", message, param=what)

    def _reserve(self, tenant: Tenant, journey: Journey, span: Span) -> None:
        inputs, outputs = self._most(journey)
        # Which upstream will answer is not known yet, unless one was named.
        price = self._prices.get(journey.upstream_name or "", self._dearest)
        usd = (inputs * price.input + outputs * price.output) / 1e6
        try:
            held = self._budgets.reserve(tenant.name, inputs + outputs, usd, self._stay_s)
        except Exhausted as exhausted:
            span.attributes |= {"refused": exhausted.denied.reason, **_told(exhausted.standing)}
            journey.limits = rate_limits(tenant, exhausted.standing)
            raise _denied(exhausted) from None
        assert held is not None
        journey.reservation = held
        journey.limits = rate_limits(tenant, held)
        span.attributes |= {"reserved_tokens": held.tokens, "reserved_usd": held.usd, **_told(held)}

    def _most(self, journey: Journey) -> tuple[float, float]:
        """Tokens that the prompt and the answer may come to."""
        release = journey.release
        length = sum(map(_bytes, [release.template, *(turn.text for turn in journey.turns)]))
        if self._passages:
            length += release.grounding.max_characters
        inputs = length / BYTES_OF_A_TOKEN + MESSAGE_TOKENS * (len(journey.turns) + 1)
        most = release.parameters.max_tokens
        return math.ceil(inputs), journey.request.n * min(journey.request.max_tokens or most, most)


def _used(journey: Journey, record: Record | None) -> tuple[float, float]:
    """Tokens and USD. Nothing where no model answered; where one was cut off, what had come of its answer."""
    said = sum(_bytes(choice.said) for choice in journey.choices) if journey.usage is None else 0
    if record is None or not journey.attempts or not (journey.usage or said or any(journey.spent)):
        return 0.0, 0.0
    return record.input_tokens + record.output_tokens + math.ceil(said / BYTES_OF_A_TOKEN), record.cost_usd


def _bytes(text: str) -> int:
    """As UTF-8: a token is four of them, also where a character is three."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _told(standing: Reservation) -> dict[str, Scalar]:
    """How a tenant's limits stand, for the record."""
    said = {
        "requests_left": standing.requests_left,
        "tokens_left": standing.tokens_left,
        "day_share": standing.day_share,
        "month_share": standing.month_share,
    }
    return {name: value for name, value in said.items() if value is not None}


def _denied(exhausted: Exhausted) -> Refused:
    denied = exhausted.denied
    if denied.wait_s is None:  # it never fits: whoever sends it again must change it
        return Refused(400, "limit_too_small", denied.message)
    code = _CODES.get(denied.reason, "rate_limit_exceeded")
    return Refused(429, code, denied.message, retry_after=max(1, math.ceil(denied.wait_s)))


def rate_limits(tenant: Tenant, standing: Reservation) -> dict[str, str]:
    """OpenAI's headers of how the limits stand."""
    headers: dict[str, str] = {}
    for kind, limit, left, full_s in (
        ("requests", tenant.requests_per_minute, standing.requests_left, standing.requests_full_s),
        ("tokens", tenant.tokens_per_minute, standing.tokens_left, standing.tokens_full_s),
    ):
        if limit is not None:
            headers[f"x-ratelimit-limit-{kind}"] = str(limit)
            headers[f"x-ratelimit-remaining-{kind}"] = str(left)
            headers[f"x-ratelimit-reset-{kind}"] = _span(full_s)
    return headers


def _span(seconds: float) -> str:
    """As OpenAI writes a time: 350ms, 7.66s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:.0f}s" if minutes else f"{rest:.2f}s"
