"""Cases out of the lake: of the requests that a filter picks in a window, or of those that are named. Replays never are.

What cannot be a case is left out and counted. Knows nothing of MLflow.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import STATUS_SQL
from watchkeeper.serving.labels import labels
from watchkeeper.serving.redact import Redactor
from watchkeeper.settings import Settings
from watchkeeper.tracking import TRACE_PREFIX
from watchkeeper_evaluations.case import bounds, during, inside
from watchkeeper_evaluations.dataset.case import Case
from watchkeeper_evaluations.dataset.conversation import COLUMNS, Conversations, templates
from watchkeeper_evaluations.dataset.dataset import DatasetError
from watchkeeper_evaluations.dataset.filter import WINDOW, compiled, parse
from watchkeeper_evaluations.window import Window

LIMIT: Final = 500
PAGE: Final = 500
"""Requests whose texts are read at once."""
_ID: Final = re.compile(r"[0-9a-f]{32}")


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """`matched`: requests that the filter picks, or that were named; more than `limit` of them are not looked at.
    `left_out`: reason → how many; `unknown_release`: cases whose system text was dropped, because it could not be told what
    of it was the client's."""

    cases: list[Case]
    matched: int
    left_out: dict[str, int]
    unknown_release: int = 0


def from_traces(settings: Settings, text: str, window: Window, *, limit: int = LIMIT, seed: int | None = None) -> Taken:
    """Cases of the requests in the window that a filter (filter.py) picks, `limit` at most: the newest, or with a `seed` a
    sample, the same one each time. Raises `FilterError`, `LakeUnavailable`."""
    conditions = parse(text)
    lake = _lake(settings)
    names = lake.query(
        f"SELECT DISTINCT name FROM scores WHERE replay IS NOT TRUE AND {during(WINDOW)}", bounds(WINDOW, window)
    )
    sql = compiled(conditions, names.column("name").to_pylist())
    chosen = "received_at DESC" if seed is None else "md5(request_id || $seed)"
    joins = f" {' '.join(sql.joins)}" if sql.joins else ""
    where = f" WHERE {' AND '.join(sql.where)}" if sql.where else ""
    found = lake.query(
        f"SELECT i.request_id, count(*) OVER () AS matched FROM (SELECT *, {STATUS_SQL} AS outcome FROM interactions "
        f"WHERE {inside(WINDOW)}) AS i{joins}{where} ORDER BY {chosen}, i.request_id LIMIT $limit",
        sql.parameters | bounds(WINDOW, window) | {"limit": limit} | ({} if seed is None else {"seed": str(seed)}),
    )
    ids = found.column("request_id").to_pylist()
    return _taken(settings, lake, ids, found.column("matched")[0].as_py() if ids else 0)


def from_requests(settings: Settings, names: Iterable[str]) -> Taken:
    """Cases of the requests of these ids (with or without `tr-`). Raises a `DatasetError` where one is no id."""
    ids = list(dict.fromkeys(name.strip().removeprefix(TRACE_PREFIX).lower() for name in names if name.strip()))
    wrong = next((name for name in ids if not _ID.fullmatch(name)), None)
    if wrong is not None:
        raise DatasetError(f"a request's id is 32 hex digits, not {wrong[:40]!r}")
    return _taken(settings, _lake(settings), ids, len(ids))


def _lake(settings: Settings) -> Lake:
    return Lake(settings.lake_uri, settings.lake.storage_options)


def _taken(settings: Settings, lake: Lake, ids: Sequence[str], matched: int) -> Taken:
    conversations = Conversations(templates(settings.data), Redactor(labels(settings)))
    cases: list[Case] = []
    left_out: Counter[str] = Counter()
    for start in range(0, len(ids), PAGE):
        page = ids[start : start + PAGE]
        rows = _rows(lake, page)
        left_out["not_found"] += len(page) - len(rows)
        for row in rows:
            made = "replay" if row["source"] == "replay" else conversations.case(row)
            if isinstance(made, Case):
                cases.append(made)
            else:
                left_out[made] += 1
    return Taken(cases=cases, matched=matched, left_out=dict(+left_out), unknown_release=conversations.unknown)


def _rows(lake: Lake, ids: Sequence[str]) -> list[Mapping[str, Any]]:
    columns = ", ".join(f'"{name}"' for name in (*COLUMNS, "source"))
    rows: list[Mapping[str, Any]] = lake.query(
        f"SELECT {columns} FROM interactions WHERE request_id IN (SELECT unnest($ids)) ORDER BY received_at, request_id",
        {"ids": list(ids)},
    ).to_pylist()
    return rows
