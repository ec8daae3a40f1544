"""The embedded chat model behind OpenAI's API: chat completions, plain and streamed, for several clients at once.

Requests are read and answers written on the event loop; tokens are made on the generator's own thread. Knows nothing of
gateways or guards: to the gateway it is an upstream like any other.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from watchkeeper.embedded import hub, service, weights
from watchkeeper.embedded.answer import BROKEN, Answer, Event, Likelihood, Sampling
from watchkeeper.embedded.completion import Completion, Piece, Token, ToldToken
from watchkeeper.embedded.metrics import Metrics, Timing
from watchkeeper.embedded.openai_api import ApiError, overloaded, parse, require_model
from watchkeeper.settings import Settings

if TYPE_CHECKING:
    from watchkeeper.embedded.checkpoint import Checkpoint
    from watchkeeper.embedded.generation import Generator

MAX_TOKENS: Final = 1024
"""Of an answer whose length the request does not limit; a small model that repeats itself would fill the context."""
MAX_ANSWERS: Final = 16
"""To one request (`n`)."""
MAX_TOP: Final = 20
"""Of the likeliest tokens, as OpenAI has it."""
MAX_QUEUE: Final = 256
RETRY_AFTER_S: Final = 5


class TextPart(msgspec.Struct, frozen=True):
    type: Literal["text"]
    text: str


class Message(msgspec.Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


Tokens = Annotated[int, msgspec.Meta(ge=1)]


class Body(msgspec.Struct, frozen=True):
    """The parameters that change an answer here; those that would but cannot are refused by `_refuse_unsupported`."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=4)] | None = None
    seed: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_ANSWERS)] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOP)] | None = None
    tools: list[Any] | None = None
    response_format: dict[str, Any] | None = None

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> list[str]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in given if stop]


class Chat:
    """One chat model and those who wait for its answers. `name`: what clients call it; `max_queue`: how many answers may be
    under way or in line."""

    def __init__(self, name: str, checkpoint: "Checkpoint", generator: "Generator", max_queue: int = MAX_QUEUE) -> None:
        self.name = name
        self._checkpoint = checkpoint
        self._generator = generator
        self._max_queue = max_queue
        self._in_flight = 0
        self._metrics = Metrics(lambda: generator.running, lambda: generator.waiting)

    def application(self) -> Starlette:
        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            self._generator.start()
            try:
                yield
            finally:
                await asyncio.to_thread(self._generator.stop)

        async def metrics(request: Request) -> Response:
            return Response(self._metrics.exposition(), media_type="text/plain; version=0.0.4")

        routes = [Route("/v1/chat/completions", self.completions, methods=["POST"]), Route("/metrics", metrics)]
        return service.application(self.name, routes, ready=lambda: self._generator.alive, lifespan=lifespan)

    async def completions(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = parse(await request.body(), Body)
        require_model(body.model, self.name)
        _refuse_unsupported(body)
        if self._in_flight + (body.n or 1) > self._max_queue:
            raise overloaded(RETRY_AFTER_S)
        prompt = await asyncio.to_thread(self._prompt, body)
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        completion = Completion(
            body.model, len(prompt), body.n or 1, include_usage=include_usage, logprobs=bool(body.logprobs)
        )
        pieces = self._pieces(body, prompt, completion)
        if body.stream:
            return EventStream(completion.events(pieces))
        answered: list[Piece] = []

        async def answer() -> None:
            async with aclosing(pieces):
                answered.extend([piece async for piece in pieces])

        await service.while_connected(answer(), request.receive)
        return Response(completion.whole(answered), media_type="application/json")

    def _prompt(self, body: Body) -> list[int]:
        """The prompt's tokens. Raises `ApiError` where they and the answer asked for do not fit the context."""
        roles = {"developer": "system"}
        try:
            prompt = self._checkpoint.prompt([(roles.get(turn.role, turn.role), turn.text) for turn in body.messages])
        except ValueError as error:
            raise ApiError(400, f"messages: {error}", param="messages", code="invalid_value") from error
        context, wanted = self._checkpoint.context, body.limit or 1
        if len(prompt) + wanted > context:
            raise ApiError(
                400,
                f"this model's context is {context} tokens; the messages take {len(prompt)} and {wanted} are asked for",
                param="messages",
                code="context_length_exceeded",
            )
        return prompt

    async def _pieces(self, body: Body, prompt: list[int], completion: Completion) -> AsyncGenerator[Piece]:
        """The answers, piece by piece as they come. Ends generation when it is closed early."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()

        def deliver(index: int, event: Event) -> None:
            loop.call_soon_threadsafe(events.put_nowait, (index, event))

        count = body.n or 1
        self._in_flight += count
        drafts = [Draft(self._checkpoint, body, self._metrics.answering(len(prompt))) for _ in range(count)]
        jobs = [
            self._generator.submit(prompt, self._sampling(body, len(prompt), index), partial(deliver, index))
            for index in range(count)
        ]
        left = count
        try:
            while left:
                index, event = await events.get()
                if drafts[index].over:
                    continue
                completion.known = jobs[0].known
                piece = drafts[index].add(index, event, jobs[index].known)
                if piece.finish is not None:
                    jobs[index].cancel()
                    left -= 1
                if piece.text or piece.told or piece.finish:
                    yield piece
        finally:
            for job, draft in zip(jobs, drafts, strict=True):
                job.cancel()
                draft.timing.end("cancelled")
            self._in_flight -= count

    def _sampling(self, body: Body, prompt: int, index: int) -> Sampling:
        return Sampling(
            max_tokens=body.limit or min(MAX_TOKENS, self._checkpoint.context - prompt),
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            # Several answers to one request differ, and each can be had again.
            seed=None if body.seed is None else body.seed + index,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        )


class Draft:
    """One answer that is being written: its text, what is told of its tokens, and its times."""

    def __init__(self, checkpoint: "Checkpoint", body: Body, timing: Timing) -> None:
        self.timing = timing
        self.over = False
        self._checkpoint = checkpoint
        self._answer = Answer(checkpoint.text, body.stops)
        self._held: list[ToldToken] = []

    def add(self, index: int, event: Event, known: int) -> Piece:
        """The piece that this event makes, often without text. Tokens are told with the text that they are part of."""
        text = ""
        if event.generated > self.timing.tokens:
            self.timing.token(known)
        if event.token is not None:
            text = self._answer.add(event.token)
            if event.likelihood is not None:
                self._held.append(self._told(event.token, event.likelihood))
        finish = event.finish
        if finish is not None:
            text += self._answer.finish()
        if self._answer.stopped:
            finish = "stop"
        told: tuple[ToldToken, ...] = ()
        if text or finish:
            told, self._held = tuple(self._held), []
        if self._answer.stopped:
            # What the stop sequence cut off is not told of.
            left = len(text)
            told = tuple(token for token in told if (left := left - len(token.token)) + len(token.token) > 0)
        if finish is not None:
            self.over = True
            self.timing.end(finish)
        return Piece(index=index, text=text, generated=event.generated, finish=finish, told=told)

    def _told(self, token: int, likelihood: Likelihood) -> ToldToken:
        top = [self._token(other, log) for other, log in likelihood.top]
        one = self._token(token, likelihood.log)
        return ToldToken(one.token, one.logprob, one.bytes, top)

    def _token(self, token: int, log: float) -> Token:
        text = self._checkpoint.text([token])
        return Token(text, log, None if BROKEN in text else list(text.encode()))


def _refuse_unsupported(body: Body) -> None:
    """Raises `ApiError` for what would silently be answered otherwise than asked."""
    kind = (body.response_format or {}).get("type", "text")
    unsupported = {
        "frequency_penalty": bool(body.frequency_penalty),
        "presence_penalty": bool(body.presence_penalty),
        "logit_bias": bool(body.logit_bias),
        "top_logprobs": bool(body.top_logprobs) and not body.logprobs,
        "tools": bool(body.tools),
        "response_format": kind != "text",
    }
    for param, found in unsupported.items():
        if found:
            why = "goes with `logprobs` only" if param == "top_logprobs" else "not supported by this model"
            raise ApiError(400, f"{param}: {why}", param=param, code="unsupported_parameter")


class EventStream(Response):
    """Server-sent events. When the client leaves, `events` is closed at once, not when it is next collected."""

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with aclosing(self._events):
                async for event in self._events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        with suppress(ClientDisconnect):
            await service.while_connected(write(), receive)


def run(settings: Settings) -> None:
    """Loads the model and serves it until SIGTERM. Raises `WeightsMissing` or `ModelRejected`."""
    source = hub.locate(settings.model.name, weights.CHAT, weights.chat_model, settings.models)
    hub.share_cores(settings.model.threads)
    from watchkeeper.embedded.checkpoint import load
    from watchkeeper.embedded.generation import Generator

    checkpoint = load(source, settings.model.device, settings.model.dtype)
    generator = Generator(checkpoint.model, checkpoint.ends, prefixes=settings.model.prefix_bytes)
    chat = Chat(settings.model.name, checkpoint, generator, settings.model.max_queue)
    service.run(chat.application(), settings.model.host, settings.model.port, settings.model.name)
