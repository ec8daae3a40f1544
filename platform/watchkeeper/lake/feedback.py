"""The lake's table `feedback`: what people said of answers, as rows, and read again for one answer."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from watchkeeper.feedback import Feedback
from watchkeeper.lake.interactions import DAY, text
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.tables import FEEDBACK


def feedback_rows(said: Sequence[Feedback]) -> pa.Table:
    """Feedback → rows of `feedback`, in the same order. `date` is the day on which it was said."""
    columns: dict[str, pa.Array] = {
        "date": pa.array([one.received_at // DAY for one in said], pa.int32()).cast(pa.date32()),
    }
    for field in FEEDBACK:
        if field.name not in columns:
            values = [getattr(one, field.name) for one in said]
            columns[field.name] = text(values) if pa.types.is_string(field.type) else pa.array(values, field.type)
    return pa.table(columns, schema=FEEDBACK)


def feedback_of(lake: Lake, request_id: str, *, limit: int = 50) -> list[dict[str, Any]]:
    """What was said of one answer, newest first, at most `limit` rows."""
    sql = "SELECT * FROM feedback WHERE request_id = $id ORDER BY received_at DESC, feedback_id LIMIT $limit"
    rows: list[dict[str, Any]] = lake.query(sql, {"id": request_id, "limit": limit}).to_pylist()
    return rows
