"""check: does each sentence of the answer rest on the passages that were given? And what the release makes of that: marks
at the sentences that do, a note or a refusal where too few of them do."""

import asyncio

from watchkeeper.record import Action, Verdict
from watchkeeper.serving.check import Checker
from watchkeeper.serving.choice import Choice
from watchkeeper.serving.citing import Citing
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.stages.stage import Stage

LONG = 20_000
"""Characters of an answer from which checking takes tens of milliseconds, and so leaves the loop to others."""
GUARD, CATEGORY, RULE, VERSION = "grounding", "unsupported", "min_support", "1"
"""By these names an answer with too little support has a verdict."""


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    checker = checker_of(journey)
    if len(journey.answer) > LONG:
        found = await asyncio.to_thread(checker.support, journey.answer)
    else:
        found = checker.support(journey.answer)
    journey.support = found.overall
    span.attributes["sentences"] = len(found.sentences)
    if found.overall is not None:
        span.attributes["support"] = round(found.overall, 4)
        span.attributes["unsupported"] = sum(sentence.supported is False for sentence in found.sentences)


def checker_of(journey: Journey) -> Checker:
    """The one that knows what has been checked against these passages."""
    if journey.checker is None:
        journey.checker = Checker(journey.sources, journey.prompt)
    return journey.checker


def citing_of(journey: Journey, choice: Choice) -> Citing:
    """The one that knows what has been cited of an answer."""
    if choice.citing is None:
        ids = tuple(source.id for source in journey.sources)
        marked = journey.release.grounding.cite and bool(ids) and journey.request.shape is None
        choice.citing = Citing(checker_of(journey), ids, marked=marked)
    return choice.citing


def deliver(journey: Journey, before: str, rest: str) -> str:
    """The last piece of what is delivered, such as the release wants it: with its citations, and with the note, or the
    refusal in its place, where the passages carry too little. `before`: what has left already; where that is anything,
    nothing can be refused any more, and the note says what there is to say."""
    grounding, support = journey.release.grounding, journey.support
    weak = support is not None and support < grounding.min_support
    if not weak or support is None:
        return _cited(journey, before, rest)
    refused = grounding.below == "refuse" and not before
    choice = journey.choice
    choice.below_min_support = "refused" if refused else "annotated"
    journey.spans["check"].attributes["below_min_support"] = choice.below_min_support
    action: Action = "block" if refused else "flag"
    journey.verdicts.append(Verdict(GUARD, "output", CATEGORY, action, 1 - support, RULE, VERSION))
    if refused:
        choice.finish_reason = "content_filter"
        choice.withheld = {"category": CATEGORY, "rule": RULE, "exposed_chars": 0}
        choice.extra_delivered = {}
        return grounding.refusal
    rest = _cited(journey, before, rest)
    if journey.request.shape is not None:
        return rest  # a note would break it; the verdict says the same
    return f"{rest.rstrip()}\n\n{grounding.note}"


def _cited(journey: Journey, before: str, rest: str) -> str:
    citing = citing_of(journey, journey.choice)
    if citing.marked:
        return citing.add(rest)
    citing.add(before + rest)  # what left in pieces of any length is cited as a whole, beside the text
    return rest


async def _deliver(journey: Journey, parts: Parts, span: Span) -> None:
    if journey.delivered and journey.finish_reason != "content_filter":
        journey.delivered = deliver(journey, "", journey.delivered)


STAGE = Stage("check", _run)
DELIVER = Stage("check", _deliver)
"""The second half of it, when the answer has been judged and cleaned."""
