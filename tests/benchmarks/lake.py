"""What the lake costs: taking a million records in the shipper's batches, and charts over them, against named peers.

    python tests/benchmarks/lake.py 100000     # fewer of them

Records are as wide as the gateway's, with ten stages and some verdicts, no embeddings, and spread over 24 hours and 48
slices (tenant, route, model, release), some of them rare. A stage's times spread as in traffic: the model's most.
"""

import random
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
from deltalake import write_deltalake
from table import RUNS, Row, alternate, figure, show

from watchkeeper.lake.interactions import to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import Rollups, roll_up_rows
from watchkeeper.lake.upkeep import tidy
from watchkeeper.record import STAGES, Message, Record, Stage, Verdict

REQUESTS: Final = 1_000_000
BATCH: Final = 4_000
"""What the shipper appends at most at a time."""
FEW: Final = 10_000
"""The costs of so many at first are compared with those of so many more at the end."""
UPKEEP: Final = 100_000
"""After so many upkeep runs; the shipper's runs every 30 seconds, in which it appends three times as many."""
DIFFERENT: Final = 4_000
"""So many records are made; the others are these with another id and another time."""

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
HOURS: Final = 24
ROUTES: Final = ("support", "search", "batch", "default")
WORDS: Final = tuple(Path(__file__).parents[2].joinpath("README.md").read_text().split())
RAW: Final = """
SELECT time_bucket(INTERVAL 5 MINUTE, received_at) AS bucket, quantile_cont(stage.ms, [0.5, 0.95, 0.99])
FROM (SELECT received_at, unnest(stages) AS stage FROM interactions WHERE $route IS NULL OR route = $route)
WHERE stage.name = 'generate' GROUP BY bucket ORDER BY bucket
"""


@dataclass
class Spent:
    """CPU seconds of each batch so far: `append` (records → Arrow → rollups → lake), and `upkeep`. `wall`: of both."""

    append: list[float] = field(default_factory=list)
    upkeep: list[float] = field(default_factory=list)
    wall: float = 0.0


def rows(requests: int = REQUESTS) -> Iterator[Row]:
    pool = _pool()
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        spent = _fill(lake, pool, requests)
        yield from _appending(spent, pool, requests)
        for route in (None, ROUTES[0]):
            ours, theirs = alternate(lambda: _chart(lake, route), lambda: _raw(lake, route))  # noqa: B023
            which = "all routes" if route is None else "one route"
            what = f"CPU of p50, p95, p99 of a stage by 5 minutes over 24 h, {which}, {requests:,} requests"
            yield Row(what, figure(ours, "ms"), "DuckDB over the raw rows", figure(theirs, "ms"))


def _appending(spent: Spent, pool: Sequence[Record], requests: int) -> Iterator[Row]:
    peer = _plainly(pool)
    name = "dicts → Arrow → deltalake, no rollups, files never joined"
    # In fifths, so that a figure has a spread.
    fifth = max(1, len(spent.append) // RUNS)
    fifths = [slice(start, start + fifth) for start in range(0, fifth * RUNS, fifth)]
    alone = [BATCH * len(spent.append[part]) / sum(spent.append[part]) for part in fifths]
    whole = [BATCH * len(spent.append[part]) / sum(spent.append[part] + spent.upkeep[part]) for part in fifths]
    what = f"records appended a CPU second, Arrow and rollups included, to {requests:,}"
    yield Row(what, figure(alone, "/s"), name, figure(peer, "/s"), less_is_better=False)
    yield Row(f"the same with upkeep; {requests / spent.wall:,.0f} a second of wall time", figure(whole, "/s"),
              name, figure(peer, "/s"), less_is_better=False)  # fmt: skip
    few = max(1, FEW // BATCH)
    last, first = (
        [seconds / BATCH * 1e6 for seconds in part] for part in (spent.append[-few * 4 :], spent.append[1 : 1 + few * 4])
    )
    yield Row(f"CPU of appending a record, the last of {requests:,}", figure(last, "µs"), "the first", figure(first, "µs"))


def _fill(lake: Lake, pool: Sequence[Record], requests: int) -> Spent:
    """Appends in the order of time, as the shipper does it, with its upkeep beside and at the end."""
    rng, spent = random.Random(2), Spent()
    for number, start in enumerate(range(0, requests, BATCH)):
        batch = [
            msgspec.structs.replace(
                pool[at * 7 % DIFFERENT],
                request_id=uuid.UUID(int=rng.getrandbits(128)).hex,
                received_at=int((START + timedelta(hours=HOURS * at / requests)).timestamp() * 1e6),
            )
            for at in range(start, start + BATCH)
        ]
        began = time.perf_counter()
        spent.append.append(_timed(lambda: _append(lake, batch, number)))  # noqa: B023
        due = (start + BATCH) % UPKEEP < BATCH or start + BATCH >= requests
        spent.upkeep.append(_timed(lambda: tidy(lake)) if due else 0.0)
        spent.wall += time.perf_counter() - began
    return spent


def _append(lake: Lake, batch: Sequence[Record], number: int) -> None:
    rows = to_arrow(batch)
    lake.append("interactions", rows, app_id="segment", version=number + 1)
    lake.append("rollups", roll_up_rows(rows), app_id="segment", version=number + 1)


def _plainly(pool: Sequence[Record]) -> list[float]:
    """Records a CPU second of the plain way."""
    with tempfile.TemporaryDirectory() as folder:

        def append() -> None:
            plain = [_plain(record) for record in pool[:BATCH]]
            write_deltalake(folder, pa.Table.from_pylist(plain), mode="append")

        append()
        return [BATCH / _timed(append) for _ in range(RUNS)]


def _plain(record: Record) -> dict[str, object]:
    values: dict[str, object] = msgspec.to_builtins(record)
    stages = [{**stage, "attributes": None} for stage in msgspec.to_builtins(record.stages)]
    return values | {"stages": stages, "tags": str(record.tags), "redactions": str(record.redactions)}


def _chart(lake: Lake, route: str | None) -> float:
    def read() -> None:
        chart = Rollups.read(
            lake, START, START + timedelta(hours=HOURS), route=route, latencies=("generate",), scores=False
        )
        for share in (0.5, 0.95, 0.99):
            chart.percentile_series("generate", share)

    return _timed(read) * 1000


def _raw(lake: Lake, route: str | None) -> float:
    return _timed(lambda: lake.query(RAW, {"route": route})) * 1000


def _timed(work: Callable[[], object]) -> float:
    """CPU seconds, of all threads."""
    started = time.process_time()
    work()
    return time.process_time() - started


def _pool() -> list[Record]:
    rng = random.Random(1)
    return [_record(rng) for _ in range(DIFFERENT)]


def _record(rng: random.Random) -> Record:
    asked = " ".join(rng.choices(WORDS, k=25))
    verdicts = [Verdict(guard, "prompt", guard, "pass", 0.01, "none", "1") for guard in ("pii", "toxicity", "injection")]
    if rng.random() < 0.1:
        verdicts.append(Verdict("pii", "output", "pii", "redact", None, "email", "1"))
    return Record(
        request_id="",
        received_at=0,
        tenant=rng.choices("abc", (7, 2, 1))[0],
        user=f"u{rng.randrange(500)}",
        session=f"s{rng.randrange(5000)}",
        route=rng.choices(ROUTES, (4, 3, 2, 1))[0],
        release=rng.choices(("watchkeeper@1", "watchkeeper@2"), (9, 1))[0],
        digest="d" * 64,
        model=rng.choices(("small", "large"), (4, 1))[0],
        upstream="local",
        prompt=(Message("system", "Answer briefly."), Message("user", asked)),
        prompt_text=asked,
        output_text=" ".join(rng.choices(WORDS, k=60)),
        language="en",
        finish_reason="stop",
        input_tokens=rng.randrange(500),
        output_tokens=rng.randrange(300),
        ttft_ms=rng.lognormvariate(4, 0.6),
        tpot_ms=rng.lognormvariate(2, 0.3),
        total_ms=rng.lognormvariate(6, 0.6),
        overhead_ms=rng.lognormvariate(2, 0.4),
        stages=tuple(
            Stage(name, float(at), rng.lognormvariate(6 if name == "generate" else 1, 0.6 if name == "generate" else 0.4))
            for at, name in enumerate(STAGES)
        ),
        verdicts=tuple(verdicts),
    )


if __name__ == "__main__":
    show(rows(int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS))
