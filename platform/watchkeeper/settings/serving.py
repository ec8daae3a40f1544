"""Settings of what answers: gateway, models, knowledge, guards, and what becomes of personal data."""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from watchkeeper.settings.values import Duration, HttpUrl, Port, Section

SHARED: Final = "shared"
"""The base of documents that every request may read."""
MIN_SPOOL_BYTES: Final = 16_000_000
"""Less would be the logs of a few idle workers."""


class Gateway(Section):
    """`durability`: an answer outlives the process's death, or also the machine's. `max_spool_bytes`: what the files of all
    workers may come to; near it, requests are refused until the shipper has made room. `max_in_flight`, `max_queue`:
    requests that one worker serves at a time, and that wait for their turn; none longer than `queue_limit_ms`, nor than
    `queue_target_ms` once there have been some waiting for as long as that. `keys_file`: of API keys; None: `keys.json`
    under `data`."""

    host: str = "127.0.0.1"
    port: Port = 8080
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    durability: Literal["process", "power"] = "process"
    max_body_bytes: Annotated[int, Field(ge=1_000)] = 2_000_000
    max_in_flight: Annotated[int, Field(ge=1)] = 256
    max_queue: Annotated[int, Field(ge=0)] = 256
    queue_limit_ms: Annotated[float, Field(gt=0)] = 10_000
    queue_target_ms: Annotated[float, Field(gt=0)] = 1_000
    keys_file: Path | None = None
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

    def of(self, inputs: int, outputs: int) -> float:
        """USD for so many tokens."""
        return (inputs * self.input + outputs * self.output) / 1e6


class Upstream(Section):
    """Anything that speaks the OpenAI API. `context`: its window in tokens. `capabilities`: what it can do besides text;
    None: all that there is, as far as one knows. `fallback`: 0 shares the traffic; 1 is asked
    only when no upstream of 0 can answer, 2 when none of 1 can, and so on.

    `timeout`: until it has answered whole; `connect_timeout`: until it has taken the connection. Streams only, and by
    default as long as `timeout`: `first_token_timeout`, and `token_timeout` between two pieces after it.
    """

    name: Annotated[str, Field(min_length=1)]
    base_url: HttpUrl
    model: Annotated[str, Field(min_length=1)]
    weight: Annotated[float, Field(gt=0)] = 1.0
    api_key_env: str | None = None
    price: Price = Price()
    context: Annotated[int, Field(ge=1)] = 8192
    capabilities: tuple[Literal["tools", "json", "vision", "logprobs"], ...] | None = None
    fallback: Annotated[int, Field(ge=0, le=9)] = 0
    timeout: Duration = "5m"
    connect_timeout: Duration = "5s"
    first_token_timeout: Duration | None = None
    token_timeout: Duration | None = None


def apart(upstreams: tuple[Upstream, ...]) -> tuple[Upstream, ...]:
    names = [upstream.name for upstream in upstreams]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is the name of two upstreams; each needs its own")
    return upstreams


class Balancing(Section):
    """How several upstreams share the work. `attempts`: most calls for one request, the first one and hedges with them.
    `retry_share` of the requests and `retries_per_second` besides: most calls beyond the first. `hedge`: whether another
    upstream is asked too when the first token is later than 95% are. `affinity`: how much more a conversation's own
    upstream may cost, in shares of the cheapest, before it goes elsewhere; for a prompt that is all known, less for others.
    `breaker_failures` in a row end the calls to an upstream for `breaker_pause`, twice as long when it then fails again.
    """

    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    retry_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    retries_per_second: Annotated[float, Field(ge=0)] = 10.0
    hedge: bool = False
    affinity: Annotated[float, Field(ge=0)] = 1.0
    breaker_failures: Annotated[int, Field(ge=1)] = 3
    breaker_pause: Duration = "1s"


class Model(Section):
    """The embedded chat model: `name` of the packaged one, a folder, or a hub model's name. `device` and `dtype` auto:
    bfloat16 on a GPU where there is one, else float32. `prefix_bytes`: for what prompts begin with, kept so that it is read
    once; `max_queue`: answers under way and in line, more get a 503."""

    name: str = "smollm2-135m-instruct"
    host: str = "127.0.0.1"
    port: Port = 8091
    threads: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    prefix_bytes: Annotated[int, Field(ge=0)] = 256_000_000
    max_queue: Annotated[int, Field(ge=1)] = 256
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


class Preprocess(Section):
    """`truncate`: of a conversation that no upstream has room for, the oldest turns are left out; or it is refused."""

    truncate: Literal["oldest", "refuse"] = "oldest"


class Cache(Section):
    """Answers kept in the memory of each worker, for the same request of the same tenant; see serving/recall.py. `ttl`: how
    long; `max_entries`, `max_bytes`: of one worker. `any_temperature`: also where the model was to vary its answers.
    `near`: also for questions that differ in courtesies and articles only and whose embeddings have this `similarity`."""

    enabled: bool = False
    ttl: Duration = "1h"
    max_entries: Annotated[int, Field(ge=1)] = 10_000
    max_bytes: Annotated[int, Field(ge=100_000)] = 64_000_000
    any_temperature: bool = False
    near: bool = False
    similarity: Annotated[float, Field(ge=0, le=1)] = 0.95


class KnowledgeBase(Section):
    """Documents for some: `tenants` and `routes` whose requests may read them; none named: everybody's."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    folders: Annotated[tuple[Path, ...], Field(min_length=1)]
    tenants: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()


class Knowledge(Section):
    """`folders`: documents for every request; `bases`: for some."""

    folders: tuple[Path, ...] = ()
    bases: tuple[KnowledgeBase, ...] = ()

    @model_validator(mode="after")
    def _names_apart(self) -> Self:
        names = [base.name for base in self.bases]
        for name in names:
            if name == SHARED:
                raise ValueError(f"bases: {SHARED!r} is the name of the base that `folders` makes; give another one")
            if names.count(name) > 1:
                raise ValueError(f"bases: two have the name {name!r}")
        return self

    @property
    def any(self) -> bool:
        """Whether there is any document to read."""
        return bool(self.folders or self.bases)


class Guards(Section):
    """`denied_topics`: a topic's name and phrases that describe it (policy); `streaming`: hold the whole answer back,
    release it in windows that were judged, or audit only (never blocks)."""

    denied_topics: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    streaming: Literal["hold", "window", "audit"] = "window"


class Postprocess(Section):
    """`torn`: what becomes of the sentence that an answer's limit cut in two: it stays, or is dropped."""

    torn: Literal["keep", "drop"] = "keep"


class Structured(Section):
    """Answers in JSON (`response_format`). `repair`: the model is asked once more for what cannot be put right without it;
    `on_invalid`: what is still wrong is answered as it is, and says so, or refused with a 502."""

    repair: bool = True
    on_invalid: Literal["answer", "refuse"] = "answer"


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
