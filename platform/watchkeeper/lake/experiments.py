"""Experiments and comparisons in the lake: their rows, and what pages and gates ask of them.

An experiment is there once it has rows in `experiments`, one a release, which come last; answers of one that was cut off
are never found here. Knows nothing of how cases are replayed or of how releases are held against each other.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, TypeVar

import msgspec
import pyarrow as pa

from watchkeeper.lake.interactions import DAY, Kind, microseconds
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.tables import COMPARISONS, EXPERIMENTS
from watchkeeper.record import SCHEMA_VERSION, Record

FAILED_SQL: Final = "(error IS NOT NULL OR status >= 400 OR coalesce(finish_reason, '') = 'content_filter')"
"""SQL: nobody got an answer to this replayed request, because of an error or because a guard blocked."""


def failed(record: Record) -> bool:
    """`FAILED_SQL`, of a record."""
    return record.error is not None or record.status >= 400 or record.finish_reason == "content_filter"


GATES_SQL: Final = (
    "comparisons JOIN (SELECT experiment_id, max(started_at) AS tried_at FROM experiments GROUP BY experiment_id) "
    "USING (experiment_id)"
)
NEWEST_GATE_SQL: Final = "tried_at DESC, compared_at DESC, comparison_id"
"""SQL: comparisons whose experiment is known, and the order in which their verdicts count: that on the newest answers
first, however late somebody judged older ones."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One release's part of an experiment: `n` answers, of which `failed` never came (an error or a block).

    `metrics`: means by name of score; of the answers that came, means of `total_ms`, `input_tokens`, `output_tokens` and
    `cost_usd`, and `total_ms.p50`, `total_ms.p95`.
    """

    experiment_id: str
    started_at: datetime
    ended_at: datetime
    dataset: str
    dataset_digest: str
    release: str
    digest: str
    n: int
    failed: int
    metrics: dict[str, float]
    mlflow_run_id: str
    mlflow_parent_id: str


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Two releases of an experiment, held against each other: `result` says how they differ. `verdict`, `policy`: of a
    gate; None of a mere comparison."""

    comparison_id: str
    compared_at: datetime
    experiment_id: str
    dataset: str
    dataset_digest: str
    base: str
    base_digest: str
    candidate: str
    candidate_digest: str
    n: int
    verdict: Literal["pass", "fail", "unknown"] | None = None
    reason: str = ""
    policy: dict[str, Any] | None = None
    result: dict[str, Any]
    mlflow_run_id: str


class Given(msgspec.Struct, frozen=True):
    """One score of an answer. `value`: a number, of an assertion 0 or 1; None where there was nothing to score, or where
    `error` says why it could not be."""

    kind: Kind
    value: float | None
    label: str | None = None
    error: str | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What one release said to one case. `repeat`: which time the case was asked, from 0. `session`: the case's, which
    says what belongs together. `failed`: nobody got an answer (an error or a block)."""

    request_id: str
    received_at: datetime
    case_id: str
    repeat: int
    session: str | None
    release: str
    prompt: str
    answer: str
    status: int
    error: str | None
    finish_reason: str | None
    action: str
    failed: bool
    total_ms: float
    ttft_ms: float | None
    input_tokens: int
    output_tokens: int
    cost_usd: float
    scores: dict[str, Given]


def trial_rows(trials: Sequence[Trial]) -> pa.Table:
    """Rows of `experiments`; `date` is the day of `started_at`. Append all of an experiment's at once."""
    return _rows(EXPERIMENTS, trials, "started_at")


def comparison_row(compared: Compared) -> pa.Table:
    """A row of `comparisons`; `date` is the day of `compared_at`."""
    return _rows(COMPARISONS, [compared], "compared_at")


def newest_trials(lake: Lake, limit: int = 50) -> list[Trial]:
    """All trials of the newest experiments (`limit` of them), newest experiment first, by release in each."""
    found = lake.query(
        "SELECT * FROM experiments QUALIFY dense_rank() OVER (ORDER BY started_at DESC, experiment_id) <= $limit "
        "ORDER BY started_at DESC, experiment_id, release",
        {"limit": limit},
    )
    return _read(found, Trial)


def trials(lake: Lake, experiment_id: str) -> list[Trial]:
    """The trials of one experiment, by release; none where it is unknown or was never finished."""
    found = lake.query("SELECT * FROM experiments WHERE experiment_id = $id ORDER BY release", {"id": experiment_id})
    return _read(found, Trial)


def newest_with(lake: Lake, *releases: tuple[str, str]) -> str | None:
    """The newest experiment that tried all these releases, each an id and the digest that it had then."""
    tried = "release || ' ' || digest"
    found = lake.query(
        f"SELECT experiment_id FROM experiments WHERE list_contains($releases, {tried}) GROUP BY experiment_id "
        f"HAVING count(DISTINCT {tried}) = len($releases) ORDER BY max(started_at) DESC, experiment_id LIMIT 1",
        {"releases": sorted({" ".join(each) for each in releases})},
    ).to_pylist()
    return found[0]["experiment_id"] if found else None


def digests(lake: Lake, release: str) -> set[str]:
    """The contents with which experiments tried a release of this id: several where its number was given anew."""
    found = lake.query("SELECT DISTINCT digest FROM experiments WHERE release = $release", {"release": release})
    return set(found.column("digest").to_pylist())


def answers(lake: Lake, experiment_id: str, release: str | None = None) -> list[Answer]:
    """What an experiment's releases (or one of them) answered, by case, repeat and release."""
    done = trials(lake, experiment_id)
    if not done:
        return []
    bounds = {
        "id": experiment_id,
        "first": min(trial.started_at for trial in done).date(),
        "last": max(trial.ended_at for trial in done).date(),
    }
    rows = lake.query(
        "SELECT request_id, received_at, tags->>'case' AS case_id, coalesce((tags->>'repeat')::INTEGER, 0) AS repeat, "
        "session, release, prompt_text AS prompt, output_text AS answer, status, error, finish_reason, action, "
        f"{FAILED_SQL} AS failed, total_ms, ttft_ms, input_tokens, output_tokens, cost_usd FROM interactions "
        "WHERE source = 'replay' AND date BETWEEN $first AND $last AND tags->>'experiment' = $id "
        "AND ($release IS NULL OR release = $release) ORDER BY case_id, repeat, release, request_id",
        bounds | {"release": release},
    ).to_pylist()
    scores = lake.query(
        "SELECT request_id, name, kind, value, label, error FROM scores WHERE replay AND evaluation_id = $id "
        "AND date BETWEEN $first AND $last ORDER BY request_id, name",
        bounds,
    ).to_pylist()
    given: dict[str, dict[str, Given]] = {}
    for score in scores:
        name, request_id = score.pop("name"), score.pop("request_id")
        given.setdefault(request_id, {})[name] = Given(**score)
    return [Answer(**row, scores=given.get(row["request_id"], {})) for row in rows]


def comparisons(lake: Lake, experiment_id: str | None = None, limit: int = 50) -> list[Compared]:
    """The comparisons and gates of an experiment, or of all, newest first."""
    found = lake.query(
        "SELECT * FROM comparisons WHERE $id IS NULL OR experiment_id = $id "
        "ORDER BY compared_at DESC, comparison_id LIMIT $limit",
        {"id": experiment_id, "limit": limit},
    )
    return _read(found, Compared)


def gates(lake: Lake, limit: int = 1000) -> list[Compared]:
    """The gates, in the order in which their verdicts count (see `watchkeeper.lake.releases.newest_gate`)."""
    found = lake.query(
        f"SELECT * FROM {GATES_SQL} WHERE verdict IS NOT NULL ORDER BY {NEWEST_GATE_SQL} LIMIT $limit", {"limit": limit}
    )
    return _read(found, Compared)


T = TypeVar("T", bound=msgspec.Struct)
_JSON: Final = ("metrics", "policy", "result")
"""Columns that hold JSON."""


def _rows(schema: pa.Schema, structs: Sequence[msgspec.Struct], at: str) -> pa.Table:
    plain = [{name: getattr(struct, name) for name in struct.__struct_fields__} for struct in structs]
    for row in plain:
        row |= {name: _encoded(row[name]) for name in _JSON if name in row}
        row |= {"date": microseconds(row[at]) // DAY, "schema_version": SCHEMA_VERSION}
    return pa.Table.from_pylist(plain, schema=schema)


def _encoded(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else msgspec.json.encode(value, order="deterministic").decode()


def _read(found: pa.Table, kind: type[T]) -> list[T]:
    rows = found.to_pylist()
    for row in rows:
        row |= {name: msgspec.json.decode(row[name]) for name in _JSON if row.get(name) is not None}
    return [kind(**{name: row[name] for name in kind.__struct_fields__}) for row in rows]
