"""Finished runs, put right afterwards: found with their tags and parameters, their files read and written anew, also of
runs that were deleted, which MLflow keeps.

Knows nothing of what a run is of, or of what is taken out of it.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from watchkeeper.tracking import runs
from watchkeeper.tracking.tracking import Tracking


@dataclass(frozen=True)
class Kept:
    """A run as MLflow has it. `deleted`: it is among those that MLflow only hides."""

    run_id: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    deleted: bool


def kept_runs(tracking: Tracking, experiment: str, condition: str) -> Iterator[Kept]:
    """The runs of an experiment that meet a condition of MLflow's, hidden ones too; none where there is no such
    experiment. Raises `TrackingUnavailable`."""
    try:
        experiment_id = tracking.experiment_id(experiment, create=False)
    except LookupError:
        return
    token: str | None = None
    while True:
        with tracking.speaking() as client:
            from mlflow.entities import ViewType

            page = client.search_runs([experiment_id], condition, ViewType.ALL, page_token=token)
        for run in page:
            yield Kept(str(run.info.run_id), run.data.tags, run.data.params, run.info.lifecycle_stage == "deleted")
        token = page.token
        if not token:
            return


def artifact(tracking: Tracking, run_id: str, name: str) -> bytes | None:
    """A file at the top of a run's artifacts; None: there is none. Raises `TrackingUnavailable`."""
    with tracking.speaking() as client, tempfile.TemporaryDirectory(prefix="watchkeeper-") as folder:
        if name not in {file.path for file in client.list_artifacts(run_id)}:
            return None
        return Path(client.download_artifacts(run_id, name, folder)).read_bytes()


def revise(tracking: Tracking, run: Kept, *, tags: Mapping[str, str], artifacts: Mapping[str, bytes]) -> None:
    """Writes tags and files over those that a run has. A hidden run takes no tags, and is shown for as long as that lasts.
    Raises `TrackingUnavailable`; once more does no harm."""
    with tracking.speaking() as client, contextlib.ExitStack() as stack:
        runs.log_artifacts(client, run.run_id, artifacts)
        if tags and run.deleted:
            client.restore_run(run.run_id)
            stack.callback(client.delete_run, run.run_id)
        for key, value in tags.items():
            client.set_tag(run.run_id, key, value[: runs.TAG_LENGTH])
