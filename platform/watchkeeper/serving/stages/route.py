"""route: which upstreams may answer, in the order in which to try them, and the messages that they will get, as many as fit
their windows."""

from collections.abc import Sequence

from watchkeeper.record import Message
from watchkeeper.serving.candidates import able, ranked
from watchkeeper.serving.cascade import decided, told
from watchkeeper.serving.fitting import described, fit
from watchkeeper.serving.journey import INSTRUCTING, Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.stages.stage import Stage
from watchkeeper.settings import Upstream


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    policy, groups = _allowed(journey, parts)
    among = able(journey, [upstream for group in groups for upstream in group])
    if among:
        window = max(upstream.context for upstream in among)
        journey.messages = fit(journey, messages, parts.tokens, window, parts.settings.preprocess.truncate)
    needed = journey.prompt_tokens + (journey.answer_tokens or 0)
    fitting = {upstream.name for upstream in among if upstream.context >= needed}
    groups = [[upstream for upstream in group if upstream.name in fitting] for group in groups]
    journey.candidates = ranked(journey, parts.upstreams, groups, span)
    span.attributes["candidates"] = ", ".join(upstream.name for upstream in journey.candidates)
    span.attributes["policy"] = policy
    span.attributes |= described(journey) | told(journey)


def _allowed(journey: Journey, parts: Parts) -> tuple[str, Sequence[Sequence[Upstream]]]:
    """By which policy upstreams were chosen, and those that may answer: in groups that share the work, each asked only when
    none of those before it can."""
    among = parts.upstreams.among
    route = parts.settings.route(journey.request.extension.route)
    decision = journey.cascade = decided(journey, parts)
    if decision is not None:
        small, large = decision.cascade.small, decision.cascade.large
        order = (large, small) if decision.hard else (small, large)
        return "cascade", [among(names) for names in order]
    if journey.upstream_name is not None:
        return "named", [among((journey.upstream_name,))]
    if route is not None and route.order == "listed":
        return "listed", [among((name,)) for name in route.upstreams]
    return "balanced", [among((route and route.upstreams) or None)]


def messages(journey: Journey) -> list[Message]:
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
