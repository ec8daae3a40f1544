"""OpenAI's shapes around what one request is answered: one answer or several, whole or in events."""

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from watchkeeper.embedded.answer import Finish
from watchkeeper.embedded.openai_api import ApiError


class Token(msgspec.Struct, frozen=True):
    """`bytes` None: the token is no complete character."""

    token: str
    logprob: float
    bytes: list[int] | None


class ToldToken(Token, frozen=True):
    """A token of the answer, and the likeliest ones in its place."""

    top_logprobs: list[Token]


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """The next text of answer number `index`; with its last one why it ended. `generated`: tokens of it so far, in all."""

    index: int
    text: str
    generated: int
    finish: Finish | None = None
    told: tuple[ToldToken, ...] = ()


class Cached(msgspec.Struct, frozen=True):
    cached_tokens: int


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: Cached


class Completion:
    """`known` tells, once there is an answer, how many of the prompt's tokens had been read before."""

    def __init__(self, model: str, prompt_tokens: int, answers: int, *, include_usage: bool, logprobs: bool) -> None:
        self._prompt_tokens = prompt_tokens
        self._model = model
        self._answers = answers
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._include_usage = include_usage
        self._logprobs = logprobs
        self.known = 0

    def whole(self, pieces: Sequence[Piece]) -> bytes:
        """Plain answers. Raises `ApiError` where generation failed."""
        choices = []
        for index in range(self._answers):
            mine = [piece for piece in pieces if piece.index == index]
            if mine[-1].finish == "error":
                raise _failed()
            message = {"role": "assistant", "content": "".join(piece.text for piece in mine)}
            logs = self._logs([token for piece in mine for token in piece.told])
            choices.append({"index": index, "message": message, "logprobs": logs, "finish_reason": mine[-1].finish})
        generated = sum(piece.generated for piece in pieces if piece.finish is not None)
        return self._encode("chat.completion", choices, {"usage": self._usage(generated)})

    async def events(self, pieces: AsyncGenerator[Piece]) -> AsyncGenerator[bytes]:
        """Streamed answers as server-sent events. Where generation fails the last one is an error."""
        for index in range(self._answers):
            yield self._chunk(index, {"role": "assistant", "content": ""})
        generated = 0
        async with aclosing(pieces):
            async for piece in pieces:
                if piece.finish == "error":
                    yield _event(_failed().body)
                    return
                if piece.text or piece.told:
                    yield self._chunk(piece.index, {"content": piece.text}, told=piece.told)
                if piece.finish is not None:
                    generated += piece.generated
                    yield self._chunk(piece.index, {}, piece.finish)
        if self._include_usage:
            yield _event(self._encode("chat.completion.chunk", [], {"usage": self._usage(generated)}))
        yield _event(b"[DONE]")

    def _chunk(self, index: int, delta: dict[str, str], finish: str | None = None, told: Sequence[ToldToken] = ()) -> bytes:
        logs = self._logs(told) if told else None
        choice = {"index": index, "delta": delta, "logprobs": logs, "finish_reason": finish}
        # With usage asked for, the chunks before it say that theirs is not there.
        return _event(self._encode("chat.completion.chunk", [choice], {"usage": None} if self._include_usage else {}))

    def _logs(self, told: Sequence[ToldToken]) -> dict[str, Any] | None:
        return {"content": told, "refusal": None} if self._logprobs else None

    def _encode(self, kind: str, choices: list[dict[str, Any]], more: dict[str, Any]) -> bytes:
        head = {"id": self._id, "object": kind, "created": self._created, "model": self._model, "choices": choices}
        return msgspec.json.encode(head | more)

    def _usage(self, generated: int) -> Usage:
        prompt = self._prompt_tokens
        return Usage(prompt, generated, prompt + generated, Cached(self.known))


def _failed() -> ApiError:
    return ApiError(500, "generation failed; see the model's log", kind="server_error", code="internal_error")


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
