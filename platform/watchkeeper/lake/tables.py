"""The lake's tables: names, columns, partitions. Partitioned by UTC `date`; times are `timestamp[us, UTC]`.

Columns are contracts: they are added, never renamed. Knows nothing of how rows are made or read.
"""

from typing import Final

import pyarrow as pa

TIME: Final = pa.timestamp("us", tz="UTC")

STAGE: Final = pa.struct(
    [("name", pa.string()), ("offset_ms", pa.float64()), ("ms", pa.float64()), ("status", pa.string())]
)
VERDICT: Final = pa.struct(
    [
        ("guard", pa.string()),
        ("target", pa.string()),
        ("category", pa.string()),
        ("action", pa.string()),
        ("score", pa.float64()),
        ("rule", pa.string()),
        ("version", pa.string()),
    ]
)
SOURCE: Final = pa.struct([("id", pa.string()), ("title", pa.string()), ("score", pa.float64()), ("text", pa.string())])
COUNT: Final = pa.struct([("name", pa.string()), ("n", pa.int64())])
HISTOGRAM: Final = pa.struct([("name", pa.string()), ("bins", pa.list_(pa.int32())), ("counts", pa.list_(pa.int64()))])
"""A sparse log-bin histogram: `bins` are bin numbers (see rollup.py), `counts` what fell into each."""

INTERACTIONS: Final = pa.schema(
    [
        ("date", pa.date32()),
        ("request_id", pa.string()),
        ("received_at", TIME),
        ("tenant", pa.string()),
        ("user", pa.string()),
        ("session", pa.string()),
        ("route", pa.string()),
        ("tags", pa.string()),
        ("release", pa.string()),
        ("digest", pa.string()),
        ("model", pa.string()),
        ("upstream", pa.string()),
        ("replica", pa.string()),
        ("attempts", pa.int32()),
        ("stream", pa.bool_()),
        ("prompt", pa.string()),
        ("prompt_text", pa.string()),
        ("output_text", pa.string()),
        ("language", pa.string()),
        ("finish_reason", pa.string()),
        ("error", pa.string()),
        ("status", pa.int32()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
        ("ttft_ms", pa.float64()),
        ("tpot_ms", pa.float64()),
        ("total_ms", pa.float64()),
        ("overhead_ms", pa.float64()),
        ("stages", pa.list_(STAGE)),
        ("verdicts", pa.list_(VERDICT)),
        ("action", pa.string()),
        ("sources", pa.list_(SOURCE)),
        ("entities", pa.list_(pa.string())),
        ("redactions", pa.list_(COUNT)),
        ("support", pa.float64()),
        ("embedding", pa.binary()),
        ("source", pa.string()),
        ("schema_version", pa.int32()),
    ]
)

SCORES: Final = pa.schema(
    [
        ("date", pa.date32()),
        ("request_id", pa.string()),
        ("received_at", TIME),
        ("scorer", pa.string()),
        ("scorer_version", pa.string()),
        ("name", pa.string()),
        ("kind", pa.string()),
        ("value", pa.float64()),
        ("label", pa.string()),
        ("error", pa.string()),
        ("explanation", pa.string()),
        ("scored_at", TIME),
        ("evaluation_id", pa.string()),
        ("schema_version", pa.int32()),
    ]
)

EVALUATIONS: Final = pa.schema(
    [
        ("date", pa.date32()),
        ("evaluation_id", pa.string()),
        ("job", pa.string()),
        ("evaluated_at", TIME),
        ("window_start", TIME),
        ("window_end", TIME),
        ("lake_version", pa.int64()),
        ("n", pa.int64()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("metrics", pa.string()),
        ("mlflow_run_id", pa.string()),
        ("schema_version", pa.int32()),
    ]
)

ROLLUPS: Final = pa.schema(
    [
        ("date", pa.date32()),
        ("bucket", TIME),
        ("tenant", pa.string()),
        ("route", pa.string()),
        ("model", pa.string()),
        ("release", pa.string()),
        ("source", pa.string()),
        ("n", pa.int64()),
        ("latency", pa.list_(HISTOGRAM)),
        ("statuses", pa.list_(COUNT)),
        ("actions", pa.list_(COUNT)),
        ("categories", pa.list_(COUNT)),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
        ("scores", pa.list_(HISTOGRAM)),
        ("schema_version", pa.int32()),
    ]
)

TABLES: Final[dict[str, pa.Schema]] = {
    "interactions": INTERACTIONS,
    "scores": SCORES,
    "evaluations": EVALUATIONS,
    "rollups": ROLLUPS,
}
