"""Evaluation datasets in MLflow: found by name within one experiment, written, read whole.

Records are written and read through the store of the client's own tracking client. `EvaluationDataset.merge_records` and
`.records` would ask MLflow's global tracking URI instead, which is not ours to set; the store is what they call. MLflow
keeps each `inputs` once in a dataset, whoever writes it. Knows nothing of what inputs and expectations hold.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from watchkeeper.tracking.tracking import TRACE_PREFIX, Tracking, TrackingUnavailable

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH: Final = 200
"""Records a request: the server looks each of them up."""
PAGE: Final = 50
OWN_TAG: Final = "mlflow."
"""How tags that MLflow itself puts on datasets and records begin."""


@dataclass(frozen=True)
class Stored:
    """A dataset without its records. `url`: where MLflow's UI shows it; `count`: how many records it has."""

    dataset_id: str
    name: str
    tags: Mapping[str, str]
    created_at: datetime
    count: int
    url: str


@dataclass(frozen=True)
class Entry:
    """One record. `trace`: the request id (no `tr-`) of the trace that it was made from, `session` that trace's; a record
    without a trace was written by a person."""

    inputs: Mapping[str, object]
    expectations: Mapping[str, object] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    trace: str | None = None
    session: str | None = None


class Datasets:
    """The evaluation datasets of one experiment, which is made with the first of them."""

    def __init__(self, tracking: Tracking, experiment: str) -> None:
        self._tracking = tracking
        self._experiment = experiment

    def all(self) -> list[Stored]:
        """By name. Raises `TrackingUnavailable`."""
        return sorted(self._search(None), key=lambda stored: (stored.name, stored.created_at))

    def find(self, name: str) -> Stored | None:
        """The one of this name (letters, digits, `._-`). Two of them, which MLflow allows, are a `TrackingUnavailable`:
        it cannot be told which is meant."""
        found = self._search(f"name = '{name}'")
        if len(found) > 1:
            ids = ", ".join(stored.dataset_id for stored in found)
            raise TrackingUnavailable(
                f"MLflow at {self._tracking.uri} has several datasets {name!r}; delete all but one: {ids}"
            )
        return found[0] if found else None

    def create(self, name: str, tags: Mapping[str, str]) -> Stored:
        """A new one, empty, even where there is one of this name: ask `find` first."""
        experiment_id = self._tracking.experiment_id(self._experiment)
        with self._tracking.speaking() as client:
            made = client.create_dataset(name=name, experiment_id=experiment_id, tags=dict(tags))
        return self._stored(made, experiment_id)

    def tag(self, dataset_id: str, tags: Mapping[str, str]) -> None:
        with self._tracking.speaking() as client:
            client.set_dataset_tags(dataset_id, dict(tags))

    def write(self, dataset_id: str, entries: Sequence[Entry]) -> None:
        """Adds records; of one whose inputs are there already, expectations and tags are brought up to date. Written in
        several requests: cut off, it can be done again."""
        records = [_record(entry) for entry in entries]
        for start in range(0, len(records), BATCH):
            with self._tracking.speaking() as client:
                self._upsert(client, dataset_id, records[start : start + BATCH])

    def read(self, dataset_id: str) -> list[Entry]:
        """All records, oldest first."""
        with self._tracking.speaking() as client:
            # No number of records: then the store follows the pages (of 1,000) itself.
            records, _ = _store(client)._load_dataset_records(dataset_id, max_results=None)
        return [_entry(record) for record in records]

    def remove(self, dataset_id: str, traces: Collection[str]) -> list[Entry]:
        """Deletes the records that were made from these traces (request ids), and returns them. Cut off, it can be done
        again."""
        with self._tracking.speaking() as client:
            records, _ = _store(client)._load_dataset_records(dataset_id, max_results=None)
            meant = [record for record in records if _entry(record).trace in traces]
            for start in range(0, len(meant), BATCH):
                ids = [record.dataset_record_id for record in meant[start : start + BATCH]]
                _store(client).delete_dataset_records(dataset_id, ids)
        return [_entry(record) for record in meant]

    def untag(self, dataset_id: str, key: str) -> None:
        with self._tracking.speaking() as client:
            client.delete_dataset_tag(dataset_id, key)

    def _upsert(self, client: "MlflowClient", dataset_id: str, records: list[dict[str, Any]]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            _store(client).upsert_dataset_records(dataset_id, records)
        except MlflowException as error:
            # Without its message: what its database complains of repeats the texts.
            raise TrackingUnavailable(
                f"MLflow at {self._tracking.uri} did not take the records of dataset {dataset_id}: {error.error_code}"
            ) from None

    def _search(self, filter_string: str | None) -> list[Stored]:
        try:
            experiment_id = self._tracking.experiment_id(self._experiment, create=False)
        except LookupError:
            return []
        found: list[Stored] = []
        token: str | None = None
        while True:
            with self._tracking.speaking() as client:
                page = client.search_datasets(
                    experiment_ids=[experiment_id],
                    filter_string=filter_string,
                    max_results=PAGE,
                    order_by=["created_time ASC"],
                    page_token=token,
                )
            found += [self._stored(dataset, experiment_id) for dataset in page]
            token = page.token
            if not token:
                return found

    def _stored(self, dataset: Any, experiment_id: str) -> Stored:
        tags = {str(key): str(value) for key, value in (dataset.tags or {}).items() if not key.startswith(OWN_TAG)}
        return Stored(
            dataset_id=str(dataset.dataset_id),
            name=str(dataset.name),
            tags=tags,
            created_at=datetime.fromtimestamp(dataset.created_time / 1000, UTC),
            count=_count(dataset.profile),
            url=f"{self._tracking.uri}/#/experiments/{experiment_id}/datasets/{dataset.dataset_id}",
        )


def _store(client: "MlflowClient") -> Any:
    return client._tracking_client.store


def _count(profile: str | None) -> int:
    counted = json.loads(profile) if profile else None
    return int(counted.get("num_records", 0)) if counted else 0  # MLflow writes `null` once the last record has gone


def _record(entry: Entry) -> dict[str, Any]:
    """As MLflow's own `merge_records` makes records of traces."""
    data = {} if entry.session is None else {"session_id": entry.session}
    if entry.trace is not None:
        data["trace_id"] = TRACE_PREFIX + entry.trace
    return {
        "inputs": dict(entry.inputs),
        "expectations": dict(entry.expectations),
        "tags": dict(entry.tags),
        "source": {"source_type": "HUMAN" if entry.trace is None else "TRACE", "source_data": data},
    }


def _entry(record: Any) -> Entry:
    data: Mapping[str, str] = (record.source.source_data if record.source else None) or {}
    trace = data.get("trace_id")
    return Entry(
        inputs=record.inputs,
        expectations=record.expectations or {},
        tags={str(key): str(value) for key, value in (record.tags or {}).items() if not key.startswith(OWN_TAG)},
        trace=None if trace is None else str(trace).removeprefix(TRACE_PREFIX),
        session=data.get("session_id"),
    )
