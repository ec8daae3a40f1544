"""Runs that were left open: found by their tags, and finished or deleted. Knows nothing of what a run is of."""

from collections.abc import Mapping
from datetime import datetime

from watchkeeper.tracking.tracking import Tracking


def unfinished_runs(tracking: Tracking, experiment: str, tags: Mapping[str, str], value_of: str) -> dict[str, str]:
    """The runs that have all of `tags` and did not finish: run id → its tag `value_of`. Raises `TrackingUnavailable`."""
    experiment_id = tracking.experiment_id(experiment)
    conditions = ["attributes.status != 'FINISHED'", *(f"tags.`{key}` = '{value}'" for key, value in tags.items())]
    found: dict[str, str] = {}
    token: str | None = None
    with tracking.speaking() as client:
        while True:
            page = client.search_runs([experiment_id], " AND ".join(conditions), page_token=token)
            found |= {str(run.info.run_id): str(run.data.tags.get(value_of, "")) for run in page}
            token = page.token
            if not token:
                return found


def finish_run(tracking: Tracking, run_id: str, ended_at: datetime) -> None:
    """Once more does no harm. Raises `TrackingUnavailable`."""
    with tracking.speaking() as client:
        client.set_terminated(run_id, status="FINISHED", end_time=int(ended_at.timestamp() * 1000))


def delete_run(tracking: Tracking, run_id: str) -> None:
    """MLflow keeps it where deleted runs are. Raises `TrackingUnavailable`."""
    with tracking.speaking() as client:
        client.delete_run(run_id)
