"""What a chart costs: percentiles of a stage by five minutes, from rollups, against DuckDB over the lake's raw rows."""

import random
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from table import Row, alternate, figure

from watchkeeper.lake.interactions import to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import Rollups, roll_up_rows
from watchkeeper.lake.upkeep import tidy
from watchkeeper.record import STAGES, Record, Stage

REQUESTS = 100_000
BATCH = 1_000
"""What the shipper appends at most at a time."""
START = datetime(2026, 1, 1, tzinfo=UTC)
HOURS = 24
RAW = """
SELECT time_bucket(INTERVAL 5 MINUTE, received_at) AS bucket, quantile_cont(stage.ms, [0.5, 0.95, 0.99])
FROM (SELECT received_at, unnest(stages) AS stage FROM interactions) WHERE stage.name = 'generate'
GROUP BY bucket ORDER BY bucket
"""


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        rng = random.Random(1)
        for start in range(0, REQUESTS, BATCH):  # in the order of time, and tidied, as the shipper does it
            records = [_record(rng, START + timedelta(hours=HOURS * at / REQUESTS)) for at in range(start, start + BATCH)]
            rows = to_arrow(records)
            lake.append("interactions", rows)
            lake.append("rollups", roll_up_rows(rows))
            tidy(lake)
        ours, theirs = alternate(lambda: _rollups(lake), lambda: _raw(lake))
    what = f"CPU of p50, p95, p99 of a stage by 5 minutes over 24 h, {REQUESTS:,} requests"
    yield Row(what, figure(ours, "ms"), "DuckDB over the raw rows", figure(theirs, "ms"))


def _record(rng: random.Random, at: datetime) -> Record:
    return Record(
        request_id=uuid.UUID(int=rng.getrandbits(128)).hex,
        received_at=int(at.timestamp() * 1e6),
        model="m",
        total_ms=rng.lognormvariate(6, 1),
        stages=tuple(Stage(name, 0.0, rng.lognormvariate(2, 1)) for name in STAGES),
    )


def _rollups(lake: Lake) -> float:
    started = time.process_time()
    read = Rollups.read(lake, START, START + timedelta(hours=HOURS))
    for share in (0.5, 0.95, 0.99):
        read.percentile_series("generate", share)
    return (time.process_time() - started) * 1000


def _raw(lake: Lake) -> float:
    started = time.process_time()
    lake.query(RAW)
    return (time.process_time() - started) * 1000
