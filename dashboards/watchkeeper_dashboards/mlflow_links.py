"""Addresses in MLflow's own pages. Asks its REST interface for the numbers of our experiments, and never loads its client.

An experiment that is not known (yet), or a server that is away, gives None. The question is asked in the background, a page
waits for its answer but a moment, and it is asked again half a minute later.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

import requests

from watchkeeper.settings import Settings
from watchkeeper.tracking import Tracking

ASK_AGAIN_S: Final = 30.0
_TIMEOUT_S: Final = 2.0
_MOMENT_S: Final = 0.3


class MlflowLinks:
    """`experiment` holds the traces, `<experiment>-jobs` the runs of evaluation jobs, `<experiment>-experiments` those of
    experiments and comparisons."""

    def __init__(self, settings: Settings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._uri = settings.mlflow.uri
        self._tracking = Tracking(settings.mlflow.uri)
        self._traces = settings.mlflow.experiment
        self._jobs = f"{settings.mlflow.experiment}-jobs"
        self._experiments = f"{settings.mlflow.experiment}-experiments"
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._ids: dict[str, str] = {}
        self._asked: dict[str, float] = {}

    def home(self) -> str:
        return f"{self._uri}/"

    def trace(self, request_id: str, experiment_name: str | None = None) -> str | None:
        """Where MLflow shows the trace of a request. `experiment_name`: that holds it, where it is none of ours."""
        experiment = self._experiment(experiment_name or self._traces)
        return None if experiment is None else self._tracking.trace_url(experiment, request_id)

    def run(self, run_id: str) -> str | None:
        """Where MLflow shows the run of an evaluation job."""
        return self._run(self._jobs, run_id)

    def experiment_run(self, run_id: str) -> str | None:
        """Where MLflow shows the run of an experiment, of one of its releases, or of a comparison."""
        return self._run(self._experiments, run_id)

    def _run(self, name: str, run_id: str) -> str | None:
        experiment = self._experiment(name)
        return None if experiment is None else self._tracking.run_url(experiment, run_id)

    def _experiment(self, name: str) -> str | None:
        with self._lock:
            now = self._monotonic()
            ask = name not in self._ids and now - self._asked.get(name, -ASK_AGAIN_S) >= ASK_AGAIN_S
            if ask:
                self._asked[name] = now
        if ask:
            asking = threading.Thread(target=self._ask, args=(name,), name=f"mlflow-links-{name}", daemon=True)
            asking.start()
            asking.join(_MOMENT_S)
        with self._lock:
            return self._ids.get(name)

    def _ask(self, name: str) -> None:
        try:
            answer = requests.get(
                f"{self._uri}/api/2.0/mlflow/experiments/get-by-name", {"experiment_name": name}, timeout=_TIMEOUT_S
            )
            if answer.status_code == 200:
                with self._lock:
                    self._ids[name] = str(answer.json()["experiment"]["experiment_id"])
        except (requests.RequestException, ValueError, KeyError):
            return
