"""check: does each sentence of the answer rest on the passages that were given? Says how far; changes nothing."""

import asyncio

from watchkeeper.serving.check import support
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.stages.stage import Stage

LONG = 20_000
"""Characters of an answer from which checking takes tens of milliseconds, and so leaves the loop to others."""


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    if len(journey.answer) > LONG:
        found = await asyncio.to_thread(support, journey.answer, journey.sources, journey.prompt)
    else:
        found = support(journey.answer, journey.sources, journey.prompt)
    journey.support = found.overall
    span.attributes["sentences"] = len(found.sentences)
    if found.overall is not None:
        span.attributes["support"] = round(found.overall, 4)
        span.attributes["unsupported"] = sum(sentence.supported is False for sentence in found.sentences)


STAGE = Stage("check", _run)
