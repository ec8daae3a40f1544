"""Datasets: cases to try releases on, taken from traces or from a file, kept in MLflow."""

from watchkeeper_evaluations.dataset.case import Case
from watchkeeper_evaluations.dataset.dataset import (
    Added,
    Dataset,
    DatasetChanged,
    DatasetError,
    DatasetExists,
    DatasetFrozen,
    DatasetUnknown,
    Listed,
    add,
    create,
    freeze,
    listed,
    load,
)
from watchkeeper_evaluations.dataset.filter import FilterError
from watchkeeper_evaluations.dataset.jsonl import Imported, export_jsonl, import_jsonl
from watchkeeper_evaluations.dataset.traces import Taken, from_requests, from_traces

__all__ = [
    "Added",
    "Case",
    "Dataset",
    "DatasetChanged",
    "DatasetError",
    "DatasetExists",
    "DatasetFrozen",
    "DatasetUnknown",
    "FilterError",
    "Imported",
    "Listed",
    "Taken",
    "add",
    "create",
    "export_jsonl",
    "freeze",
    "from_requests",
    "from_traces",
    "import_jsonl",
    "listed",
    "load",
]
