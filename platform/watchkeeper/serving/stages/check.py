"""check: does each sentence of the answer rest on the passages that were given? Says how far; changes nothing."""

from watchkeeper.serving.check import support
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.stages.stage import Stage


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    found = support(journey.answer, journey.sources, journey.prompt)
    journey.support = found.overall
    span.attributes["sentences"] = len(found.sentences)
    if found.overall is not None:
        span.attributes["support"] = round(found.overall, 4)
        span.attributes["unsupported"] = sum(sentence.supported is False for sentence in found.sentences)


STAGE = Stage("check", _run)
