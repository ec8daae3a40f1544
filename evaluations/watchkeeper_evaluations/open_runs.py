"""Runs of scheduled evaluations that a killed process left open: finished where the row in `evaluations` names them,
deleted where it names another. So there is one finished run for each such row, whoever was killed when.

A run whose window has no row yet is left alone: another process may be at it, and if not, it goes once there is a row.
"""

from datetime import datetime

from watchkeeper.lake.lake import Lake
from watchkeeper.settings import Settings
from watchkeeper.tracking import Tracking
from watchkeeper.tracking.unfinished import delete_run, finish_run, unfinished_runs


def settle(settings: Settings, lake: Lake, job: str, now: datetime) -> None:
    """Raises `TrackingUnavailable`, `LakeUnavailable`."""
    tracking = Tracking(settings.mlflow.uri)
    tags = {"job": job, "scheduled": "true"}
    left = unfinished_runs(tracking, f"{settings.mlflow.experiment}-jobs", tags, "evaluation_id")
    if not left:
        return
    rows = lake.query(
        "SELECT evaluation_id, mlflow_run_id FROM evaluations WHERE evaluation_id IN (SELECT unnest($ids))",
        {"ids": sorted(set(left.values()))},
    )
    named = dict(zip(rows.column(0).to_pylist(), rows.column(1).to_pylist(), strict=True))
    for run_id, evaluation_id in left.items():
        if named.get(evaluation_id) == run_id:
            finish_run(tracking, run_id, now)
        elif evaluation_id in named:
            delete_run(tracking, run_id)
