"""embed: the embedding of every turn, made once and in one call, for retrieval, guards, cache and record. Long turns are
cut into windows, as the encoder reads 256 tokens at a time. While the encoder is away the journey goes on without."""

import numpy as np
from numpy.typing import NDArray

from watchkeeper.encoder.client import EncoderUnavailable
from watchkeeper.serving import words
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.stages.stage import Stage

WINDOW = 1000
OVERLAP = 200
MOST = 64
SHORT = 6
"""A prompt of fewer words leans on the turn before it ("and for contractors?"): retrieval then reads both."""


def windows(text: str) -> list[str]:
    """Overlapping windows of `WINDOW` characters, at least one, at most `MOST`: what is beyond has no embedding."""
    starts = range(0, max(len(text) - OVERLAP, 1), WINDOW - OVERLAP)
    return [text[start : start + WINDOW] for start in starts[:MOST]]


def searched(journey: Journey) -> str:
    """What the knowledge base is searched with: the prompt's copy for retrieval, and what it leans on."""
    query = journey.query or journey.prompt
    if words.size(query) >= SHORT:
        return query
    earlier = [turn.text for turn in journey.turns[:-1] if turn.role == "user"]
    earlier += [message.content for message in journey.history if message.role == "user"]
    return f"{earlier[-1]} {query}" if earlier else query


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    # Besides the turns: what the record keeps, and what is searched with. Both are mostly the prompt itself.
    read = [*(turn.text for turn in journey.turns), parts.redact(journey.prompt)[0]]
    if parts.knowledge is not None:
        read.append(searched(journey))
    texts = list(dict.fromkeys(window for text in read for window in windows(text)))
    try:
        await embed(journey, parts, texts)
    except EncoderUnavailable as away:
        span.status = "degraded"
        span.attributes["error"] = str(away)
        return
    span.attributes |= {"texts": len(texts), "dimension": 384}


async def embed(journey: Journey, parts: Parts, texts: list[str]) -> None:
    """Embeds what the journey has no embedding of yet. Raises `EncoderUnavailable`."""
    missing = [text for text in dict.fromkeys(texts) if text not in journey.embeddings]
    if missing:
        journey.embeddings |= dict(zip(missing, await parts.vectors.of(missing), strict=True))


def whole(journey: Journey, text: str) -> NDArray[np.float32] | None:
    """The unit embedding of a text: the mean of its windows'. None where one is missing."""
    found = [journey.embeddings.get(window) for window in windows(text)]
    if any(vector is None for vector in found):
        return None
    mean = np.mean(np.stack([vector for vector in found if vector is not None]), axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), dtype=np.float32)


STAGE = Stage("embed", _run)
