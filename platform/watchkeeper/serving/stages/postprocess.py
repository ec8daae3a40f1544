"""postprocess: takes template residue and loops out of what is delivered. Never touches a withheld answer."""

from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.postprocess import postprocess
from watchkeeper.serving.stages.stage import Stage


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    if not journey.delivered:
        return
    journey.delivered, changes = postprocess(journey.delivered)
    span.attributes["changes"] = ", ".join(changes)


STAGE = Stage("postprocess", _run)
