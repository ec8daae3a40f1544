"""preprocess: clean text, language, token count. The model sees the cleaned text; what was changed is in the span."""

import msgspec

from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.preprocess import preprocess
from watchkeeper.serving.request import Refused, Turn
from watchkeeper.serving.stages.stage import Stage


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    turns: list[Turn] = []
    changes: set[str] = set()
    for turn in journey.turns:
        done = preprocess(turn.text)
        changes.update(done.changes)
        turns.append(msgspec.structs.replace(turn, text=done.text))
        if turn.role == "user":
            journey.language = done.language
    journey.turns = turns
    journey.prompt_tokens = parts.tokens.count([turn.text for turn in turns])
    span.attributes |= {
        "language": journey.language or "unknown",
        "tokens": journey.prompt_tokens,
        "changes": ", ".join(sorted(changes)),
    }
    window = max(upstream.context for upstream in parts.upstreams.all)
    if journey.prompt_tokens >= window:
        raise Refused(
            400,
            "context_length_exceeded",
            f"messages: {journey.prompt_tokens} tokens, but the largest context window here has {window}; shorten them",
            param="messages",
        )


STAGE = Stage("preprocess", _run)
