"""route: which upstreams may answer, in the order in which to try them, and the messages that they will get."""

from watchkeeper.record import Message
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.stages.stage import Stage


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    journey.candidates = parts.upstreams.candidates(journey.upstream_name)
    span.attributes["candidates"] = ", ".join(upstream.name for upstream in journey.candidates)
    span.attributes["policy"] = "named" if journey.upstream_name else "weighted"
    journey.messages = _messages(journey)


def _messages(journey: Journey) -> list[Message]:
    """System prompt with the numbered passages, the session's stored turns, the client's turns (redacted by guard_in)."""
    sources = "".join(
        f"\n[{number}] {source.title}: {source.text}" for number, source in enumerate(journey.sources, start=1)
    )
    block = f"\n\nSources:{sources}" if sources else ""
    system = journey.release.template.replace("{sources}", block)
    own = [turn.text for turn in journey.turns if turn.role in ("system", "developer")]
    talk = [Message(turn.role, turn.text) for turn in journey.turns if turn.role not in ("system", "developer")]
    return [Message("system", "\n\n".join([system, *own])), *journey.history, *talk]


STAGE = Stage("route", _run, on_error="closed")
