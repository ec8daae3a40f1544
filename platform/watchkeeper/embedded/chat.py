"""The embedded chat model behind OpenAI's API: chat completions, plain and streamed, for several clients at once.

Requests are read and answers written on the event loop; tokens are made on the generator's own thread. Knows nothing of
gateways or guards: to the gateway it is an upstream like any other.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from watchkeeper.embedded import hub, service, weights
from watchkeeper.embedded.answer import Answer, Event, Finish, Sampling
from watchkeeper.embedded.openai_api import ApiError, overloaded, parse, require_model
from watchkeeper.settings import Settings

if TYPE_CHECKING:
    from watchkeeper.embedded.checkpoint import Checkpoint
    from watchkeeper.embedded.generation import Generator

MAX_TOKENS: Final = 1024
"""Of an answer whose length the request does not limit; a small model that repeats itself would fill the context."""
MAX_IN_FLIGHT: Final = 256
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
    n: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    tools: list[Any] | None = None
    response_format: dict[str, Any] | None = None

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> list[str]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in given if stop]


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Piece(msgspec.Struct, frozen=True):
    """The next text of an answer; with the last one why it ended, and how many tokens were generated in all."""

    text: str
    generated: int
    finish: Finish | None = None


class Chat:
    """One chat model and those who wait for its answers. `name`: what clients call it."""

    def __init__(self, name: str, checkpoint: "Checkpoint", generator: "Generator") -> None:
        self.name = name
        self._checkpoint = checkpoint
        self._generator = generator
        self._in_flight = 0

    def application(self) -> Starlette:
        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            self._generator.start()
            try:
                yield
            finally:
                await asyncio.to_thread(self._generator.stop)

        routes = [Route("/v1/chat/completions", self.completions, methods=["POST"])]
        return service.application(self.name, routes, ready=lambda: self._generator.alive, lifespan=lifespan)

    async def completions(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = parse(await request.body(), Body)
        require_model(body.model, self.name)
        _refuse_unsupported(body)
        if self._in_flight >= MAX_IN_FLIGHT:
            raise overloaded(RETRY_AFTER_S)
        prompt = await asyncio.to_thread(self._prompt, body)
        completion = Completion(body, len(prompt))
        pieces = self._pieces(body, prompt)
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

    async def _pieces(self, body: Body, prompt: list[int]) -> AsyncGenerator[Piece]:
        """The answer, piece by piece. Ends generation when it is closed early."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()

        def deliver(event: Event) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        sampling = Sampling(
            max_tokens=body.limit or min(MAX_TOKENS, self._checkpoint.context - len(prompt)),
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=body.seed,
        )
        answer = Answer(self._checkpoint.text, body.stops)
        self._in_flight += 1
        job = self._generator.submit(prompt, sampling, deliver)
        try:
            finish = None
            while finish is None:
                event = await events.get()
                text = "" if event.token is None else answer.add(event.token)
                finish = event.finish
                if finish is not None:
                    text += answer.finish()
                if answer.stopped:
                    finish = "stop"
                if text or finish:
                    yield Piece(text, event.generated, finish)
        finally:
            job.cancel()
            self._in_flight -= 1


def _refuse_unsupported(body: Body) -> None:
    """Raises `ApiError` for what would silently be answered otherwise than asked."""
    kind = (body.response_format or {}).get("type", "text")
    unsupported = {
        "n": body.n not in (None, 1),
        "frequency_penalty": bool(body.frequency_penalty),
        "presence_penalty": bool(body.presence_penalty),
        "logit_bias": bool(body.logit_bias),
        "logprobs": bool(body.logprobs),
        "tools": bool(body.tools),
        "response_format": kind != "text",
    }
    for param, found in unsupported.items():
        if found:
            raise ApiError(400, f"{param}: not supported by this model", param=param, code="unsupported_parameter")


class Completion:
    """OpenAI's shapes around one answer."""

    def __init__(self, body: Body, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._model = body.model
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._include_usage = bool(body.stream_options and body.stream_options.include_usage)

    def whole(self, pieces: list[Piece]) -> bytes:
        """A plain answer. Raises `ApiError` where generation failed."""
        last = pieces[-1]
        if last.finish == "error":
            raise _failed()
        message = {"role": "assistant", "content": "".join(piece.text for piece in pieces)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": last.finish}
        return self._encode("chat.completion", [choice], {"usage": self._usage(last)})

    async def events(self, pieces: AsyncGenerator[Piece]) -> AsyncGenerator[bytes]:
        """A streamed answer as server-sent events. Where generation fails the last one is an error."""
        yield self._chunk({"role": "assistant", "content": ""})
        async with aclosing(pieces):
            async for piece in pieces:
                if piece.finish == "error":
                    yield _event(_failed().body)
                    return
                if piece.text:
                    yield self._chunk({"content": piece.text})
                if piece.finish is not None:
                    yield self._chunk({}, piece.finish)
                    if self._include_usage:
                        yield _event(self._encode("chat.completion.chunk", [], {"usage": self._usage(piece)}))
        yield _event(b"[DONE]")

    def _chunk(self, delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        # With usage asked for, the chunks before it say that theirs is not there.
        return _event(self._encode("chat.completion.chunk", [choice], {"usage": None} if self._include_usage else {}))

    def _encode(self, kind: str, choices: list[dict[str, Any]], more: dict[str, Any]) -> bytes:
        head = {"id": self._id, "object": kind, "created": self._created, "model": self._model, "choices": choices}
        return msgspec.json.encode(head | more)

    def _usage(self, last: Piece) -> Usage:
        return Usage(self._prompt_tokens, last.generated, self._prompt_tokens + last.generated)


def _failed() -> ApiError:
    return ApiError(500, "generation failed; see the model's log", kind="server_error", code="internal_error")


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


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

    checkpoint = load(source)
    chat = Chat(settings.model.name, checkpoint, Generator(checkpoint.model, checkpoint.ends))
    service.run(chat.application(), settings.model.host, settings.model.port, settings.model.name)
