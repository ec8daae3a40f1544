"""Experiments in MLflow: a run for the whole, under it a run for each release with its dataset, prompt version, rows and
traces.

A run stays `running` until its block ends, and is then finished, or failed where the block raised. Prompt and dataset are
linked by the tags and inputs that MLflow's own functions write: `link_prompt_version_to_run` asks the global tracking URI,
which is not ours to set. Knows nothing of what is tried or measured.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import requests

from watchkeeper.tracking import runs
from watchkeeper.tracking.tracking import TRACE_PREFIX, Tracking, TrackingUnavailable

PARENT: Final = "mlflow.parentRunId"
PROMPTS: Final = "mlflow.linkedPrompts"
TABLES: Final = "mlflow.loggedArtifacts"
TYPE: Final = "mlflow.runType"
EVALUATION: Final = "genai_evaluate"
"""The type of runs that MLflow's UI lists as evaluation runs."""

DIGEST_LENGTH: Final = 36
"""Characters of a dataset's digest that MLflow keeps on a run."""
LINKS_A_REQUEST: Final = 100
TRACES_TIMEOUT_S: Final = (5.0, 120.0)


@dataclass(frozen=True)
class Input:
    """The dataset that a run was made on."""

    dataset_id: str
    name: str
    digest: str
    count: int


class Run:
    """A run that is running."""

    def __init__(self, tracking: Tracking, experiment_id: str, run_id: str, clock: Callable[[], datetime]) -> None:
        self.run_id = run_id
        self.url = tracking.run_url(experiment_id, run_id)
        self._tracking = tracking
        self._experiment_id = experiment_id
        self._clock = clock
        self._tables: list[dict[str, str]] = []

    def log(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float | None] | None = None,
        artifacts: Mapping[str, bytes | str | dict[str, Any]] | None = None,
    ) -> None:
        """Adds to it what is given, as `Tracking.log_run` does. Raises `TrackingUnavailable`."""
        with self._tracking.speaking() as client:
            runs.log_values(client, self.run_id, params or {}, metrics or {}, self._clock())
            runs.log_artifacts(client, self.run_id, artifacts or {})

    def table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """A table (`rows.json`) that MLflow's UI shows as one. Raises `TrackingUnavailable`.

        Written as `MlflowClient.log_table` does, which builds a pandas frame for it and warns of pandas' changes."""
        body = {"columns": list(columns), "data": list(zip(*columns.values(), strict=True))}
        self._tables.append({"path": name, "type": "table"})
        self.log(artifacts={name: body})
        with self._tracking.speaking() as client:
            client.set_tag(self.run_id, TABLES, json.dumps(self._tables))

    def traces(self, request: bytes, request_ids: Sequence[str]) -> None:
        """Writes traces (an OTLP export request) into the run's experiment and links them to the run. Raises
        `TrackingUnavailable`."""
        self._send(request)
        ids = [TRACE_PREFIX + request_id for request_id in request_ids]
        for start in range(0, len(ids), LINKS_A_REQUEST):
            with self._tracking.speaking() as client:
                client.link_traces_to_run(ids[start : start + LINKS_A_REQUEST], self.run_id)

    def _send(self, request: bytes) -> None:
        headers = {"content-type": "application/x-protobuf", "x-mlflow-experiment-id": self._experiment_id}
        url = f"{self._tracking.uri}/v1/traces"
        try:
            answer = requests.post(url, data=request, headers=headers, timeout=TRACES_TIMEOUT_S)
        except requests.RequestException as error:
            raise TrackingUnavailable(f"MLflow at {self._tracking.uri}: {' '.join(str(error).split())}") from error
        if answer.status_code >= 300:
            said = " ".join(answer.text.split())[:300]
            raise TrackingUnavailable(f"MLflow at {self._tracking.uri} refused traces: HTTP {answer.status_code} {said}")


@contextlib.contextmanager
def running(
    tracking: Tracking,
    experiment: str,
    name: str,
    *,
    tags: Mapping[str, Any],
    clock: Callable[[], datetime],
    parent: Run | None = None,
    dataset: Input | None = None,
    prompt: tuple[str, int] | None = None,
) -> Iterator[Run]:
    """A run for as long as the block runs; failed where it raised, whatever it was.

    `prompt`: name and version of the prompt that it used. Raises `TrackingUnavailable`.
    """
    experiment_id = tracking.experiment_id(experiment)
    labels = {**tags, TYPE: EVALUATION}
    if parent is not None:
        labels[PARENT] = parent.run_id
    if prompt is not None:
        labels[PROMPTS] = json.dumps([{"name": prompt[0], "version": str(prompt[1])}])
    with tracking.speaking() as client:
        run = Run(tracking, experiment_id, runs.begin(client, experiment_id, name, labels, clock()), clock)
    try:
        if dataset is not None:
            _put_in(tracking, run.run_id, dataset)
        yield run
    except BaseException:
        with contextlib.suppress(TrackingUnavailable), tracking.speaking() as client:
            runs.end(client, run.run_id, "FAILED", clock())
        raise
    with tracking.speaking() as client:
        runs.end(client, run.run_id, "FINISHED", clock())


def _put_in(tracking: Tracking, run_id: str, dataset: Input) -> None:
    """As `mlflow.genai.evaluate` does it for an evaluation dataset."""
    with tracking.speaking() as client:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entity = Dataset(
            name=dataset.name,
            digest=dataset.digest[:DIGEST_LENGTH],
            source_type="mlflow_evaluation_dataset",
            source=json.dumps({"dataset_id": dataset.dataset_id}),
            profile=json.dumps({"num_records": dataset.count}),
        )
        client.log_inputs(run_id, datasets=[DatasetInput(entity, [InputTag("mlflow.data.context", "evaluation")])])
