"""Rollups: what a chart needs of many requests, in 5-minute rows that add up.

`roll_up` makes *partial* rows of a batch of records, `roll_up_scores` of a batch of scores; they are appended with the
batch, and `Rollups.read` sums them. So `roll_up(a + b)` reads the same as `roll_up(a)` and `roll_up(b)`, late rows need no
special case, and no reader scans raw rows. `merge` is the same sum written down, for upkeep. Percentiles are at most 2%
off (see `histogram`). Knows nothing of how charts look.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from watchkeeper.lake.cells import BUCKET, BUCKET_S, DIMENSIONS, Cells
from watchkeeper.lake.histogram import (
    SCORE_BINS,
    Entries,
    Floats,
    Ints,
    latency_bins,
    latency_of,
    owned,
    score_bins,
    tally,
)
from watchkeeper.lake.interactions import Time, microseconds, to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.tables import ROLLUPS
from watchkeeper.record import SCHEMA_VERSION, STAGES, Record

STATUSES: Final = ("ok", "blocked", "error", "rejected")
LATENCIES: Final = (*STAGES, "total", "ttft", "tpot", "overhead")
SUMS: Final = ("n", "input_tokens", "output_tokens", "cost_usd")

Status = Literal["ok", "blocked", "error", "rejected"]
Counted = Literal["statuses", "actions", "categories"]
COUNTED: Final[tuple[Counted, ...]] = ("statuses", "actions", "categories")
HISTOGRAMS: Final = ("latency", "scores")
STATUS_SQL: Final = """(CASE
    WHEN 'content_filter' IN (finish_reason, error) THEN 'blocked'
    WHEN status BETWEEN 400 AND 498 THEN 'rejected'
    WHEN status < 400 AND error IS NULL THEN 'ok'
    ELSE 'error' END)"""
"""`status_of`, over a row of `interactions`; `_statuses` is the same over columns."""


def status_of(record: Record) -> Status:
    """How the request ended, for its caller.

    `blocked`: a guard withheld the prompt or the answer (`content_filter`). `rejected`: another 4xx, refused without being
    served (wrong request, unknown model, over a limit). `ok`: answered, and nothing went wrong on the way. `error`: all
    else: a 5xx, a stream that broke off, a caller who left (499), a crash.
    """
    if "content_filter" in (record.finish_reason, record.error):
        return "blocked"
    if 400 <= record.status <= 498:
        return "rejected"
    return "ok" if record.status < 400 and record.error is None else "error"


def roll_up(records: Sequence[Record]) -> pa.Table:
    """`roll_up_rows` of records that are no rows yet."""
    return roll_up_rows(to_arrow(records))


def roll_up_rows(rows: pa.Table) -> pa.Table:
    """Rows of `interactions` → partial rows of `rollups`, one for each 5 minutes, tenant, route, model, release and source.

    Latency `total` and `overhead` hold every request but rejected ones (a flood of quick refusals would hide slow
    answers); a stage holds the requests that did not skip it. `categories` counts the requests in which a guard flagged,
    redacted or blocked something of that category.
    """
    cells = Cells.group(rows.column("received_at"), rows)
    statuses = _statuses(rows)
    counts = {
        "statuses": Entries.counted(cells.of, pa.array(STATUSES).take(pa.array(statuses))),
        "actions": Entries.counted(cells.of, rows.column("action")),
        "categories": _categories(rows.column("verdicts")).regrouped(cells.of),
    }
    latency = _latencies(rows, statuses != STATUSES.index("rejected")).regrouped(cells.of)
    sums = {"n": np.bincount(cells.of, minlength=cells.size), **cells.sums(rows, SUMS[1:])}
    return _rows(cells.keys, sums, {**counts, "latency": latency})


def roll_up_scores(scores: pa.Table, interactions: pa.Table) -> pa.Table:
    """Rows of `scores` → partial rows with score histograms only (n is 0: serving counted the request already).

    `interactions`: the rows that were scored; `request_id` and the dimensions are used. A score of any other request is a
    `KeyError`. Labels, and rows without a value, are left out.
    """
    scores = scores.filter(pc.is_valid(scores.column("value")))
    scored = pc.index_in(scores.column("request_id"), interactions.column("request_id"))
    if scored.null_count:
        raise KeyError(scores.filter(pc.is_null(scored)).column("request_id")[0].as_py())
    cells = Cells.group(scores.column("received_at"), interactions.select(DIMENSIONS).take(scored))
    entries = Entries.binned(cells.of, scores.column("name"), scores.column("value"), score_bins)
    return _rows(cells.keys, {}, {"scores": entries})


def merge(partials: pa.Table) -> pa.Table:
    """Partial rows → as few as say the same: one for each bucket and slice."""
    cells = Cells.group(partials.column("bucket"), partials)
    nested = {name: Entries.unpack(partials.column(name)).regrouped(cells.of) for name in (*COUNTED, *HISTOGRAMS)}
    return _rows(cells.keys, cells.sums(partials, SUMS), nested)


class Rollups:
    """Sums over a stretch of time, in buckets of `bucket_s` seconds: series have one entry a bucket, oldest first.

    `times`: where each bucket starts (datetime64[s], UTC). `n`, `input_tokens`, `output_tokens`: series of counts; `cost`:
    series of USD.
    """

    def __init__(
        self,
        partials: pa.Table,
        start: int,
        end: int,
        bucket_s: int,
        latencies: Collection[str] = LATENCIES,
        scores: bool = True,
    ) -> None:
        self._latencies = latencies
        self._scores = scores
        step = bucket_s * 1_000_000
        origin = start - start % step
        self._length = max(0, -(-(end - origin) // step))
        self._bucket = (partials.column("bucket").cast(pa.int64()).to_numpy() - origin) // step
        self._partials = partials
        self._matrices: dict[tuple[str, str], Ints] = {}
        starts = origin + step * np.arange(self._length)
        self.times = starts.astype("datetime64[us]").astype("datetime64[s]")
        self.n = self._series("n").astype(np.int64)
        self.input_tokens = self._series("input_tokens").astype(np.int64)
        self.output_tokens = self._series("output_tokens").astype(np.int64)
        self.cost = self._series("cost_usd")

    @classmethod
    def read(
        cls,
        lake: Lake,
        start: Time,
        end: Time,
        *,
        tenant: str | None = None,
        route: str | None = None,
        model: str | None = None,
        release: str | None = None,
        bucket_s: int = BUCKET_S,
        latencies: Collection[str] = LATENCIES,
        scores: bool = True,
    ) -> Self:
        """What happened in [start, end), replays left out; None as a slice means all.

        `bucket_s` is a multiple of 300 (else `ValueError`), and buckets start at multiples of it since the epoch. The
        5 minutes in which `start` lies count whole. `latencies`, `scores`: what is read beside the counts, which saves
        most of the time; what was not read cannot be asked for.
        """
        if bucket_s <= 0 or bucket_s % BUCKET_S:
            raise ValueError(f"bucket_s must be a multiple of {BUCKET_S}, not {bucket_s}")
        first, last = microseconds(start), microseconds(end)
        first -= first % BUCKET
        wanted = {"tenant": tenant, "route": route, "model": model, "release": release}
        slices = {name: value for name, value in wanted.items() if value is not None}
        conditions = "".join(f" AND {name} = ${name}" for name in slices)
        unread = sorted(set(latencies) - set(LATENCIES))
        if unread:
            raise ValueError(f"there is no latency {', '.join(unread)}; there are {', '.join(LATENCIES)}")
        # What is read of a part are its own columns, and names are spelled out: so DuckDB decodes nothing else, and sees
        # which row groups hold none of it.
        reads = [(("counts",), (*SUMS, *COUNTED)), (latencies, ("latency",)), (("scores",) if scores else (), ("scores",))]
        partials = lake.query(
            " UNION ALL BY NAME ".join(
                f"SELECT bucket, {', '.join(columns)} FROM rollups WHERE source <> 'replay' AND (part IS NULL OR part IN "
                f"({', '.join(repr(part) for part in sorted(parts))})) AND bucket >= make_timestamptz($first) "
                "AND bucket < make_timestamptz($last) AND date BETWEEN make_timestamptz($first)::DATE "
                f"AND make_timestamptz($last)::DATE{conditions}"
                for parts, columns in reads
                if parts
            ),
            {"first": first, "last": last, **slices},
        )
        return cls(partials, first, last, bucket_s, frozenset(latencies), scores)

    @property
    def tokens(self) -> Ints:
        """Input and output tokens together, a series."""
        return self.input_tokens + self.output_tokens

    def counts(self, which: Counted) -> dict[str, Ints]:
        """Requests by status, action or category: name → series. Every status is there, 0 where there was none."""
        known = STATUSES if which == "statuses" else ()
        return {name: self._matrix(which, name)[:, 0] for name in dict.fromkeys((*known, *self._names(which)))}

    def percentile(self, name: str, q: float) -> float:
        """The latency (ms) that a share `q` in [0, 1] of all requests stayed within; NaN without any. See `LATENCIES`."""
        return float(_quantiles(self._latency(name).sum(axis=0, keepdims=True), q)[0])

    def percentile_series(self, name: str, q: float) -> Floats:
        """`percentile` of each bucket; NaN where there was no request."""
        return _quantiles(self._latency(name), q)

    @property
    def score_names(self) -> tuple[str, ...]:
        """The scores that were rolled up in this stretch, sorted."""
        return tuple(sorted(self._names("scores")))

    def score_counts(self, name: str) -> Ints:
        """How many scores fell into each of the 50 equal bins of [0, 1]: shape (buckets, 50)."""
        matrix = self._matrix("scores", name)
        return np.pad(matrix, ((0, 0), (0, SCORE_BINS - matrix.shape[1])))

    def score_mean(self, name: str) -> Floats:
        """The mean score of each bucket, at most 0.01 off; NaN where there is none."""
        counts = self.score_counts(name)
        return _ratio(counts @ ((np.arange(SCORE_BINS) + 0.5) / SCORE_BINS), counts.sum(axis=1))

    def score_share(self, name: str, at_least: float) -> Floats:
        """The share of each bucket's scores that reach `at_least` (exact for multiples of 0.02); NaN without scores."""
        counts = self.score_counts(name)
        return _ratio(counts[:, int(score_bins(np.array([at_least]))[0]) :].sum(axis=1), counts.sum(axis=1))

    def _series(self, column: str) -> Floats:
        values = self._partials.column(column).fill_null(0).to_numpy()
        sums: Floats = np.bincount(self._bucket, weights=values, minlength=self._length).astype(np.float64)
        return sums

    def _latency(self, name: str) -> Ints:
        if name not in LATENCIES:
            raise ValueError(f"there is no latency {name!r}; there are {', '.join(LATENCIES)}")
        if name not in self._latencies:
            raise ValueError(f"latency {name} was not read")
        return self._matrix("latency", name)

    def _read(self, column: str) -> pa.ChunkedArray:
        if column == "scores" and not self._scores:
            raise ValueError("scores were not read")
        if column not in self._partials.column_names:
            return pa.chunked_array([], ROLLUPS.field(column).type)
        return self._partials.column(column)

    def _names(self, column: str) -> tuple[str, ...]:
        """Whatever there are histograms or counts of."""
        _, items = owned(self._read(column))
        return tuple(items.field("name").unique().to_pylist())

    def _matrix(self, column: str, name: str) -> Ints:
        """Counts of one histogram: shape (buckets, bins), as many bins as it needs and at least one."""
        key = (column, name)
        if key not in self._matrices:
            self._matrices[key] = tally(self._read(column), name, self._bucket, self._length)
        return self._matrices[key]


def _statuses(rows: pa.Table) -> Ints:
    """`status_of` each row, as its number in `STATUSES`."""
    code = rows.column("status").to_numpy()
    failed = pc.is_valid(rows.column("error")).to_numpy()
    withheld = [pc.equal(rows.column(name), "content_filter").fill_null(False) for name in ("finish_reason", "error")]
    outcomes: list[tuple[Status, NDArray[np.bool_]]] = [
        ("blocked", pc.or_(*withheld).to_numpy()),
        ("rejected", (code >= 400) & (code <= 498)),
        ("ok", (code < 400) & ~failed),
    ]
    numbers = [STATUSES.index(status) for status, _ in outcomes]
    return np.select([applies for _, applies in outcomes], numbers, STATUSES.index("error"))


def _categories(verdicts: pa.ChunkedArray) -> Entries:
    """By row, the categories of which something was found: each counts once, however many verdicts have it."""
    rows, items = owned(verdicts)
    found = pc.invert(pc.is_in(items.field("action"), pa.array(["pass", "unknown"])))
    entries = Entries.counted(rows[found.to_numpy(zero_copy_only=False)], items.field("category").filter(found)).summed()
    return replace(entries, counts=np.ones_like(entries.counts))


def _latencies(rows: pa.Table, served: NDArray[np.bool_]) -> Entries:
    """By row, the bins of its stages and of the request as a whole. `served`: not rejected."""
    owners, stages = owned(rows.column("stages"))
    ran = pc.not_equal(stages.field("status"), "skipped")
    columns = [(owners, stages.field("name"), pc.if_else(ran, stages.field("ms"), None))]
    for name in ("total", "overhead", "ttft", "tpot"):
        values = rows.column(f"{name}_ms").combine_chunks()
        if name in ("total", "overhead"):
            values = pc.if_else(pa.array(served), values, None)
        columns.append((np.arange(rows.num_rows), pa.repeat(name, rows.num_rows), values))
    of, names, values = zip(*columns, strict=True)
    return Entries.binned(np.concatenate(of), pa.chunked_array(names), pa.chunked_array(values), latency_bins)


def _rows(keys: pa.Table, sums: Mapping[str, NDArray[Any]], nested: Mapping[str, Entries]) -> pa.Table:
    """Rows of `rollups`: of each cell one for each part that it has, a part's rows together, so that readers skip the
    others."""
    tables = []
    if sums:
        counts: dict[str, pa.Array] = {name: nested[name].pack_counts(keys.num_rows) for name in COUNTED}
        tables.append(_part("counts", keys, {**sums, **counts}))
    for column in HISTOGRAMS:
        if column in nested:
            cells, names, histograms = nested[column].histograms()
            part = names if column == "latency" else "scores"
            tables.append(_part(part, keys.take(pa.array(cells)), {column: histograms}))
    return pa.concat_tables(tables)


def _part(part: str | pa.Array, keys: pa.Table, values: Mapping[str, Any]) -> pa.Table:
    """Rows that hold `part` (one for all, or one for each). What is not given is zero or empty."""
    size = keys.num_rows
    bucket = keys.column("bucket").cast(ROLLUPS.field("bucket").type)
    columns = {"date": bucket.cast(pa.date32()), "bucket": bucket, **{name: keys.column(name) for name in DIMENSIONS}}
    columns |= {"part": pa.repeat(part, size) if isinstance(part, str) else part, **values}
    columns["schema_version"] = np.full(size, SCHEMA_VERSION)
    nothing = np.zeros(size + 1, np.int32)
    for field in ROLLUPS:
        if field.name not in columns and pa.types.is_list(field.type):
            columns[field.name] = pa.ListArray.from_arrays(nothing, pa.array([], field.type.value_type))
        elif field.name not in columns:
            columns[field.name] = nothing[:size]
    return pa.table({field.name: columns[field.name] for field in ROLLUPS}, schema=ROLLUPS)


def _quantiles(counts: Ints, q: float) -> Floats:
    """Per row of (rows, bins) the value of rank ceil(q·n) (at least 1), as its bin stands for it."""
    if not 0 <= q <= 1:
        raise ValueError(f"q is a share in [0, 1], not {q}")
    below = counts.cumsum(axis=1)
    total = below[:, -1]
    rank = np.maximum(1, np.ceil(q * total - 1e-9))
    bins = (below < rank[:, None]).sum(axis=1)
    return np.where(total > 0, latency_of(bins), np.nan)


def _ratio(part: Floats | Ints, whole: Ints) -> Floats:
    ratios: Floats = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return ratios
