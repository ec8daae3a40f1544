"""Settings of who may ask how much: tenants, their limits and what they may spend."""

from typing import Annotated, Final

from pydantic import Field

from watchkeeper.settings.values import Section

TENANT_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
PRIORITIES: Final = 10
"""Priorities go from 0 to one less; whoever has the higher one waits less."""
DEFAULT_PRIORITY: Final = 5

Priority = Annotated[int, Field(ge=0, lt=PRIORITIES)]
Usd = Annotated[float, Field(gt=0)]


class Tenant(Section):
    """What one tenant may; None: as much as there is. `tokens_per_minute` counts prompts and answers. `max_in_flight`:
    requests at the same time, waiting or served. `usd_per_day`, `usd_per_month`: what its requests may cost by the prices
    of the upstreams, in UTC days and months; from `alert_at` of that on there is an alert. `models`, `routes`:
    all that it may name. `priority`: of its requests; one may ask for another, up to `max_priority`."""

    name: Annotated[str, Field(pattern=TENANT_NAME)]
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    max_in_flight: Annotated[int, Field(ge=1)] | None = None
    usd_per_day: Usd | None = None
    usd_per_month: Usd | None = None
    alert_at: Annotated[float, Field(gt=0, le=1)] = 0.8
    models: tuple[str, ...] | None = None
    routes: tuple[str, ...] | None = None
    priority: Priority = DEFAULT_PRIORITY
    max_priority: Priority = DEFAULT_PRIORITY

    @property
    def metered(self) -> bool:
        """Whether anything is to be counted for it."""
        limits = (
            self.requests_per_minute,
            self.tokens_per_minute,
            self.max_in_flight,
            self.usd_per_day,
            self.usd_per_month,
        )
        return any(limit is not None for limit in limits)


def told_apart(tenants: tuple[Tenant, ...]) -> tuple[Tenant, ...]:
    names = [tenant.name for tenant in tenants]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"the tenant {twice[0]} is there twice")
    return tenants
