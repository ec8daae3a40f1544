"""The one door to Evidently: its drift report, with our numbers in it, as HTML that opens offline and as JSON.

Evidently's own tests take every row for independent evidence, and its defaults call drift where there is none, so the
distances and p values come in from outside, as tests registered with it (its way to extend `ValueDrift`): what its report
says and what the verdict says cannot differ. Imported when a report is drawn: 4 s of CPU, 280 MB. Never gives Evidently a
text, because its text drift writes the most typical ones into the report.
"""

import os
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Method = Literal["number", "category", "text"]

NAMES: Final[dict[Method, tuple[str, str]]] = {
    "number": ("watchkeeper_ks", "Kolmogorov-Smirnov distance; p by shuffling whole sessions, adjusted for all columns"),
    "category": ("watchkeeper_variation", "total variation; p by shuffling whole sessions, adjusted for all columns"),
    "text": ("watchkeeper_telling", "how well words tell the window (AUC); p by shuffling whole sessions, adjusted"),
}
"""Method → the name registered with Evidently, and how its report calls it."""

_OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
_REGISTRY: Final = threading.Lock()
"""Evidently's registry of tests is global: one report at a time."""


@dataclass(frozen=True)
class Column:
    """`reference`, `current`: the values on the two sides; numbers, or str for a category. Of a text, a number that stands
    for it. `p`, `drifted`: what was found."""

    name: str
    method: Method
    reference: NDArray[Any]
    current: NDArray[Any]
    p: float
    drifted: bool


@dataclass(frozen=True)
class Drawing:
    """`left_out`: the columns that Evidently could not draw, and why."""

    html: str
    json: dict[str, Any]
    left_out: dict[str, str] = field(default_factory=dict)


def draw(columns: Sequence[Column], alpha: float) -> Drawing:
    """One `ValueDrift` a column, its method named. A column that Evidently fails on is left out, and said so."""
    with _REGISTRY, warnings.catch_warnings():
        _quiet()
        try:
            return _draw(columns, alpha)
        except Exception:
            # Evidently raises what pandas, numpy and plotly raise. One column after the other finds the one it cannot draw.
            left_out = {column.name: fault for column in columns if (fault := _fault(column, alpha))}
        drawing = _draw([column for column in columns if column.name not in left_out], alpha)
        return Drawing(drawing.html, drawing.json, left_out)


def _fault(column: Column, alpha: float) -> str | None:
    try:
        _draw([column], alpha)
    except Exception as error:
        return f"drawing it: {type(error).__name__}: {error}"
    return None


def _draw(columns: Sequence[Column], alpha: float) -> Drawing:
    import json

    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    if not columns:
        return Drawing("<!DOCTYPE html><title>Drift</title><p>No column could be compared.</p>", {})
    _register(columns)
    definition = DataDefinition(
        numerical_columns=[column.name for column in columns if column.method != "category"],
        categorical_columns=[column.name for column in columns if column.method == "category"],
    )
    report = Report([ValueDrift(column=c.name, method=NAMES[c.method][0], threshold=alpha) for c in columns])
    current = Dataset.from_pandas(_frame([(c.name, c.current) for c in columns]), definition)
    reference = Dataset.from_pandas(_frame([(c.name, c.reference) for c in columns]), definition)
    snapshot = report.run(current, reference)
    return Drawing(snapshot.get_html_str(as_iframe=False), json.loads(snapshot.json()))


def _register(columns: Sequence[Column]) -> None:
    """Evidently's tests by our names: each looks up what was found for the column that it is given."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    found = {column.name: (column.p, column.drifted) for column in columns}

    def look_up(reference: Any, current: Any, kind: Any, threshold: float) -> tuple[float, bool]:
        return found[current.name]

    for method, (name, display_name) in NAMES.items():
        kind = ColumnType.Categorical if method == "category" else ColumnType.Numerical
        register_stattest(StatTest(name=name, display_name=display_name, allowed_feature_types=[kind]), look_up)


def _frame(columns: Sequence[tuple[str, NDArray[Any]]]) -> Any:
    """Columns of unequal lengths as one frame, the rest filled with nothing: Evidently drops it from each column."""
    import pandas as pd

    length = max(len(values) for _, values in columns)
    filled = {}
    for name, values in columns:
        nothing: Any = None if values.dtype == object else np.nan
        padding = np.full(length - len(values), nothing, object if values.dtype == object else np.float64)
        filled[name] = np.concatenate([values if values.dtype == object else values.astype(np.float64), padding])
    return pd.DataFrame(filled)


def _quiet() -> None:
    """Offline, and without the warnings of importing Evidently: its use of numpy.core and of litestar's old names."""
    for name, value in _OFFLINE.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", "numpy.core is deprecated", DeprecationWarning)
    warnings.filterwarnings("ignore", r"(Call to|Use of) deprecated", DeprecationWarning)
