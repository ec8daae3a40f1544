"""postprocess: takes template residue and loops out of what is delivered. Never touches a withheld answer, nor JSON."""

from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.postprocess import postprocess
from watchkeeper.serving.stages.stage import Stage


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    if journey.choice.json is not None:
        conclude(journey)
    if not journey.delivered or journey.choice.json is not None:
        return
    torn = journey.finish_reason == "length"
    drop = parts.settings.postprocess.torn == "drop"
    journey.delivered, changes = postprocess(journey.delivered, torn=torn, drop=drop)
    span.attributes["changes"] = ", ".join(changes)


def conclude(journey: Journey) -> None:
    """Says of an answer in JSON whether what leaves is still what was asked for: something may have been redacted."""
    choice, shape = journey.choice, journey.request.shape
    if shape is None or choice.json is None or choice.delivered in (None, choice.answer):
        return
    problem = shape.problem(choice.delivered or "")
    choice.json |= {"valid": problem is None, "error": problem}


STAGE = Stage("postprocess", _run)
