"""Rows of the lake's tables, made a column at a time: records → `interactions`, and builders for scores and evaluations.

Text that UTF-8 cannot carry (lone surrogates) becomes U+FFFD: Arrow would refuse the whole batch. Knows nothing of where
the rows go.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, Literal

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from watchkeeper.lake.tables import EVALUATIONS, INTERACTIONS, SCORES
from watchkeeper.record import SCHEMA_VERSION, Record

DAY: Final = 86_400_000_000
"""Microseconds of a day."""

Kind = Literal["score", "label", "assertion"]
Time = datetime | int
"""An aware datetime, or microseconds since the epoch."""


def microseconds(at: Time) -> int:
    """Since the epoch. A naive datetime is a `ValueError`."""
    if isinstance(at, int):
        return at
    if at.tzinfo is None:
        raise ValueError(f"{at} has no time zone")
    return round(at.timestamp() * 1e6)


def to_arrow(records: Sequence[Record]) -> pa.Table:
    """Records → rows of `interactions`, in the same order."""
    return pa.table([_column(field, records) for field in INTERACTIONS], schema=INTERACTIONS)


def score_rows(
    rows: pa.Table,
    name: str,
    values: Sequence[float | str | bool | None] | NDArray[Any],
    *,
    scorer: str,
    scorer_version: str,
    scored_at: Time,
    evaluation_id: str | None = None,
    replay: bool = False,
    kind: Kind | None = None,
    errors: Sequence[str | None] | None = None,
    explanations: Sequence[str | None] | None = None,
) -> pa.Table:
    """One named score of each of `rows` (columns `request_id` and `received_at` are used) → rows of `scores`.

    `kind` follows from the values where it is not given: bool is an assertion (kept as 0 or 1), str a label, number a
    score. None (and NaN) is a row that could not be scored: its `errors` entry says why, and it still counts as scored.
    """
    plain = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if len(plain) != rows.num_rows:
        raise ValueError(f"{len(plain)} values for {rows.num_rows} rows")
    kind = kind or _kind(plain)
    labels = [value if isinstance(value, str) else None for value in plain]
    numbers = [None if value is None or isinstance(value, str) else float(value) for value in plain]
    count = rows.num_rows
    received = rows.column("received_at")
    columns: dict[str, Any] = {
        "date": received.cast(pa.date32()),
        "request_id": rows.column("request_id"),
        "received_at": received,
        "scorer": [scorer] * count,
        "scorer_version": [scorer_version] * count,
        "name": [name] * count,
        "kind": [kind] * count,
        "value": pa.array(numbers, pa.float64(), from_pandas=True),
        "label": text(labels),
        "error": text(errors or [None] * count),
        "explanation": text(explanations or [None] * count),
        "scored_at": [scored_at] * count,
        "evaluation_id": [evaluation_id] * count,
        "replay": [replay] * count,
        "schema_version": [SCHEMA_VERSION] * count,
    }
    return pa.table(columns, schema=SCORES)


def evaluation_row(
    *,
    evaluation_id: str,
    job: str,
    evaluated_at: Time,
    window_start: Time,
    window_end: Time,
    lake_version: int | None,
    n: int,
    verdict: Literal["pass", "warn", "fail", "unknown"],
    reason: str = "",
    metrics: Mapping[str, Any],
    mlflow_run_id: str | None = None,
    judged_by: str = "",
    scheduled: bool = False,
) -> pa.Table:
    """One row of `evaluations`. `metrics` is kept as JSON (NaN becomes null); `date` is the day of `evaluated_at`."""
    at = pa.array([evaluated_at], EVALUATIONS.field("evaluated_at").type)
    columns = {
        "date": at.cast(pa.date32()),
        "evaluation_id": [evaluation_id],
        "job": [job],
        "evaluated_at": at,
        "window_start": [window_start],
        "window_end": [window_end],
        "lake_version": [lake_version],
        "n": [n],
        "verdict": [verdict],
        "reason": text([reason]),
        "metrics": text([msgspec.json.encode(metrics, enc_hook=_plain, order="deterministic").decode()]),
        "mlflow_run_id": [mlflow_run_id],
        "judged_by": [judged_by],
        "scheduled": [scheduled],
        "schema_version": [SCHEMA_VERSION],
    }
    return pa.table(columns, schema=EVALUATIONS)


def text(values: Sequence[str | None]) -> pa.Array:
    """Strings → Arrow. The second way is only taken when a string cannot be encoded."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([None if value is None else clean(value) for value in values], pa.string())


def clean(value: str) -> str:
    """`value` with paired surrogates joined and lone ones replaced by U+FFFD."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _kind(values: Sequence[float | str | bool | None]) -> Kind:
    first = next((value for value in values if value is not None), None)
    if isinstance(first, bool):
        return "assertion"
    return "label" if isinstance(first, str) else "score"


def _plain(value: object) -> object:
    """numpy's scalars and arrays as JSON has them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise NotImplementedError(f"{type(value).__name__} is no JSON")


def _column(field: pa.Field, records: Sequence[Record]) -> pa.Array:
    """One column: made by its own function where the record keeps it in another form, else the attribute as it is."""
    special = _SPECIAL.get(field.name)
    if special is not None:
        return special(records)
    values = list(map(attrgetter(field.name), records))
    return text(values) if pa.types.is_string(field.type) else pa.array(values, field.type)


def _structs(kind: pa.ListType, groups: Iterable[Sequence[Any]]) -> pa.Array:
    """Sequences of objects → list<struct>, each field read from the attribute of its name."""
    items: list[Any] = []
    offsets = [0]
    for group in groups:
        items.extend(group)
        offsets.append(len(items))
    fields = list(kind.value_type)
    columns = []
    for field in fields:
        values = list(map(attrgetter(field.name), items))
        columns.append(text(values) if pa.types.is_string(field.type) else pa.array(values, field.type))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.StructArray.from_arrays(columns, fields=fields))


def _lists(groups: Iterable[Sequence[str]]) -> pa.Array:
    items: list[str] = []
    offsets = [0]
    for group in groups:
        items.extend(group)
        offsets.append(len(items))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), text(items))


def _json(values: Iterable[Any]) -> pa.Array:
    return pa.array([_encode(value) for value in values], pa.string())


def _encode(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(_cleaned(msgspec.to_builtins(value))).decode()


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): _cleaned(item) for key, item in value.items()}
    return [_cleaned(item) for item in value] if isinstance(value, list | tuple) else value


class _Count(msgspec.Struct):
    name: str
    n: int


def _counts(kind: pa.ListType, dictionaries: Iterable[Mapping[str, int]]) -> pa.Array:
    return _structs(kind, ([_Count(name, n) for name, n in counts.items()] for counts in dictionaries))


def _type(name: str) -> pa.DataType:
    return INTERACTIONS.field(name).type


_SPECIAL: Final[dict[str, Callable[[Sequence[Record]], pa.Array]]] = {
    "date": lambda records: pa.array([record.received_at // DAY for record in records], pa.int32()).cast(pa.date32()),
    "tags": lambda records: _json(record.tags for record in records),
    "prompt": lambda records: _json(record.prompt for record in records),
    "stages": lambda records: _structs(_type("stages"), (record.stages for record in records)),
    "verdicts": lambda records: _structs(_type("verdicts"), (record.verdicts for record in records)),
    "sources": lambda records: _structs(_type("sources"), (record.sources for record in records)),
    "entities": lambda records: _lists(record.entities for record in records),
    "redactions": lambda records: _counts(_type("redactions"), (record.redactions for record in records)),
}
