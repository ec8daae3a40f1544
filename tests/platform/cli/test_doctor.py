"""The doctor on the schedule (running, behind, failing, or never seen), on spool, shipper and lake."""

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from watchkeeper.cli.doctor import LOOKS, Finding
from watchkeeper.lake.interactions import to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record
from watchkeeper.serving import keys
from watchkeeper.serving.budgets import Budgets
from watchkeeper.serving.calibration import FILE_NAME, Calibration
from watchkeeper.settings import Cascade, Gateway, Route, Settings, Tenant, Upstream
from watchkeeper.telemetry.dead_letters import DeadLetter, DeadLetters
from watchkeeper.telemetry.shipper import ShipperStatus, SinkStatus
from watchkeeper.telemetry.spool import Spool
from watchkeeper_evaluations.erasure.selection import Selection, begin
from watchkeeper_evaluations.schedule_status import JobStatus, ScheduleStatus, write
from watchkeeper_evaluations.window import Window

NOW = datetime.now(UTC)
WINDOW = Window(datetime(2026, 4, 1, 12, tzinfo=UTC), datetime(2026, 4, 1, 13, tzinfo=UTC))


def looked(data: Path, at: str = "_schedule") -> list[Finding]:
    (look,) = (look for look in LOOKS if look.__name__ == at)
    return list(look(Settings(data=data, gateway=Gateway(max_spool_bytes=16_000_000))))


def test_a_schedule_that_never_ran_is_off(tmp_path: Path) -> None:
    (finding,) = looked(tmp_path)
    assert (finding.part, finding.state) == ("schedule", "off")


@pytest.mark.parametrize(
    ("status", "state", "says"),
    [
        (JobStatus(NOW + timedelta(minutes=5), WINDOW, "pass"), "good", "judged until 2026-04-01 13:00Z; looks again at"),
        (JobStatus(NOW + timedelta(minutes=5)), "good", "no window judged yet"),
        (JobStatus(NOW - timedelta(hours=2), WINDOW, "pass"), "off", "it is not running"),
        (JobStatus(NOW + timedelta(minutes=5), WINDOW, "pass", "ScorerBroken: no"), "bad", "ScorerBroken: no"),
    ],
)
def test_each_job_says_how_it_is(tmp_path: Path, status: JobStatus, state: str, says: str) -> None:
    write(tmp_path, ScheduleStatus(NOW, {"drift": status}))
    (finding,) = looked(tmp_path)
    assert (finding.part, finding.state) == ("schedule drift", state)
    assert says in finding.detail


def test_an_erasure_that_has_not_ended_is_bad(tmp_path: Path) -> None:
    assert looked(tmp_path, "_erasure") == []
    begin(tmp_path, Selection(requests={"a": 0}))
    (finding,) = looked(tmp_path, "_erasure")
    assert (finding.state, finding.advice) == ("bad", "run watchkeeper erase again")


def test_a_webhook_that_takes_nothing_is_bad(tmp_path: Path) -> None:
    write(tmp_path, ScheduleStatus(NOW, {}, "the webhook was not told: HTTP 500"))
    (finding,) = looked(tmp_path)
    assert (finding.part, finding.state) == ("alerts.webhook", "bad")


def spooled(data: Path, count: int, size: int = 10) -> None:
    async def append() -> None:
        spool = Spool.open(data / "spool", "w0", segment_bytes=1_000_000)
        for number in range(count):
            await spool.append(
                Record(request_id=f"{number:032x}", received_at=int((time.time() - 300) * 1e6), output_text="x" * size)
            )
        await spool.close()

    asyncio.run(append())


def test_a_spool_with_room_says_how_deep_it_is(tmp_path: Path) -> None:
    spooled(tmp_path, 3)
    (finding,) = looked(tmp_path, "_spool")
    assert finding.state == "good"
    assert finding.detail.startswith("3 rows, 0.")
    assert "of 16.0 MB; the oldest is 0:05:00 old" in finding.detail


def test_a_full_spool_says_what_to_do(tmp_path: Path) -> None:
    spooled(tmp_path, 160, 100_000)
    (finding,) = looked(tmp_path, "_spool")
    assert finding.state == "bad"
    assert "full: it holds 1" in finding.detail
    assert "503" in finding.advice
    assert "raise gateway.max_spool_bytes" in finding.advice


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    spooled(tmp_path, 3)
    (torn,) = (tmp_path / "spool" / "w0").glob("*.log")
    os.truncate(torn, torn.stat().st_size - 10)
    _, finding = looked(tmp_path, "_spool")
    assert finding.state == "bad"
    assert str(torn) in finding.detail


def report(data: Path, ago_s: float, error: str | None = None) -> None:
    sinks = {"mlflow": SinkStatus(5, 7, 250.0, error, 2.0, None if error else 150.0), "lake": SinkStatus(12, 0, None, None)}
    status = ShipperStatus(at=int((time.time() - ago_s) * 1e6), started_at=0, sinks=sinks, dead_lettered=0, unreadable={})
    (data / "shipper.json").write_bytes(msgspec.json.encode(status))


def test_the_shipper_is_off_until_it_ran_and_when_it_went_silent(tmp_path: Path) -> None:
    spooled(tmp_path, 3)
    (never,) = looked(tmp_path, "_shipper")
    assert (never.state, never.detail) == ("off", "it never ran on this data folder; 3 wait for mlflow, 3 wait for lake")
    report(tmp_path, 600)
    (silent,) = looked(tmp_path, "_shipper")
    assert (silent.state, silent.detail.split(";")[0]) == ("off", "its last report is 0:10:00 old")
    report(tmp_path, 1)
    (fine,) = looked(tmp_path, "_shipper")
    assert fine.state == "good"
    assert fine.detail.endswith("; mlflow will be done in 0:02:30")


def test_dead_letters_are_told_with_what_to_do(tmp_path: Path) -> None:
    report(tmp_path, 1)
    store = DeadLetters(tmp_path)
    store.bury([DeadLetter(1, "mlflow", "refused", "u1", 1, "0a" * 16, "record", b"")])
    store.close()
    _, finding = looked(tmp_path, "_shipper")
    assert (finding.part, finding.state) == ("dead letters", "bad")
    assert "1 rows" in finding.detail
    assert "--dead-letters" in finding.advice


def test_a_sink_that_takes_nothing_is_named_with_what_to_do(tmp_path: Path) -> None:
    report(tmp_path, 1, "http://127.0.0.1:5000/v1/traces: cannot be reached")
    _, finding = looked(tmp_path, "_shipper")
    assert (finding.part, finding.state) == ("shipper mlflow", "bad")
    assert "cannot be reached; the oldest waits for 0:04:10" in finding.detail
    assert "mlflow.uri" in finding.advice


def test_a_lake_of_a_later_version_is_told(tmp_path: Path) -> None:
    (look,) = (look for look in LOOKS if look.__name__ == "_lake")
    settings = Settings(data=tmp_path)
    assert list(look(settings)) == []
    rows = to_arrow([Record(request_id="0" * 32, received_at=1)])
    Lake(settings.lake_uri).append("interactions", rows)
    assert list(look(settings)) == []
    later = rows.append_column("mood", pa.array(["good"]))
    write_deltalake(f"{settings.lake_uri}/interactions", later, mode="append", schema_mode="merge")
    (finding,) = look(settings)
    assert (finding.part, finding.state) == ("lake", "bad")
    assert "columns that are not known here (mood)" in finding.detail


def test_routes_and_cascades_say_where_they_lead(tmp_path: Path) -> None:
    upstreams = tuple(Upstream(name=name, base_url="http://127.0.0.1:1/v1", model="m") for name in ("a", "b"))
    routes = (Route(name="old", release="watchkeeper@9"), Route(name="plain"), Route(name="beta", release="challenger"))
    cascade = Cascade(small=("a",), large=("b",))
    settings = Settings(data=tmp_path, upstreams=upstreams, routes=routes, cascade=cascade)
    (look,) = (look for look in LOOKS if look.__name__ == "_selection")
    missing, uncalibrated = look(settings)
    assert (missing.part, missing.state) == ("route old", "bad")
    assert "watchkeeper@9 is not here" in missing.detail
    assert (uncalibrated.part, uncalibrated.state, uncalibrated.advice) == (
        "cascade",
        "off",
        "watchkeeper calibrate cascade",
    )
    made = Calibration(
        small="a", large="b", difficulty=0.4, by="head", score="s", loss=0.05, n=100, clusters=90, expected_loss=0.01,
        small_share=1.0, cost_share=0.1, experiment_id="e", calibrated_at=NOW,
    )  # fmt: skip
    (tmp_path / FILE_NAME).write_bytes(msgspec.json.encode([made]))
    *_, calibrated = look(settings)
    assert (calibrated.state, calibrated.detail) == (
        "good",
        "the large model is asked from 0.400 by head, calibrated on 100 cases",
    )
    by_hand = settings.model_copy(update={"routes": (), "cascade": cascade.model_copy(update={"difficulty": 0.6})})
    (finding,) = look(by_hand)
    assert (finding.state, finding.detail) == ("good", "the large model is asked from a difficulty of 0.6")


def test_a_gateway_that_others_reach_wants_keys(tmp_path: Path) -> None:
    (look,) = (look for look in LOOKS if look.__name__ == "_keys")
    for host, state in (("127.0.0.1", "good"), ("localhost", "good"), ("0.0.0.0", "bad"), ("10.0.0.5", "bad")):
        (finding,) = look(Settings(data=tmp_path, gateway=Gateway(host=host)))
        assert (finding.part, finding.state) == ("API keys", state), host
    made, _ = keys.add(tmp_path / "keys.json", "acme")
    (finding,) = look(Settings(data=tmp_path, gateway=Gateway(host="0.0.0.0")))
    assert (finding.state, finding.detail) == ("good", "1 of 1 tenant")
    (tmp_path / "keys.json").chmod(0o622)
    assert looked(tmp_path, "_keys")[0].state == "bad"
    (tmp_path / "keys.json").chmod(0o600)
    keys.revoke(tmp_path / "keys.json", made.id, 1.0)
    assert looked(tmp_path, "_keys")[0].detail == "all have ended: nobody may ask"
    (tmp_path / "keys.json").write_text("{")
    assert looked(tmp_path, "_keys")[0].state == "bad"


def test_a_budget_near_its_end_is_bad(tmp_path: Path) -> None:
    (look,) = (look for look in LOOKS if look.__name__ == "_budgets")
    tenant = Tenant(name="acme", usd_per_day=10.0, usd_per_month=1_000.0, alert_at=0.8)
    settings = Settings(data=tmp_path, tenants=(tenant,))
    assert list(look(settings)) == []
    budgets = Budgets(tmp_path / "budgets", [tenant], 0)
    for usd, states in ((7.0, ["good", "good"]), (1.0, ["bad", "good"])):
        budgets.reserve("acme", 0, usd)
        findings = list(look(settings))
        assert [finding.state for finding in findings] == states
    assert findings[0].detail == "8.00 of 10 USD a day (UTC) are spent"
