"""Settings of where requests are kept, and for how long: MLflow, the lake, collectors of others."""

from typing import Annotated, Final

from pydantic import Field

from watchkeeper.settings.values import Days, Duration, HttpUrl, Section


class Sampling(Section):
    """Of which requests MLflow gets a trace: of all that failed, that a guard did not let pass or that took `slow_ms` or
    more, and of this `share` of the rest. The lake gets all."""

    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    slow_ms: Annotated[float, Field(gt=0)] = 10_000


class Mlflow(Section):
    """`prompt`: the name of the MLflow prompt whose versions are the releases."""

    uri: HttpUrl = "http://127.0.0.1:5000"
    experiment: Annotated[str, Field(min_length=1)] = "watchkeeper"
    prompt: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")] = "watchkeeper"
    start: bool = True
    sampling: Sampling = Sampling()


class Collector(Section):
    """A server that takes OTLP over HTTP and gets every request as GenAI spans. `url`: whole, with its `/v1/traces`.
    `headers_env`: the variable that holds headers, as `authorization=Bearer …,x-team=a`. `content`: whether what people
    and the model wrote goes there too."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
    url: HttpUrl
    headers_env: str | None = None
    content: bool = True


def named_apart(collectors: tuple[Collector, ...]) -> tuple[Collector, ...]:
    names = [collector.name for collector in collectors]
    taken = [name for name in names if name in SINKS or names.count(name) > 1]
    if taken:
        raise ValueError(f"{taken[0]} is the name of another sink: its cursors would be told apart by nobody")
    return collectors


SINKS: Final = ("spool", "mlflow", "lake")
"""Names that no collector may have."""


class Lake(Section):
    """`uri` None: the folder `lake` under `data`. `history`: how long older versions of its tables stay readable; each
    commit of that time makes every later one a little slower."""

    uri: str | None = None
    storage_options: dict[str, str] = Field(default_factory=dict)
    history: Duration = "2h"


class Retention(Section):
    """How long what was written is kept: whole days (`90d`), None for ever. Days are UTC, and go as a whole.

    By table of the lake; `scores` and `feedback` None: as long as `interactions`. `alerts`: what is open
    stays, with all that came after. `mlflow`: its traces.
    """

    interactions: Days | None = None
    scores: Days | None = None
    feedback: Days | None = None
    rollups: Days | None = None
    evaluations: Days | None = None
    alerts: Days | None = None
    mlflow: Days | None = None

    def days(self, name: str) -> int | None:
        """How many days `name` is kept; None: for ever."""
        own: str | None = getattr(self, name)
        if own is None and name in ("scores", "feedback"):
            own = self.interactions
        return None if own is None else int(own.removesuffix("d"))
