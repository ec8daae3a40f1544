"""Experiments in a real MLflow, read back by its own client."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas
import pytest

from watchkeeper.record import Message, Record
from watchkeeper.telemetry.otlp import export_request
from watchkeeper.tracking import Tracking, TrackingUnavailable
from watchkeeper.tracking.experiments import PARENT, Input, running

NOON = datetime(2026, 4, 1, 12, tzinfo=UTC)
NAME = "watchkeeper-experiments"


class Clock:
    """A minute passes with every look."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        self.now += timedelta(minutes=1)
        return self.now


@pytest.fixture
def tracking(mlflow_uri: str) -> Tracking:
    return Tracking(mlflow_uri)


pytestmark = [pytest.mark.timeout(180), pytest.mark.servers]


def test_a_parent_with_a_child_for_each_release(tracking: Tracking, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking.uri)
    dataset_id = client.create_dataset("billing", experiment_id=tracking.experiment_id(NAME)).dataset_id
    dataset = Input(dataset_id, "billing", "ab" * 32, count=3)
    columns: dict[str, list[Any]] = {"case_id": ["a", "b", "c"], "answer": ["yes", None, "é"], "grounded": [1.0, None, 0.0]}
    with running(tracking, NAME, "the experiment", tags={"which": "good"}, clock=Clock(), dataset=dataset) as parent:
        parent.log(params={"dataset": "billing"})
        assert client.get_run(parent.run_id).info.status == "RUNNING"
        prompt = ("watchkeeper", 2)
        with running(
            tracking, NAME, "watchkeeper@2", tags={}, clock=Clock(), parent=parent, dataset=dataset, prompt=prompt
        ) as child:
            child.log(
                params={"temperature": 0.2}, metrics={"grounded": 0.5, "nothing": None}, artifacts={"note.txt": "said"}
            )
            child.table("rows.json", columns)
    logged = client.get_run(child.run_id)
    assert (logged.info.status, logged.info.run_name) == ("FINISHED", "watchkeeper@2")
    assert logged.data.tags[PARENT] == parent.run_id
    assert logged.data.params == {"temperature": "0.2"}
    assert logged.data.metrics == {"grounded": 0.5}
    client.download_artifacts(child.run_id, "", str(tmp_path))
    assert (tmp_path / "note.txt").read_text() == "said"
    table = pandas.read_json(tmp_path / "rows.json", orient="split")
    assert table["case_id"].tolist() == ["a", "b", "c"]
    assert table["answer"].tolist()[2] == "é"
    assert json.loads(logged.data.tags["mlflow.loggedArtifacts"]) == [{"path": "rows.json", "type": "table"}]
    assert logged.inputs is not None
    (used,) = logged.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("billing", "ab" * 18)
    assert dataset_id in used.dataset.source
    assert client.get_run(parent.run_id).info.status == "FINISHED"
    found = client.search_runs([logged.info.experiment_id], f"tags.`{PARENT}` = '{parent.run_id}'")
    assert [run.info.run_id for run in found] == [child.run_id]
    assert child.url == tracking.run_url(logged.info.experiment_id, child.run_id)


def test_the_prompt_version_shows_the_run(tracking: Tracking) -> None:
    """MLflow's own UI finds the runs of a prompt by the tag that its client would write."""
    from mlflow import MlflowClient
    from mlflow.tracing.constant import TraceTagKey

    with running(tracking, NAME, "linked", tags={}, clock=Clock(), prompt=("watchkeeper", 3)) as run:
        pass
    tags = MlflowClient(tracking.uri).get_run(run.run_id).data.tags
    assert tags[TraceTagKey.LINKED_PROMPTS] == '[{"name": "watchkeeper", "version": "3"}]'


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_what_breaks_off_is_failed(tracking: Tracking, error: BaseException) -> None:
    from mlflow import MlflowClient

    with pytest.raises(type(error)), running(tracking, NAME, "broken", tags={}, clock=Clock()) as run:
        raise error
    info = MlflowClient(tracking.uri).get_run(run.run_id).info
    assert info.status == "FAILED"
    assert info.end_time > info.start_time


def test_traces_belong_to_their_run(tracking: Tracking) -> None:
    from mlflow import MlflowClient

    at = int(NOON.timestamp() * 1e6)
    records = [
        Record(
            request_id=f"{n:032x}", received_at=at, prompt=(Message("user", "hello"),), prompt_text="hello", total_ms=3.0
        )
        for n in range(1, 104)
    ]
    with running(tracking, NAME, "traced", tags={}, clock=Clock()) as run:
        run.traces(export_request(records), [record.request_id for record in records])
    client = MlflowClient(tracking.uri)
    found = client.search_traces(
        locations=[tracking.experiment_id(NAME)], run_id=run.run_id, max_results=500, include_spans=False
    )
    assert {trace.info.trace_id for trace in found} == {f"tr-{record.request_id}" for record in records}


def test_traces_that_are_refused_are_one_line(tracking: Tracking) -> None:
    with (
        pytest.raises(TrackingUnavailable, match=r"refused traces: HTTP 4\d\d"),
        running(tracking, NAME, "refused", tags={}, clock=Clock()) as run,
    ):
        run.traces(b"no protobuf", [])


def test_nothing_begins_with_mlflow_away(free_port: Callable[[], int]) -> None:
    away = Tracking(f"http://127.0.0.1:{free_port()}")
    begun = False
    with pytest.raises(TrackingUnavailable, match="does not answer"), running(away, NAME, "x", tags={}, clock=Clock()):
        begun = True
    assert not begun
