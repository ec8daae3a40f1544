"""Settings of what looks at what was kept: evaluation jobs, what they hold a window against, alerts, the dashboard."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from watchkeeper.settings.values import (
    Cron,
    Duration,
    HttpUrl,
    JobName,
    Milliseconds,
    Port,
    Reference,
    Section,
    Share,
    seconds,
)


class Evaluations(Section):
    """`toxicity`: a Detoxify model name (original, unbiased, multilingual), a checkpoint file, or `embedded` for ours."""

    engine: Literal["local"] = "local"
    min_n: Annotated[int, Field(ge=1)] = 30
    toxicity: str = "embedded"


class Objectives(Section):
    """What the jobs quality, safety and latency hold a window against; what is false is measured and not judged.

    At least: the mean of `relevance` and `support`, the shares of answers that are `grounded` and in the prompt's language
    (`language_match`). At most: the mean of `repetition`, the shares of `refusal` and `truncated`; of requests that some
    guard could not judge (`unjudged`); of answers that a guard blocked or flagged (`outputs_blocked`, `outputs_flagged`);
    of requests that failed (`errors`); the 95th percentiles of the whole request, the first token, the time per token and
    what is not generation.
    """

    relevance: Share = 0.3
    support: Share = None
    grounded: Share = 0.5
    language_match: Share = 0.9
    repetition: Share = 0.2
    refusal: Share = 0.2
    truncated: Share = None
    unjudged: Share = 0.1
    outputs_blocked: Share = 0.1
    outputs_flagged: Share = None
    errors: Share = 0.05
    total_p95_ms: Milliseconds = 30_000
    ttft_p95_ms: Milliseconds = 10_000
    tpot_p95_ms: Milliseconds = None
    overhead_p95_ms: Milliseconds = 1_000


class ScheduledJob(Section):
    """When a job looks, and at what: contiguous windows as long as `window`, at ticks that come `every` so often, or by
    `cron` (five fields, UTC). `reference`: what drift compares with. `min_n` None: that of `evaluations`."""

    job: JobName
    every: Duration | None = None
    cron: Cron | None = None
    window: Duration | None = None
    reference: Reference = "previous"
    min_n: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.every is None) == (self.cron is None):
            raise ValueError("a job has either `every` or `cron`")
        if self.every is None and self.window is None:
            raise ValueError("a job with `cron` needs a `window`")
        return self

    @property
    def window_s(self) -> int:
        """How long a window is, in seconds."""
        return seconds(self.window or self.every or "")


JOB_NAMES: Final[tuple[JobName, ...]] = ("toxicity", "quality", "safety", "latency", "drift")
"""In the order in which the same window is judged: drift also compares what the others scored."""

DEFAULT_JOBS: Final = tuple(ScheduledJob(job=name, every="15m") for name in JOB_NAMES)


def once_each(jobs: tuple[ScheduledJob, ...]) -> tuple[ScheduledJob, ...]:
    names = [job.job for job in jobs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{twice[0]} is there twice: its verdicts would be told apart by nobody")
    return jobs


class Alerts(Section):
    """`webhook`: where a verdict that turns is posted to; None: nowhere. `timeout`: for its answer."""

    webhook: HttpUrl | None = None
    timeout: Duration = "5s"


class Dashboard(Section):
    """`key_env`: the variable that holds the API key with which it gives feedback to a gateway that wants one."""

    host: str = "127.0.0.1"
    port: Port = 8050
    key_env: str | None = None
