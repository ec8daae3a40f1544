"""preprocess: texts fit to be sent, the prompt's copy for retrieval, its language, and a first look at what fits.

The model gets the original; what had to be changed all the same is in the span. What cannot go to any upstream whatever
else comes with it is left out, or refused, before anybody works on it; `route` has the last word.
"""

import msgspec

from watchkeeper.serving.fitting import described, fit
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.preprocess import detect, searchable, sound
from watchkeeper.serving.request import Turn
from watchkeeper.serving.stages.route import messages
from watchkeeper.serving.stages.stage import Stage


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    turns: list[Turn] = []
    changes: set[str] = set()
    for turn in journey.turns:
        done = sound(turn.text)
        changes.update(done.changes)
        turns.append(msgspec.structs.replace(turn, text=done.text) if done.changes else turn)
    journey.turns = turns
    journey.query = searchable(journey.prompt)
    if any(turn.role == "user" for turn in turns):
        journey.language = detect(journey.prompt)[0]
    span.attributes |= {
        "language": journey.language or "unknown",
        "changes": ", ".join(sorted(changes)),
        "searched": "the prompt" if journey.query == journey.prompt else "a copy",
    }
    named = parts.upstreams.named(journey.upstream_name) if journey.upstream_name else None
    window = named.context if named else max(upstream.context for upstream in parts.upstreams.all)
    try:
        fit(journey, messages, parts.tokens, window, parts.settings.preprocess.truncate)
    finally:
        span.attributes |= described(journey)


STAGE = Stage("preprocess", _run)
