"""embed: the embedding of every turn, made once, for retrieval and guards. Long turns are cut into windows, as the encoder
reads 256 tokens at a time. While the encoder is away the journey goes on without."""

import numpy as np
from numpy.typing import NDArray

from watchkeeper.encoder.client import EncoderUnavailable
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.stages.stage import Stage

WINDOW = 1000
OVERLAP = 200
MOST = 64


def windows(text: str) -> list[str]:
    """Overlapping windows of `WINDOW` characters, at least one, at most `MOST`: what is beyond has no embedding."""
    starts = range(0, max(len(text) - OVERLAP, 1), WINDOW - OVERLAP)
    return [text[start : start + WINDOW] for start in starts[:MOST]]


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    texts = [window for turn in journey.turns for window in windows(turn.text)]
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
        journey.embeddings |= dict(zip(missing, await parts.encoder.embed(missing), strict=True))


def whole(journey: Journey, text: str) -> NDArray[np.float32] | None:
    """The unit embedding of a text: the mean of its windows'. None where one is missing."""
    found = [journey.embeddings.get(window) for window in windows(text)]
    if any(vector is None for vector in found):
        return None
    mean = np.mean(np.stack([vector for vector in found if vector is not None]), axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), dtype=np.float32)


STAGE = Stage("embed", _run)
