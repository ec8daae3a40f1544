"""The record: all that one request left behind, frozen. The spine of the code; it imports nothing of ours.

Times are integers: microseconds since the epoch, UTC (`received_at`), or milliseconds as floats (every `*_ms`, measured
on the monotonic clock). Text in a record is redacted before the record is made; nothing here redacts.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, Protocol, get_args

import msgspec

SCHEMA_VERSION: Final = 1

StageName = Literal[
    "admit", "preprocess", "embed", "ground", "guard_in", "route", "generate", "check", "guard_out", "postprocess"
]
STAGES: Final[tuple[StageName, ...]] = get_args(StageName)

NAME: Final = r"^[a-z][a-z0-9_]{0,39}$"
"""What the name of a stage looks like: a word of the code, never a text of anyone's."""

StageStatus = Literal["ok", "degraded", "error", "skipped"]
Target = Literal["prompt", "context", "output"]
Action = Literal["pass", "unknown", "flag", "redact", "block"]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
"""Weakest first. `unknown` (a guard that could not judge) is stronger than `pass`: unknown is never reported as pass."""

Origin = Literal["gateway", "otlp", "mlflow", "replay"]
UNGUARDED: Final[tuple[Origin, ...]] = ("otlp", "mlflow")
"""Where a request comes from that others served."""
Scalar = str | int | float | bool


class Message(msgspec.Struct, frozen=True):
    """One turn of the conversation as the model saw it, redacted."""

    role: str
    content: str


class Stage(msgspec.Struct, frozen=True):
    """One step of the journey. `name`: one of `STAGES`, or of a stage that somebody added to the loop. `offset_ms` counts
    from the request's arrival; `ms` is the time spent inside."""

    name: Annotated[str, msgspec.Meta(pattern=NAME)]
    offset_ms: float
    ms: float
    status: StageStatus = "ok"
    attributes: dict[str, Scalar] = {}


class Verdict(msgspec.Struct, frozen=True):
    """What one guard said of one target. `score` is in [0, 1] where the guard has one; `rule` names what decided."""

    guard: str
    target: Target
    category: str
    action: Action
    score: float | None
    rule: str
    version: str


class Source(msgspec.Struct, frozen=True):
    """A retrieved passage: `id` is `<document path>#<passage number>`, `text` at most 500 characters of it, redacted."""

    id: str
    title: str
    score: float
    text: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """All that one request left behind: answered, blocked, refused, failed, disconnected or cut off by a crash.

    `request_id`: 32 hex digits, also the OpenTelemetry trace id. `support`: share of the answer's sentences that the
    sources support, in [0, 1]; None where there was nothing to check it against. `embedding`: 384 little-endian float16
    of the redacted prompt. `retrieved`: passages found; None where no knowledge base was searched. `error`: a short code
    such as `upstream_unavailable`, never a text of the user's. `status`: the HTTP status of the answer. Token counts are
    the upstream's own where it reports them.
    """

    request_id: str
    received_at: int
    tenant: str = "default"
    user: str | None = None
    session: str | None = None
    route: str = "default"
    tags: dict[str, str] = {}
    release: str = "builtin@0"
    digest: str = ""
    model: str = ""
    upstream: str | None = None
    replica: str = ""
    attempts: int = 0
    stream: bool = False
    prompt: tuple[Message, ...] = ()
    prompt_text: str = ""
    output_text: str = ""
    language: str | None = None
    finish_reason: str | None = None
    error: str | None = None
    status: int = 200
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    total_ms: float = 0.0
    overhead_ms: float = 0.0
    stages: tuple[Stage, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    sources: tuple[Source, ...] = ()
    retrieved: int | None = None
    entities: tuple[str, ...] = ()
    redactions: dict[str, int] = {}
    support: float | None = None
    embedding: bytes | None = None
    source: Origin = "gateway"
    schema_version: int = SCHEMA_VERSION

    @property
    def action(self) -> Action:
        """The strongest verdict. Where no guard spoke up: `pass`, but `unknown` of what never came through our guards."""
        if not self.verdicts and self.source in UNGUARDED:
            return "unknown"
        return strongest(verdict.action for verdict in self.verdicts)


class Redact(Protocol):
    """What makes texts fit for a record: text → the text without personal data and secrets, and how many of each category
    were taken out (to be read only). Texts are redacted first and cut then: nobody finds half an address."""

    def __call__(self, text: str) -> tuple[str, dict[str, int]]: ...

    def name(self, text: str) -> str:
        """The name of a user or a session, such that it stays apart from all others."""
        ...


def strongest(actions: Iterable[Action]) -> Action:
    """The strongest of some actions, in the order of `ACTIONS`."""
    return max(actions, key=ACTIONS.index, default="pass")


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """Record → msgpack, the form in which the spool keeps it."""
    return _encoder.encode(record)


def decode(body: bytes) -> Record:
    """msgpack → Record. Raises `msgspec.DecodeError` (or its child `ValidationError`) on anything else."""
    return _decoder.decode(body)


def to_builtins(record: Record) -> dict[str, Any]:
    """Record → plain dict of JSON types (embedding left out), for people and for `--json`."""
    plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(record, embedding=None))
    return plain
