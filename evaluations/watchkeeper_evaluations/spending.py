"""What tenants spend, held against their budgets: an alert from a budget's share `alert_at` on, resolved when its day or
month is over. The same alerts as the jobs', in the lake and at the webhook.

A gateway refuses by itself, and at once; this only tells people, at the schedule's ticks. Knows nothing of how it
is counted.
"""

import contextlib
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from watchkeeper.lake.lake import Lake
from watchkeeper.serving.budgets import FILE_NAME, Budgets, BudgetsBroken
from watchkeeper.settings import Settings, Tenant
from watchkeeper_evaluations import alerts
from watchkeeper_evaluations.alerts import Judged
from watchkeeper_evaluations.window import Window

Period = Literal["day", "month"]
NAME: Final = "budget"

_log = logging.getLogger(__name__)


def look(settings: Settings, lake: Lake, now: datetime) -> int:
    """Writes what has turned, and says how many alerts that were. Raises `LakeUnavailable`; a file of budgets that cannot
    be read is logged."""
    file = settings.data / FILE_NAME
    if not file.exists():
        return 0
    try:
        with contextlib.closing(Budgets(file, settings.tenants, None, now.timestamp)) as budgets:
            spent = [
                judged(tenant, period, budget, usd, now)
                for tenant, allowance in budgets.allowances()
                for period, budget, usd in _periods(tenant, allowance.day.usd, allowance.month.usd)
            ]
    except (BudgetsBroken, OSError) as error:
        _log.warning("budgets: %s", error)
        return 0
    return sum(alerts.look(lake, one, now) for one in spent)


def judged(tenant: Tenant, period: Period, budget: float, usd: float, now: datetime) -> Judged:
    """A budget as a job's window: `fail` from its share `alert_at` on."""
    window = _window(period, now)
    job = f"{NAME} {tenant.name} {period}"
    return Judged(
        job=job,
        evaluation_id="",
        window=window,
        verdict="fail" if usd >= tenant.alert_at * budget else "pass",
        reason=f"{tenant.name} has spent {usd:.2f} of {budget:g} USD of this {period} (UTC)",
        metrics={"spent_usd": usd, "budget_usd": budget, "share": usd / budget},
        mlflow_run_id="",
        run_url="",
    )


def _periods(tenant: Tenant, day: float, month: float) -> Iterator[tuple[Period, float, float]]:
    if tenant.usd_per_day is not None:
        yield "day", tenant.usd_per_day, day
    if tenant.usd_per_month is not None:
        yield "month", tenant.usd_per_month, month


def _window(period: Period, now: datetime) -> Window:
    start = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return Window(start, start + timedelta(days=1))
    start = start.replace(day=1)
    return Window(start, (start + timedelta(days=32)).replace(day=1))
