"""One release's part of an experiment: its answers and their scores, as means and as a table with a row for each answer.

Knows nothing of how they came about, or of other releases.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

import numpy as np
import pyarrow as pa

from watchkeeper.lake.experiments import failed
from watchkeeper.record import Record
from watchkeeper.release import Release
from watchkeeper_evaluations.dataset import Case
from watchkeeper_evaluations.scorer import Value

Scored = Mapping[str, Mapping[str, Value]]
"""Request id → name of a score → what it is; None: it could not be scored, or there was nothing to."""

_MEASURED: Final[dict[str, Callable[[Record], float]]] = {
    "total_ms": lambda record: record.total_ms,
    "input_tokens": lambda record: record.input_tokens,
    "output_tokens": lambda record: record.output_tokens,
    "cost_usd": lambda record: record.cost_usd,
}


@dataclass(frozen=True)
class Part:
    """`cases`: by id. `names`: the scores that stand for all answers; further ones are details of some."""

    release: Release
    records: Sequence[Record]
    cases: Mapping[str, Case]
    scored: Scored
    names: Sequence[str]

    @property
    def failed(self) -> int:
        """How many answers never came."""
        return sum(map(failed, self.records))

    def metrics(self) -> dict[str, float]:
        """Means by name of score, over the answers that have it (of an assertion the share that holds); times, tokens and
        cost of the answers that came: a refusal is quick, and says nothing of how quick answers are."""
        found: dict[str, float] = {}
        for name in self.names:
            values = [self.scored.get(record.request_id, {}).get(name) for record in self.records]
            numbers = [float(value) for value in values if value is not None and not isinstance(value, str)]
            if numbers:
                found[name] = fmean(numbers)
        came = [record for record in self.records if not failed(record)]
        if came:
            found |= {name: fmean(map(of, came)) for name, of in _MEASURED.items()}
            times = [record.total_ms for record in came]
            found |= {f"total_ms.p{percent}": float(np.percentile(times, percent)) for percent in (50, 95)}
        return found

    def columns(self) -> dict[str, list[Any]]:
        """The table: a column of the answers' own, then one for each score."""
        asked = [self.cases[record.tags["case"]] for record in self.records]
        table: dict[str, list[Any]] = {
            "case_id": [case.case_id for case in asked],
            "release": [self.release.id] * len(asked),
            "prompt": [record.prompt_text for record in self.records],
            "reference": [case.reference for case in asked],
            "answer": [record.output_text for record in self.records],
            "status": [record.status for record in self.records],
            "error": [record.error for record in self.records],
            "finish_reason": [record.finish_reason for record in self.records],
            **{name: [of(record) for record in self.records] for name, of in _MEASURED.items()},
        }
        for name in self.names:
            table[name] = [self.scored.get(record.request_id, {}).get(name) for record in self.records]
        return {**table, "request_id": [record.request_id for record in self.records]}


def scored(scores: pa.Table) -> Scored:
    """Rows of `scores` by request and name. An assertion is a bool."""
    found: dict[str, dict[str, Value]] = {}
    for row in scores.select(["request_id", "name", "kind", "value", "label"]).to_pylist():
        value: Value = row["label"] if row["kind"] == "label" else row["value"]
        if row["kind"] == "assertion" and value is not None:
            value = bool(value)
        found.setdefault(row["request_id"], {})[row["name"]] = value
    return found
