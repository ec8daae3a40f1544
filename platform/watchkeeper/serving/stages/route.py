"""route: which upstreams may answer, in the order in which to try them, and the messages that they will get."""

from watchkeeper.record import Message
from watchkeeper.serving.journey import INSTRUCTING, Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.stages.stage import Stage


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    journey.candidates = parts.upstreams.candidates(journey.upstream_name)
    span.attributes["candidates"] = ", ".join(upstream.name for upstream in journey.candidates)
    span.attributes["policy"] = "named" if journey.upstream_name else "weighted"
    journey.messages = _messages(journey)


def _messages(journey: Journey) -> list[Message]:
    """System prompt, the session's stored turns, the client's turns (redacted by guard_in), the newest of the user's with
    the numbered passages."""
    own = [turn.text for turn in journey.turns if turn.role in INSTRUCTING]
    talk = [Message(turn.role, turn.text) for turn in journey.turns if turn.role not in INSTRUCTING]
    asked = max((at for at, message in enumerate(talk) if message.role == "user"), default=None)
    if journey.sources and asked is not None:
        talk[asked] = Message("user", _grounded(journey, talk[asked].content))
    return [Message("system", "\n\n".join([journey.release.template, *own])), *journey.history, *talk]


def _grounded(journey: Journey, prompt: str) -> str:
    numbered = enumerate(journey.sources, start=1)
    sources = "\n".join(f"[{number}] {source.title}: {source.text}" for number, source in numbered)
    # Not str.format: braces in a template, a passage or a prompt are text.
    before, _, after = journey.release.grounded.partition("{prompt}")
    return before.replace("{sources}", sources) + prompt + after.replace("{sources}", sources)


STAGE = Stage("route", _run, on_error="closed")
