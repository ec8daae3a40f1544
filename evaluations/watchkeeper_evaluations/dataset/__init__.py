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
    add,
    create,
    freeze,
    load,
    stored,
)

__all__ = [
    "Added",
    "Case",
    "Dataset",
    "DatasetChanged",
    "DatasetError",
    "DatasetExists",
    "DatasetFrozen",
    "DatasetUnknown",
    "add",
    "create",
    "freeze",
    "load",
    "stored",
]
