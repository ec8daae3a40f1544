"""The effective settings: one frozen `Settings`, from `watchkeeper.toml` and the environment.

Every key of the file is also an environment variable, `WATCHKEEPER_SECTION__KEY` (the environment wins). What is wrong is
one `SettingsError` that names file, line and key. Knows nothing of what the settings are used for.
"""

import contextlib
import os
import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as EnvError

from watchkeeper import cron as crontab

FILE_NAME = "watchkeeper.toml"
PREFIX = "WATCHKEEPER_"
_DURATION = re.compile(r"^(\d+)(s|m|h|d)$")
MIN_SPOOL_BYTES = 16_000_000
"""Less would be the logs of a few idle workers."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class SettingsError(Exception):
    """Wrong settings; the message is one line that says what to change and where."""


def seconds(duration: str) -> int:
    """`90s`, `5m`, `1h`, `7d` → seconds. Raises `ValueError` on anything else."""
    match = _DURATION.match(duration.strip())
    if match is None or int(match[1]) == 0:
        raise ValueError(f"a duration looks like 90s, 5m, 1h or 7d, not {duration!r}")
    return int(match[1]) * _SECONDS[match[2]]


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ValueError("must be a URL that starts with http:// or https://")
    return value.rstrip("/")


def _duration(value: str) -> str:
    seconds(value)
    return value


def _days(value: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,4}d", value):
        raise ValueError(f"is whole days, such as 90d, not {value!r}")
    return value


def _cron(value: str) -> str:
    crontab.parse(value)
    return value


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def _or_false(value: object) -> object:
    """`false` is no objective (TOML has no null); `true` is nothing."""
    if value is False or (isinstance(value, str) and value.lower() == "false"):
        return None
    if value is True:
        raise ValueError("is a number, or false for no objective")
    return value


def _reference(value: str) -> str:
    if value == "previous":
        return value
    with contextlib.suppress(ValueError):
        start, end = (_utc(datetime.fromisoformat(text)) for text in value.split(".."))
        if start < end:
            return value
    raise ValueError(f"a reference is `previous` or two times like 2026-04-01T09:00..2026-04-01T10:00, not {value!r}")


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Duration = Annotated[str, AfterValidator(_duration)]
Days = Annotated[str, AfterValidator(_days)]
Port = Annotated[int, Field(ge=1, le=65535)]
JobName = Literal["toxicity", "quality", "safety", "latency", "drift"]
Home = Annotated[Path, AfterValidator(Path.expanduser)]


def _as_written(value: float | None) -> float | bool:
    return False if value is None else float(value)


_SWITCHED_OFF = PlainSerializer(_as_written, when_used="json")
Share = Annotated[Annotated[float, Field(ge=0, le=1)] | None, BeforeValidator(_or_false), _SWITCHED_OFF]
Milliseconds = Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_or_false), _SWITCHED_OFF]


class Section(BaseModel):
    """A table of the file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Gateway(Section):
    """`durability`: an answer outlives the process's death, or also the machine's. `max_spool_bytes`: what the files of all
    workers may come to; near it, requests are refused until the shipper has made room."""

    host: str = "127.0.0.1"
    port: Port = 8080
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    durability: Literal["process", "power"] = "process"
    max_body_bytes: Annotated[int, Field(ge=1_000)] = 2_000_000
    max_in_flight: Annotated[int, Field(ge=1)] = 256
    max_spool_bytes: Annotated[int, Field(ge=MIN_SPOOL_BYTES)] = 4_000_000_000

    @property
    def url(self) -> str:
        """Where a process on this machine finds it: bound to every address, it answers on loopback too."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


class Traces(Section):
    """Other people's traces (`POST /v1/traces`). `settle`: how long nothing must have come of a trace whose root is there,
    until it is recorded; `idle`: of one without a root. `max_waiting_bytes`: beyond it, exports are refused until some are
    recorded; `max_body_bytes`: of one export, also when it is unpacked."""

    settle: Duration = "5s"
    idle: Duration = "5m"
    max_body_bytes: Annotated[int, Field(ge=1_000)] = 16_000_000
    max_waiting_bytes: Annotated[int, Field(ge=1_000_000)] = 512_000_000


class Price(Section):
    """USD per million tokens."""

    input: Annotated[float, Field(ge=0)] = 0.0
    output: Annotated[float, Field(ge=0)] = 0.0


class Upstream(Section):
    """Anything that speaks the OpenAI API. `context`: its window in tokens; `timeout`: until it has answered whole."""

    name: Annotated[str, Field(min_length=1)]
    base_url: HttpUrl
    model: Annotated[str, Field(min_length=1)]
    weight: Annotated[float, Field(gt=0)] = 1.0
    api_key_env: str | None = None
    price: Price = Price()
    context: Annotated[int, Field(ge=1)] = 8192
    timeout: Duration = "5m"


class Model(Section):
    """The embedded chat model: `name` of the packaged one, a folder, or a hub model's name."""

    name: str = "smollm2-135m-instruct"
    host: str = "127.0.0.1"
    port: Port = 8091
    threads: Annotated[int, Field(ge=0)] = 0
    price: Price = Price()


class Encoder(Section):
    """`base_url` of another OpenAI-compatible encoder, or host, port and model of ours."""

    base_url: HttpUrl | None = None
    model: str = "all-minilm-l6-v2"
    host: str = "127.0.0.1"
    port: Port = 8092
    threads: Annotated[int, Field(ge=0)] = 1
    api_key_env: str | None = None

    @property
    def url(self) -> str:
        """Where `/v1/embeddings` is found (ends in `/v1`)."""
        return self.base_url or f"http://{self.host}:{self.port}/v1"


class Stages(Section):
    """Which stages run; admit, route and generate always do."""

    preprocess: bool = True
    embed: bool = True
    ground: bool = True
    guard_in: bool = True
    check: bool = True
    guard_out: bool = True
    postprocess: bool = True


class Knowledge(Section):
    folders: tuple[Path, ...] = ()


class Guards(Section):
    """`denied_topics`: a topic's name and phrases that describe it (policy); `streaming`: hold the whole answer back,
    release it in windows that were judged, or audit only (never blocks)."""

    denied_topics: dict[str, tuple[str, ...]] = {}
    streaming: Literal["hold", "window", "audit"] = "window"


class Sampling(Section):
    """Of which requests MLflow gets a trace: of all that failed, that a guard did not let pass or that took `slow_ms` or
    more, and of this `share` of the rest. The lake gets all."""

    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    slow_ms: Annotated[float, Field(gt=0)] = 10_000


RedactionStyle = Literal["mask", "hash", "keep"]


def _known_categories(given: object) -> object:
    """Categories are known by their names only: one that is misspelt would go on being masked, or kept."""
    known = [name for name in Redaction.model_fields if name.isupper()]
    if isinstance(given, dict):
        # The environment's variables come in small letters.
        named = {name.upper() if name.upper() in known else name: value for name, value in given.items()}
        wrong = sorted(set(named) - set(Redaction.model_fields))
        if wrong:
            raise ValueError(f"there is no category {wrong[0]!r}; there are {', '.join(known)}")
        return named
    return given


class Redaction(Section):
    """What becomes of what is found in anything that is kept: `mask` → `[EMAIL]`, `hash` → the category and a keyed hash,
    `keep` → nothing. For all, and for each category that names its own. `key_env`: where the hash's key is; None: the
    file `redaction.key` under `data`."""

    default: RedactionStyle = "mask"
    key_env: str | None = None
    EMAIL: RedactionStyle | None = None
    PHONE: RedactionStyle | None = None
    CARD: RedactionStyle | None = None
    IBAN: RedactionStyle | None = None
    BANK_ACCOUNT: RedactionStyle | None = None
    SSN: RedactionStyle | None = None
    NATIONAL_ID: RedactionStyle | None = None
    PASSPORT: RedactionStyle | None = None
    LICENSE: RedactionStyle | None = None
    BIRTH_DATE: RedactionStyle | None = None
    ADDRESS: RedactionStyle | None = None
    IP: RedactionStyle | None = None
    MAC: RedactionStyle | None = None
    PASSWORD: RedactionStyle | None = None
    API_KEY: RedactionStyle | None = None
    TOKEN: RedactionStyle | None = None
    PRIVATE_KEY: RedactionStyle | None = None

    _known = model_validator(mode="before")(_known_categories)

    @property
    def styles(self) -> dict[str, RedactionStyle]:
        """The categories that have a style of their own."""
        return {name: style for name in type(self).model_fields if name.isupper() and (style := getattr(self, name))}


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


def _named_apart(collectors: tuple[Collector, ...]) -> tuple[Collector, ...]:
    names = [collector.name for collector in collectors]
    taken = [name for name in names if name in SINKS or names.count(name) > 1]
    if taken:
        raise ValueError(f"{taken[0]} is the name of another sink: its cursors would be told apart by nobody")
    return collectors


SINKS = ("spool", "mlflow", "lake")
"""Names that no collector may have."""


class Lake(Section):
    """`uri` None: the folder `lake` under `data`. `history`: how long older versions of its tables stay readable; each
    commit of that time makes every later one a little slower."""

    uri: str | None = None
    storage_options: dict[str, str] = {}
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
    cron: Annotated[str, AfterValidator(_cron)] | None = None
    window: Duration | None = None
    reference: Annotated[str, AfterValidator(_reference)] = "previous"
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


JOB_NAMES: tuple[JobName, ...] = ("toxicity", "quality", "safety", "latency", "drift")
"""In the order in which the same window is judged: drift also compares what the others scored."""

DEFAULT_JOBS = tuple(ScheduledJob(job=name, every="15m") for name in JOB_NAMES)


def _once_each(jobs: tuple[ScheduledJob, ...]) -> tuple[ScheduledJob, ...]:
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
    host: str = "127.0.0.1"
    port: Port = 8050


class Settings(BaseSettings):
    """Everything that can be set. `load()` makes it; nothing else does, but tests."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", case_sensitive=False
    )

    data: Path = Path(".watchkeeper")
    models: Home = Path("~/.cache/watchkeeper").expanduser()
    gateway: Gateway = Gateway()
    traces: Traces = Traces()
    upstreams: tuple[Upstream, ...] = ()
    model: Model = Model()
    encoder: Encoder = Encoder()
    stages: Stages = Stages()
    knowledge: Knowledge = Knowledge()
    guards: Guards = Guards()
    redaction: Redaction = Redaction()
    mlflow: Mlflow = Mlflow()
    lake: Lake = Lake()
    collectors: Annotated[tuple[Collector, ...], AfterValidator(_named_apart)] = ()
    retention: Retention = Retention()
    evaluations: Evaluations = Evaluations()
    objectives: Objectives = Objectives()
    jobs: Annotated[tuple[ScheduledJob, ...], AfterValidator(_once_each)] = DEFAULT_JOBS
    alerts: Alerts = Alerts()
    dashboard: Dashboard = Dashboard()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings

    @property
    def lake_uri(self) -> str:
        return self.lake.uri or str(self.data / "lake")

    @property
    def spool_folder(self) -> Path:
        return self.data / "spool"

    @property
    def starts_model(self) -> bool:
        """Whether the embedded chat model is what serves: no upstream is given."""
        return not self.upstreams

    @property
    def all_upstreams(self) -> tuple[Upstream, ...]:
        """The given upstreams, or the embedded model as the only one."""
        if self.upstreams:
            return self.upstreams
        url = f"http://{self.model.host}:{self.model.port}/v1"
        return (Upstream(name="local", base_url=url, model=self.model.name, price=self.model.price),)


def load(file: Path | None = None, data: Path | None = None) -> Settings:
    """Settings from `file` (default: `watchkeeper.toml` here, when there is one), the environment, and `data` over both.

    Relative folders in the file are relative to the working directory. Raises `SettingsError`.
    """
    if file is None and Path(FILE_NAME).is_file():
        file = Path(FILE_NAME)
    text, values = ("", {}) if file is None else _read(file)
    _refuse_unknown_environment()
    try:
        settings = Settings(**values)
    except EnvError as error:
        raise SettingsError(f"environment: {error}; lists and tables are written as JSON there") from None
    except ValidationError as error:
        raise SettingsError(_explain(error, file, text)) from None
    return settings if data is None else settings.model_copy(update={"data": data})


def as_toml(settings: Settings) -> str:
    """All settings as a file that `load` reads the same."""
    return tomli_w.dumps(_without_nulls(settings.model_dump(mode="json")))


def _without_nulls(plain: Any) -> Any:
    """TOML has no null: a key that is not there has its default, which is null wherever a value can be."""
    if isinstance(plain, dict):
        return {key: _without_nulls(value) for key, value in plain.items() if value is not None}
    return [_without_nulls(item) for item in plain] if isinstance(plain, list) else plain


def _read(file: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        raise SettingsError(f"{file}: there is no such file; give another one with --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file}: not valid TOML: {error}") from None


def _refuse_unknown_environment() -> None:
    for name in sorted(os.environ):
        section = name.removeprefix(PREFIX).split("__")[0].lower()
        if name.startswith(PREFIX) and section not in Settings.model_fields:
            raise SettingsError(f"environment: {name}: there is no setting {section!r}")


def _explain(error: ValidationError, file: Path | None, text: str) -> str:
    """The first fault as one line: where (file, line and key, or the environment), and what is wrong."""
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such setting"
    variable = PREFIX + "__".join(place).upper()
    if any(variable == name or variable.startswith(name + "__") for name in os.environ if name.startswith(PREFIX)):
        return f"environment: {variable}: {message}"
    line = line_of(place, text)
    return f"{file}{f':{line}' if line else ''}: {'.'.join(place)}: {message}"


def line_of(place: list[str], text: str) -> int | None:
    """The 1-based line on which the key at `place` (names, and indices of arrays of tables) is set, as far as it goes.

    A scan of headers and keys: TOML parsers keep no positions, and a missing line only makes the message poorer.
    """
    seen: dict[str, int] = {}
    section: list[str] = []
    best: int | None = None
    inside: int | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[(\[)?\s*([^\]]+?)\s*\]", line)
        if header:
            section = [part.strip(" \"'") for part in header[2].split(".")]
            if header[1]:
                index = seen[header[2]] = seen.get(header[2], -1) + 1
                section.append(str(index))
            here = section
        else:
            key = re.match(r"\s*([A-Za-z0-9_\-\"'.]+)\s*=", line)
            if key is None:
                continue
            here = section + [part.strip(" \"'") for part in key[1].split(".")]
        if place[: len(here)] == here:
            best = number
        elif here[: len(place)] == place:
            inside = inside or number  # a whole list is at fault: it starts here
    return best or inside
