"""Deleting from MLflow: traces with all that hangs on them, and the bytes that a deleted row leaves in its database.

Done again it deletes what is left. A row that is deleted may live on in the free pages of a database and in its log: of our
own server's they are cleaned here, of somebody else's they are for whoever keeps it. Knows nothing of why something is
deleted.
"""

import contextlib
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, Final, TypeVar

import msgspec
import requests

from watchkeeper.settings import Settings
from watchkeeper.tracking.server import own_database
from watchkeeper.tracking.tracking import TRACE_PREFIX, Tracking, TrackingUnavailable

ASKED: Final = 100
"""Traces of one request."""
PAGE: Final = 500
TIMEOUT_S: Final = (5.0, 120.0)
BUSY_S: Final = 60.0
"""How long others may keep our database."""
USER: Final = "mlflow.trace.user"
TENANT: Final = "watchkeeper.tenant"
"""The attribute of a span that says whose the request is."""
_UNWRITABLE: Final = re.compile(r"""['"\\]""")


class _Experiment(msgspec.Struct, frozen=True):
    experiment_id: str = ""


class _Location(msgspec.Struct, frozen=True):
    mlflow_experiment: _Experiment = _Experiment()


class _Assessment(msgspec.Struct, frozen=True):
    assessment_id: str
    metadata: dict[str, str] = {}


class _Info(msgspec.Struct, frozen=True):
    trace_id: str
    trace_location: _Location = _Location()
    assessments: list[_Assessment] = []


class _Infos(msgspec.Struct, frozen=True):
    trace_infos: list[_Info] = []


class _Deleted(msgspec.Struct, frozen=True):
    traces_deleted: int = 0


_T = TypeVar("_T")


class NotOurs(Exception):
    """Somebody else has to do it; the message is one line."""


class Traces:
    """The traces of one MLflow server, of whatever experiment; for one thread."""

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking
        self._session = requests.Session()

    def of_user(self, experiment: str, user: str, tenant: str | None = None) -> Iterator[tuple[str, int]]:
        """Request id and start (µs) of each trace of a user in an experiment; with `tenant` only of those that say they are
        that tenant's, for which their spans are read. Raises `TrackingUnavailable`."""
        try:
            places = [self._tracking.experiment_id(experiment, create=False)]
        except LookupError:
            return
        # Its filters know no way to write a quotation mark or a backslash: any character stands for them, and what is found
        # is looked at.
        quoted = _UNWRITABLE.sub("_", user)
        condition = f"metadata.`{USER}` {'=' if quoted == user else 'LIKE'} '{quoted}'"
        token: str | None = None
        while True:
            with self._tracking.speaking() as client:
                page = client.search_traces(
                    locations=places,
                    filter_string=condition,
                    max_results=PAGE if tenant is None else ASKED,
                    page_token=token,
                    include_spans=tenant is not None,
                )
            for trace in page:
                theirs = tenant is None or any(span.get_attribute(TENANT) == tenant for span in trace.data.spans)
                if theirs and trace.info.trace_metadata.get(USER) == user:
                    yield str(trace.info.trace_id).removeprefix(TRACE_PREFIX), int(trace.info.request_time) * 1000
            token = page.token
            if not token:
                return

    def older(self, experiment: str, before: int) -> Iterator[list[str]]:
        """The requests of an experiment whose traces began before that (ms since the epoch), finished or not, oldest first,
        in batches. A batch may be deleted before the next is asked for. Raises `TrackingUnavailable`."""
        with contextlib.suppress(LookupError):
            for page in self._tracking.traces(experiment, before=before, unfinished=True):
                for start in range(0, len(page), ASKED):
                    yield [one.trace_id.removeprefix(TRACE_PREFIX) for one in page[start : start + ASKED]]

    def there(self, request_ids: Iterable[str]) -> list[str]:
        """Those of the requests of which MLflow has a trace. Raises `TrackingUnavailable`."""
        return [info.trace_id.removeprefix(TRACE_PREFIX) for info in self._infos(request_ids)]

    def delete(self, request_ids: Iterable[str]) -> int:
        """Deletes traces with their spans, tags, metadata and assessments; how many there were. Raises
        `TrackingUnavailable`."""
        places: dict[str, list[str]] = {}
        for info in self._infos(request_ids):
            places.setdefault(info.trace_location.mlflow_experiment.experiment_id, []).append(info.trace_id)
        gone = 0
        for place, traces in places.items():
            for start in range(0, len(traces), ASKED):
                body = {"experiment_id": place, "request_ids": traces[start : start + ASKED]}
                gone += self._post("2.0/mlflow/traces/delete-traces", body, _Deleted).traces_deleted
        return gone

    def delete_assessments(self, request_ids: Iterable[str], key: str, values: Set[str]) -> int:
        """Deletes the assessments on these traces whose metadata have one of `values` under `key`; how many there were.
        Raises `TrackingUnavailable`."""
        gone = 0
        for info in self._infos(request_ids):
            for held in info.assessments:
                if held.metadata.get(key) in values:
                    self._send("DELETE", f"3.0/mlflow/traces/{info.trace_id}/assessments/{held.assessment_id}", None)
                    gone += 1
        return gone

    def _infos(self, request_ids: Iterable[str]) -> Iterator[_Info]:
        names = [TRACE_PREFIX + name for name in dict.fromkeys(request_ids)]
        for start in range(0, len(names), ASKED):
            body = {"trace_ids": names[start : start + ASKED]}
            yield from self._post("3.0/mlflow/traces/batchGetInfos", body, _Infos).trace_infos

    def _post(self, path: str, body: Mapping[str, Any], kind: type[_T]) -> _T:
        answer = self._send("POST", path, body)
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.DecodeError as error:
            raise TrackingUnavailable(f"MLflow at {self._tracking.uri} does not answer as MLflow does: {error}") from error

    def _send(self, how: str, path: str, body: Mapping[str, Any] | None) -> requests.Response:
        try:
            answer = self._session.request(how, f"{self._tracking.uri}/api/{path}", json=body, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            raise TrackingUnavailable(f"MLflow does not answer at {self._tracking.uri}") from error
        if answer.status_code >= 300:
            raise TrackingUnavailable(f"MLflow at {self._tracking.uri}: HTTP {answer.status_code} to {how} {path}")
        return answer


def clean(settings: Settings) -> None:
    """Rids the database of our own MLflow server of what was deleted in it, whatever SQLite it runs on, and empties what it
    logged: an error of its database repeats what was to be written. The server may be at work.

    Raises `NotOurs` where it is somebody else's, `TrackingUnavailable` where others keep it for too long.
    """
    database = own_database(settings)
    if database is None:
        raise NotOurs(
            f"what was deleted in MLflow at {settings.mlflow.uri} may stand in the free pages and logs of its database, "
            "which is not ours to clean: VACUUM it there"
        )
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=BUSY_S, isolation_level=None)) as connection:
            connection.execute("VACUUM")  # pages anew: neither free ones nor free bytes in them are taken along
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.Error as error:
        raise TrackingUnavailable(f"{database} cannot be rid of what was deleted in it: {error}") from error
    if busy:
        raise TrackingUnavailable(f"{database}: its log holds what was deleted, and others kept it for {BUSY_S:g} s")
    log = settings.data / "logs" / "mlflow.log"
    if log.exists():
        log.write_bytes(b"")
