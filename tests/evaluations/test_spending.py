"""A budget that nears its end is an alert, once, and is over with its day."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from watchkeeper.lake.alerts import open_alerts, untold
from watchkeeper.lake.lake import Lake
from watchkeeper.serving.budgets import FILE_NAME, Budgets
from watchkeeper.settings import Settings, Tenant
from watchkeeper_evaluations.alerts import body
from watchkeeper_evaluations.spending import look

EVENING = datetime(2026, 11, 30, 22, tzinfo=UTC)
ACME = Tenant(name="acme", usd_per_day=10.0, usd_per_month=100.0, alert_at=0.8)


def test_a_budget_fires_once_at_its_share_and_is_resolved_with_its_day(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, tenants=(ACME, Tenant(name="free")))
    lake = Lake(str(tmp_path / "lake"))
    assert look(settings, lake, EVENING) == 0
    budgets = Budgets(tmp_path / FILE_NAME, settings.tenants, 0, EVENING.timestamp)
    for usd, turned in ((7.9, 0), (0.2, 1), (1.0, 0)):
        budgets.reserve("acme", 0, usd)
        assert look(settings, lake, EVENING) == turned
    (alert,) = open_alerts(lake).to_pylist()
    assert (alert["job"], alert["verdict"]) == ("budget acme day", "fail")
    assert alert["reason"] == "acme has spent 8.10 of 10 USD of this day (UTC)"
    (event,) = untold(lake, EVENING - timedelta(days=1))
    assert body(event)["window"] == {"start": "2026-11-30T00:00:00Z", "end": "2026-12-01T00:00:00Z"}
    assert look(settings, lake, EVENING + timedelta(hours=2)) == 1
    assert open_alerts(lake).num_rows == 0


def test_a_month_is_a_budget_of_its_own(tmp_path: Path) -> None:
    tenant = Tenant(name="acme", usd_per_month=1.0)
    settings = Settings(data=tmp_path, tenants=(tenant,))
    lake = Lake(str(tmp_path / "lake"))
    Budgets(tmp_path / FILE_NAME, settings.tenants, 0, EVENING.timestamp).reserve("acme", 0, 0.9)
    assert look(settings, lake, EVENING) == 1
    assert [row["job"] for row in open_alerts(lake).to_pylist()] == ["budget acme month"]
    assert look(settings, lake, EVENING + timedelta(days=1)) == 1


def test_a_file_that_is_none_of_ours_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"x" * 3_000)
    assert look(Settings(data=tmp_path, tenants=(ACME,)), Lake(str(tmp_path / "lake")), EVENING) == 0
