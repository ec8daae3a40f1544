"""One MLflow server, spoken to: experiments, finished traces, runs of jobs, addresses in its UI.

Everything that goes wrong between us and the server is one `TrackingUnavailable`. Traces are written elsewhere, as OTLP.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import msgspec
import requests

from watchkeeper.tracking import runs

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import TraceInfo

TRACE_PREFIX: Final = "tr-"
PAGE: Final = 500
"""Traces a page: the most its server allows."""

QUIET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Else it prints where to see each run, on the stdout that `--json` promises to one document.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Its default is minutes of retries; a job or a page would rather know.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}
"""What our processes tell mlflow's client before it is imported; a value of the user's own stays."""


class TrackingUnavailable(Exception):
    """MLflow cannot be reached or refused; the message is one line that names its URI."""


class Logged(msgspec.Struct, frozen=True):
    """A finished trace without its spans. `trace_id`: as MLflow has it; `at`: when it started, ms since the epoch."""

    trace_id: str
    at: int
    tags: dict[str, str] = {}
    metadata: dict[str, str] = {}


class Tracking:
    """One MLflow server, at `uri` (http or https)."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._lock = threading.Lock()
        self._known: MlflowClient | None = None
        self._experiments: dict[str, str] = {}

    def healthy(self) -> bool:
        """Whether the server answers its health check within two seconds. Does not load mlflow."""
        try:
            return requests.get(f"{self.uri}/health", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def experiment_id(self, name: str, create: bool = True) -> str:
        """The id of the experiment. Without `create`, an experiment that is not there is a `LookupError`."""
        if name not in self._experiments:
            with self.speaking() as client:
                self._experiments[name] = self._find(client, name, create)
        return self._experiments[name]

    def trace_ids(self, experiment: str) -> Iterator[str]:
        """The request ids (no `tr-`) of all finished traces, as `traces` has them; none where there is no experiment."""
        with contextlib.suppress(LookupError):
            for page in self.traces(experiment):
                yield from (trace.trace_id.removeprefix(TRACE_PREFIX) for trace in page)

    def traces(
        self, experiment: str, since: int = 0, *, before: int | None = None, unfinished: bool = False
    ) -> Iterator[list[Logged]]:
        """All finished traces that started at `since` (ms) or later, and before `before`, oldest first, each once, in
        pages; with `unfinished` also those that have not ended. A page may be deleted before the next is asked for.

        Pages by start time and id, never by a growing offset, so traces that arrive meanwhile neither hide one nor
        show one twice; one that arrives with an older start time than the page being read is not seen. Raises `LookupError`
        where there is no such experiment.
        """
        locations = [self.experiment_id(experiment, create=False)]
        seen = set[str]()
        conditions = [] if unfinished else ["attributes.status IN ('OK', 'ERROR')"]
        if before is not None:
            conditions.append(f"attributes.timestamp_ms < {before}")
        while True:
            fresh, last = self._page(locations, conditions, since, seen)
            yield fresh
            if last is None:
                return
            since = last

    def log_run(
        self,
        experiment: str,
        run_name: str,
        *,
        params: Mapping[str, Any],
        metrics: Mapping[str, float | None],
        tags: Mapping[str, Any],
        artifacts: Mapping[str, bytes | str | dict[str, Any]],
        started_at: datetime,
        ended_at: datetime,
        finish: bool = True,
    ) -> str:
        """Writes one run whole and returns its id. Artifacts are named by path (`report.html`, `tables/x.json`).
        Without `finish` the run stays open, for `runs.finish_run`.

        Long values are cut to what MLflow takes, characters that it refuses in names become `_`, metrics that are no
        finite number are left out. A run that could not be written whole is marked failed.
        """
        experiment_id = self.experiment_id(experiment)
        with self.speaking() as client:
            run_id = runs.begin(client, experiment_id, run_name, tags, started_at)
            try:
                runs.log_values(client, run_id, params, metrics, ended_at)
                runs.log_artifacts(client, run_id, artifacts)
            except BaseException:
                with contextlib.suppress(Exception):
                    runs.end(client, run_id, "FAILED", ended_at)
                raise
            if finish:
                runs.end(client, run_id, "FINISHED", ended_at)
        return run_id

    def trace_url(self, experiment_id: str, request_id: str) -> str:
        """Where MLflow's UI shows the trace."""
        trace = TRACE_PREFIX + request_id.removeprefix(TRACE_PREFIX)
        query = urlencode({"selectedEvaluationId": trace, "traceId": trace})
        return f"{self.uri}/#/experiments/{experiment_id}/traces?{query}"

    def run_url(self, experiment_id: str, run_id: str) -> str:
        """Where MLflow's UI shows the run."""
        return f"{self.uri}/#/experiments/{experiment_id}/runs/{run_id}"

    @contextlib.contextmanager
    def speaking(self) -> Iterator["MlflowClient"]:
        """The client, and its many errors as one. The health check comes first: it fails fast where the client retries."""
        if not self.healthy():
            raise TrackingUnavailable(f"MLflow does not answer at {self.uri}")
        client = self._client()
        from mlflow.exceptions import MlflowException

        try:
            yield client
        except (MlflowException, requests.RequestException, OSError) as error:
            raise TrackingUnavailable(f"MLflow at {self.uri}: {' '.join(str(error).split())}") from error

    def _client(self) -> "MlflowClient":
        with self._lock:
            if self._known is None:
                for name, value in QUIET.items():
                    os.environ.setdefault(name, value)
                from mlflow import MlflowClient

                self._known = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            return self._known

    def _find(self, client: "MlflowClient", name: str, create: bool) -> str:
        found = client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            raise TrackingUnavailable(f"MLflow at {self.uri}: experiment {name!r} was deleted; restore or rename it")
        if found is not None:
            return str(found.experiment_id)
        if not create:
            raise LookupError(f"MLflow at {self.uri} has no experiment {name!r}")
        from mlflow.exceptions import MlflowException

        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return self._find(client, name, create=False)

    def _page(
        self, locations: list[str], conditions: list[str], since: int, seen: set[str]
    ) -> tuple[list[Logged], int | None]:
        """The traces that start at `since` (ms) or later and are not in `seen`, and where the next page starts.

        `seen` is left holding the ids of the last millisecond. Only a millisecond with more traces than a page needs the
        server's own page token (an offset): then it is followed until time moves on.
        """
        token: str | None = None
        fresh: list[Logged] = []
        while True:
            with self.speaking() as client:
                page = client.search_traces(
                    locations=locations,
                    filter_string=" AND ".join((*conditions, f"attributes.timestamp_ms >= {since}")),
                    order_by=["timestamp_ms ASC", "request_id ASC"],
                    max_results=PAGE,
                    page_token=token,
                    include_spans=False,
                )
            infos = [_logged(trace.info) for trace in page]
            fresh += [info for info in infos if info.trace_id not in seen]
            token = page.token
            last = infos[-1].at if infos else since
            if token is None:
                return fresh, None
            at_last = {info.trace_id for info in infos if info.at == last}
            if last > since:
                seen.clear()
                seen |= at_last
                return fresh, last
            seen |= at_last


def _logged(info: "TraceInfo") -> Logged:
    return Logged(str(info.trace_id), int(info.request_time), dict(info.tags), dict(info.trace_metadata))
