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
        ("retrieved", pa.int32()),
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
        ("replay", pa.bool_()),
        ("schema_version", pa.int32()),
    ]
)
"""`replay`: of a request that an experiment replayed; such rows have no rollup."""

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
        ("judged_by", pa.string()),
        ("scheduled", pa.bool_()),
        ("schema_version", pa.int32()),
    ]
)
"""`judged_by`: the job and its scorers, each name@version, separated by blanks."""

ROLLUPS: Final = pa.schema(
    [
        ("date", pa.date32()),
        ("bucket", TIME),
        ("tenant", pa.string()),
        ("route", pa.string()),
        ("model", pa.string()),
        ("release", pa.string()),
        ("source", pa.string()),
        ("part", pa.string()),
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

"""Several rows add up to one cell (bucket and slice). `part`: what a row holds of it: `counts` (n, tokens, cost, statuses,
actions, categories), `scores`, or the name of the one latency whose histogram it has. Null: all of them, as rows had it
before there were parts. A chart reads the parts that it shows; Parquet skips the others."""

ALERTS: Final = pa.schema(
    [
        ("date", pa.date32()),
        ("alert_id", pa.string()),
        ("event", pa.string()),
        ("at", TIME),
        ("job", pa.string()),
        ("evaluation_id", pa.string()),
        ("window_start", TIME),
        ("window_end", TIME),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("evidence", pa.string()),
        ("by", pa.string()),
        ("schema_version", pa.int32()),
    ]
)
"""An event log. `event`: fired, resolved, acknowledged, silenced, or notified (the webhook took it). `evidence`: JSON."""

FEEDBACK: Final = pa.schema(
    [
        ("date", pa.date32()),
        ("feedback_id", pa.string()),
        ("request_id", pa.string()),
        ("received_at", TIME),
        ("tenant", pa.string()),
        ("name", pa.string()),
        ("score", pa.float64()),
        ("label", pa.string()),
        ("comment", pa.string()),
        ("user", pa.string()),
        ("schema_version", pa.int32()),
    ]
)
"""What people said of answers. `received_at`: when they said it."""

EXPERIMENTS: Final = pa.schema(
    [
        ("date", pa.date32()),
        ("experiment_id", pa.string()),
        ("started_at", TIME),
        ("ended_at", TIME),
        ("dataset", pa.string()),
        ("dataset_digest", pa.string()),
        ("release", pa.string()),
        ("digest", pa.string()),
        ("n", pa.int64()),
        ("failed", pa.int64()),
        ("metrics", pa.string()),
        ("mlflow_run_id", pa.string()),
        ("mlflow_parent_id", pa.string()),
        ("schema_version", pa.int32()),
    ]
)
"""One row for each release that an experiment replayed a dataset on. Its answers are rows of `interactions` with source
`replay` and the tags `experiment` and `case`, its scores rows of `scores` whose `evaluation_id` is the experiment's."""

COMPARISONS: Final = pa.schema(
    [
        ("date", pa.date32()),
        ("comparison_id", pa.string()),
        ("compared_at", TIME),
        ("experiment_id", pa.string()),
        ("dataset", pa.string()),
        ("dataset_digest", pa.string()),
        ("base", pa.string()),
        ("base_digest", pa.string()),
        ("candidate", pa.string()),
        ("candidate_digest", pa.string()),
        ("n", pa.int64()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("policy", pa.string()),
        ("result", pa.string()),
        ("mlflow_run_id", pa.string()),
        ("schema_version", pa.int32()),
    ]
)
"""Two releases of an experiment, held against each other. `verdict`, `policy`: of a gate (pass, fail, unknown), null of a
mere comparison. `policy`, `result`: JSON."""

RELEASES: Final = pa.schema(
    [
        ("date", pa.date32()),
        ("at", TIME),
        ("event", pa.string()),
        ("release", pa.string()),
        ("digest", pa.string()),
        ("previous", pa.string()),
        ("previous_digest", pa.string()),
        ("reason", pa.string()),
        ("override", pa.bool_()),
        ("comparison_id", pa.string()),
        ("by", pa.string()),
        ("schema_version", pa.int32()),
    ]
)
"""An event log. `event`: registered, promoted or rolled_back. `comparison_id`: the gate that let it pass."""

TABLES: Final[dict[str, pa.Schema]] = {
    "interactions": INTERACTIONS,
    "scores": SCORES,
    "evaluations": EVALUATIONS,
    "rollups": ROLLUPS,
    "alerts": ALERTS,
    "feedback": FEEDBACK,
    "experiments": EXPERIMENTS,
    "comparisons": COMPARISONS,
    "releases": RELEASES,
}
