"""An answer, token by token: what is asked of it, what is told of it, and how it becomes text that is safe to send.

Knows nothing of models or HTTP: a function that turns token ids into text is all it needs.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from watchkeeper.embedded.stops import Stops

BROKEN: Final = "\ufffd"
"""What tokenizers write for bytes that are no complete character (yet)."""

Decode = Callable[[Sequence[int]], str]
Finish = Literal["stop", "length", "error"]


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """`seed` None: another one each time. `logprobs`: with each token, how many of the likeliest are told of; None:
    not even that token."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    logprobs: int | None = None


class Likelihood(msgspec.Struct, frozen=True):
    """`log`: natural logarithm of a token's probability; `top`: the likeliest tokens with theirs."""

    log: float
    top: tuple[tuple[int, float], ...]


class Event(msgspec.Struct, frozen=True):
    """`token`: the next of the answer, None where there is none; `finish`: why it is the last, None while it is not.
    `generated`: tokens so far, the end-of-answer token among them."""

    token: int | None
    generated: int
    finish: Finish | None = None
    likelihood: Likelihood | None = None


class Answer:
    """Tokens in, text out. The pieces that `add` and `finish` return, joined, are the whole answer: never half a
    character, never a stop sequence or the beginning of one that was then completed."""

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = Stops(stops)
        self._tokens: list[int] = []
        # Tokens before `_context` are done with; those up to `_read` are text already, and are decoded again with what
        # follows, because some tokenizers write a token differently at the beginning of a text.
        self._context = 0
        self._read = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop sequence has come."""
        return self._stops.stopped

    def add(self, token: int) -> str:
        """The text that this token makes safe to send, often empty. `stopped` says whether a stop sequence ended it."""
        self._tokens.append(token)
        fresh = self._fresh()
        if not fresh or fresh.endswith(BROKEN):
            return ""
        self._context, self._read = self._read, len(self._tokens)
        return self._stops.add(fresh)

    def finish(self) -> str:
        """What was held back and is part of the answer after all; an incomplete character at the end is not."""
        if self.stopped:
            return ""
        return self._stops.add(self._fresh().rstrip(BROKEN)) + self._stops.finish()

    def _fresh(self) -> str:
        """The text of the tokens that are not yet text."""
        before = self._decode(self._tokens[self._context : self._read])
        return self._decode(self._tokens[self._context :])[len(before) :]
