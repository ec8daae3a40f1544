"""What a client of `POST /v1/embeddings` asks for, parsed.

The vectors are the encoder's, for clients that want the same as the gateway.
Knows nothing of who makes them.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from watchkeeper.serving.request import Refused, body_of
from watchkeeper.serving.shapes import EmbeddingsBody

BATCH: Final = 64
"""Texts that the encoder gets at once."""


class Wanted(msgspec.Struct, frozen=True):
    """`packed`: base64 of little-endian float32, as the official client asks for."""

    texts: list[str]
    packed: bool

    def batches(self) -> list[list[str]]:
        return [self.texts[start : start + BATCH] for start in range(0, len(self.texts), BATCH)]

    def tokens(self, count: Callable[[str], int]) -> int:
        """What will be billed: the texts' tokens by our own count."""
        return sum(map(count, self.texts))


def wanted(body: bytes, dimension: int) -> Wanted:
    """Request body → what is wanted. `dimension`: of the encoder's vectors. Raises `Refused` with status 400."""
    known = body_of(body, EmbeddingsBody)
    given = [known.input] if isinstance(known.input, str) else known.input
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) < len(given):
        raise _bad("input", "lists of token numbers are not taken; send texts")
    if not all(texts):
        raise _bad("input", "must not be an empty text")
    if known.dimensions not in (None, dimension):
        raise _bad("dimensions", f"this encoder's vectors have {dimension}; they cannot be cut shorter")
    return Wanted(texts, known.encoding_format == "base64")


def _bad(param: str, message: str) -> Refused:
    return Refused(400, "invalid_value", f"{param}: {message}", param=param)
