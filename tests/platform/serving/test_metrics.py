"""What `/metrics` tells of the spool."""

from watchkeeper.serving.metrics import Metrics
from watchkeeper.telemetry.depth import Depth, SinkDepth
from watchkeeper.telemetry.room import Room


def told(depth: Depth, full: bool = False) -> dict[str, float]:
    metrics = Metrics()
    metrics.spool(depth, full)
    lines = metrics.text(0).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_depth_age_lag_and_fullness_are_told() -> None:
    sinks = {"mlflow": SinkDepth(40, 12.5, "HTTP 503", 80.0), "lake": SinkDepth(0)}
    room = Room(5_000, 16_000, 70_000, 90_000)
    found = told(Depth(rows=42, oldest_s=13.0, room=room, unreadable={"a": "torn"}, sinks=sinks, said_s=1.5), True)
    expected = {
        "watchkeeper_spool_rows": 42,
        "watchkeeper_spool_bytes": 5_000,
        "watchkeeper_spool_limit_bytes": 16_000,
        "watchkeeper_spool_disk_free_bytes": 70_000,
        "watchkeeper_spool_oldest_seconds": 13,
        "watchkeeper_spool_unreadable": 1,
        "watchkeeper_spool_full": 1,
        "watchkeeper_spool_shipper_silent_seconds": 1.5,
        'watchkeeper_sink_pending_rows{sink="mlflow"}': 40,
        'watchkeeper_sink_lag_seconds{sink="mlflow"}': 12.5,
        'watchkeeper_sink_done_in_seconds{sink="mlflow"}': 80.0,
        'watchkeeper_sink_failing{sink="mlflow"}': 1,
        'watchkeeper_sink_pending_rows{sink="lake"}': 0,
        'watchkeeper_sink_lag_seconds{sink="lake"}': 0,
        'watchkeeper_sink_failing{sink="lake"}': 0,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_a_shipper_that_never_spoke_is_not_taken_for_one_that_just_did() -> None:
    found = told(Depth(rows=0, oldest_s=None, room=Room(0, 1, 1, 1), unreadable={}, sinks={}, said_s=None))
    silent = found["watchkeeper_spool_shipper_silent_seconds"]
    assert silent != silent, "NaN"
    assert not any(name.startswith("watchkeeper_sink") for name in found)
