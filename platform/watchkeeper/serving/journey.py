"""What one request carries through the loop. Mutable while it travels; frozen into a `Record` when it has arrived.

Holds what the stages found out; decides nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from watchkeeper.record import Message, Record, Redact, Scalar, Source, Stage, StageStatus, Verdict
from watchkeeper.release import Release
from watchkeeper.serving.allowance import Reservation
from watchkeeper.serving.attempts import Attempts
from watchkeeper.serving.balancing import Ask
from watchkeeper.serving.cache import Keys
from watchkeeper.serving.calibration import Decision
from watchkeeper.serving.check import Checker
from watchkeeper.serving.choice import WRITTEN, Choice, written_calls
from watchkeeper.serving.redacted import redacted_record
from watchkeeper.serving.request import ChatRequest, Refused, Turn
from watchkeeper.serving.wire import Delta
from watchkeeper.settings import Upstream

INSTRUCTING = ("system", "developer")
"""Roles whose messages are put into the one system message that the model gets."""


@dataclass(slots=True)
class Span:
    """One stage while it runs. A stage that runs several times (a guard over a stream) adds up in one span."""

    name: str
    offset_ms: float
    ms: float = 0.0
    status: StageStatus = "ok"
    attributes: dict[str, Scalar] = field(default_factory=dict)


class Step:
    """One run of a stage: an exception that leaves it marks its span `error`, but for a refusal: that is its work.

    A class, as `contextlib`'s generators cost five times as much, and every request enters a dozen.
    """

    __slots__ = ("_clock", "_entered", "_span")

    def __init__(self, span: Span, clock: Callable[[], float], entered: float) -> None:
        self._span = span
        self._clock = clock
        self._entered = entered

    def __enter__(self) -> Span:
        return self._span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._span.ms += (self._clock() - self._entered) * 1000
        if error is not None and not isinstance(error, Refused):
            self._span.status = "error"


@dataclass(slots=True)
class Journey:
    """`clock`: monotonic seconds. `redactions`: what was taken out of the prompt before the model saw it. `choices`: the
    answers, as many as were asked for; `choice`: the one that is being worked on, whose `answer`, `delivered`,
    `finish_reason`, `support` and `extra` are the journey's. `usage`: tokens of the last call to an upstream; `spent`: of
    those before it, which cost `spent_usd`. `query`: the prompt's copy for retrieval. `prompt_tokens`, `answer_tokens`:
    what the messages have, and what an answer may have, for the upstream. `left_out`: how many stored messages, turns and
    passages did not fit. `index_version`: of the knowledge that its tenant and route may read, empty where there is none.
    `cascade`: how hard the prompt is, where that decides who answers. `answered_by`: who did, where that is not who was
    asked last. `cache`: exact or near where an answer was given again, that of the request `cache_source`; miss, bypass;
    empty where there is no cache. `kept`: whether its record has been made."""

    request_id: str
    received_at: int
    request: ChatRequest
    release: Release
    clock: Callable[[], float]
    started: float
    tenant: str = "default"
    key: str = ""
    """The id of the API key that it came with."""
    replica: str = ""
    upstream_name: str | None = None
    turns: list[Turn] = field(default_factory=list)
    language: str | None = None
    query: str = ""
    prompt_tokens: int = 0
    answer_tokens: int | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    embeddings: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    history: tuple[Message, ...] = ()
    sources: tuple[Source, ...] = ()
    retrieved: int | None = None
    index_version: str = ""
    entities: tuple[str, ...] = ()
    cascade: Decision | None = None
    candidates: list[Upstream] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    ask: Ask = field(default_factory=Ask)
    tried: list[Attempts] = field(default_factory=list)
    answered_by: Upstream | None = None
    usage: tuple[int, int] | None = None
    spent: tuple[int, int] = (0, 0)
    spent_usd: float = 0.0
    answer_model: str | None = None
    checker: Checker | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    redactions: dict[str, int] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)
    first_delta_at: float | None = None
    last_delta_at: float | None = None
    first_byte_at: float | None = None
    error: str | None = None
    status: int = 200
    embedding: bytes | None = None
    kept: bool = False
    cache: str = ""
    cache_keys: Keys | None = None
    cache_source: str | None = None
    reservation: Reservation | None = None
    seated: bool = False
    """What it holds of its tenant's limits, and whether a place among those who are served."""
    limits: dict[str, str] = field(default_factory=dict)
    """The headers that say how its tenant's limits stand."""
    choices: list[Choice] = field(init=False)
    choice: Choice = field(init=False)

    def __post_init__(self) -> None:
        self.choices = [Choice(index) for index in range(self.request.n)]
        self.choice = self.choices[0]

    @property
    def answer(self) -> str:
        """What the model said, as received."""
        return self.choice.answer

    @answer.setter
    def answer(self, text: str) -> None:
        self.choice.answer = text

    @property
    def delivered(self) -> str | None:
        """What the client gets of the answer; None while that is the answer itself."""
        return self.choice.delivered

    @delivered.setter
    def delivered(self, text: str | None) -> None:
        self.choice.delivered = text

    @property
    def finish_reason(self) -> str | None:
        return self.choice.finish_reason

    @finish_reason.setter
    def finish_reason(self, reason: str | None) -> None:
        self.choice.finish_reason = reason

    @property
    def support(self) -> float | None:
        return self.choice.support

    @support.setter
    def support(self, share: float | None) -> None:
        self.choice.support = share

    @property
    def extra(self) -> dict[str, Any]:
        """Fields of the answer's message besides role and content, as received."""
        return self.choice.extra

    @property
    def upstream(self) -> Upstream | None:
        """Who answers, or did; while nobody does, who was asked last."""
        return self.answered_by or (self.tried[-1].upstream if self.tried else None)

    @property
    def attempts(self) -> int:
        """How often an upstream was asked."""
        return sum([len(attempts.made) for attempts in self.tried])

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens in and out, of all calls; the upstream's own count where it gave one."""
        inputs, outputs = self.usage or (self.prompt_tokens, 0)
        return self.spent[0] + inputs, self.spent[1] + outputs

    @property
    def cost_usd(self) -> float:
        """What all calls cost, each at the price of its upstream."""
        inputs, outputs = self.usage or (self.prompt_tokens, 0)
        return self.spent_usd + (self.upstream.price.of(inputs, outputs) if self.upstream else 0.0)

    @property
    def prompt(self) -> str:
        """The text of the newest user turn; of the newest turn where no user spoke."""
        spoken = [turn.text for turn in self.turns if turn.role == "user"] or [turn.text for turn in self.turns]
        return spoken[-1] if spoken else ""

    @property
    def most_tokens(self) -> int:
        """What the answer may have by the request and the release."""
        limit = self.release.parameters.max_tokens
        return min(self.request.max_tokens or limit, limit)

    @property
    def elapsed_ms(self) -> float:
        return (self.clock() - self.started) * 1000

    @property
    def overhead_ms(self) -> float:
        """All but generation. On a stream, the time that a client takes to read is nobody's overhead: stages only."""
        if self.request.stream:
            return sum(span.ms for name, span in self.spans.items() if name != "generate")
        generate = self.spans.get("generate")
        return self.elapsed_ms - (generate.ms if generate else 0.0)

    def step(self, name: str) -> "Step":
        """Times a stage while it is entered."""
        entered = self.clock()
        span = self.spans.get(name)
        if span is None:
            span = self.spans[name] = Span(name, (entered - self.started) * 1000)
        return Step(span, self.clock, entered)

    def take(self, delta: Delta) -> None:
        """Notes a piece of an answer as it arrives, and turns to that answer. What comes after a cut is left."""
        now = self.clock()
        self.usage = delta.usage or self.usage
        self.answer_model = delta.model or self.answer_model
        if not 0 <= delta.index < len(self.choices):
            return
        choice = self.choice = self.choices[delta.index]
        if choice.withheld:
            return
        if delta.text or delta.extra:
            self.first_delta_at = self.first_delta_at or now
            self.last_delta_at = now
            choice.answer += delta.text
            choice.add(delta.extra)
            choice.logprobs.add(delta.logprobs)
        choice.finish_reason = delta.finish_reason or choice.finish_reason

    def leave_out(self, what: str, number: int) -> None:
        """Notes that so many stored messages, turns or passages did not fit."""
        self.left_out[what] = self.left_out.get(what, 0) + number

    def next_call(self) -> None:
        """Counts what the last call to an upstream used among what is spent: there will be another."""
        if self.usage is not None:
            self.spent_usd = self.cost_usd
            self.spent, self.usage = self.tokens, None

    def record(self, redact: Redact) -> Record:
        """The journey as it stands, redacted and frozen."""
        inputs, outputs = self.tokens
        supports = [choice.support for choice in self.choices if choice.support is not None]
        record = Record(
            request_id=self.request_id,
            received_at=self.received_at,
            tenant=self.tenant,
            user=self.request.extension.user,
            session=self.request.extension.session,
            route=self.request.extension.route,
            tags=self.request.extension.tags,
            release=self.release.id,
            digest=self.release.digest,
            model=self.answer_model or (self.upstream.model if self.upstream else ""),
            upstream=self.upstream.name if self.upstream else None,
            replica=self.replica,
            attempts=self.attempts,
            stream=self.request.stream,
            prompt=tuple(self._logged()),
            prompt_text=self.prompt,
            output_text="\n\n".join(choice.said for choice in self.choices if choice.begun),
            language=self.language,
            finish_reason=self.choices[0].finish_reason,
            error=self.error,
            status=self.status,
            input_tokens=inputs,
            output_tokens=outputs,
            cost_usd=self.cost_usd,
            ttft_ms=self._ttft_ms(),
            tpot_ms=self._tpot_ms(outputs),
            total_ms=self.elapsed_ms,
            overhead_ms=self.overhead_ms,
            stages=tuple(
                [Stage(span.name, span.offset_ms, span.ms, span.status, span.attributes) for span in self.spans.values()]
            ),
            verdicts=tuple(self.verdicts),
            sources=self.sources,
            retrieved=self.retrieved,
            entities=self.entities,
            redactions=self.redactions,
            support=min(supports, default=None),
            embedding=self.embedding,
        )
        return redacted_record(record, redact)

    def _logged(self) -> list[Message]:
        """The messages as the model got them, or would have, calls included; an image is logged as its hash."""
        messages = self.messages or [Message(turn.role, turn.text) for turn in self.turns]
        talk = [turn for turn in self.turns if not self.messages or turn.role not in INSTRUCTING]
        before = len(messages) - len(talk)
        return messages[:before] + [
            Message(message.role, "\n".join(_pieces(turn, message.content)))
            for turn, message in zip(talk, messages[before:], strict=True)
        ]

    def _ttft_ms(self) -> float | None:
        """From the request's arrival to the first of the answer that left for the client; streams only."""
        if not self.request.stream or self.first_byte_at is None:
            return None
        return (self.first_byte_at - self.started) * 1000

    def _tpot_ms(self, outputs: int) -> float | None:
        """Time per output token after the first, as the upstream sent them; streams only."""
        if not self.request.stream or outputs < 2 or self.first_delta_at is None or self.last_delta_at is None:
            return None
        return (self.last_delta_at - self.first_delta_at) * 1000 / (outputs - 1)


def _pieces(turn: Turn, content: str) -> list[str]:
    """What the record holds of a client's message."""
    if not turn.images and not turn.calls:
        return [content]
    images = [f"[image sha256:{image}]" for image in turn.images]
    beside = [f"[{key}] {turn.calls[key]}" for key in WRITTEN if isinstance(turn.calls.get(key), str)]
    return [piece for piece in (content, *beside, *written_calls(turn.calls), *images) if piece]
