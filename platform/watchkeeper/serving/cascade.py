"""The cascade: a small model answers what it can, a large one what is hard, or what the small one answered badly.

Before the call the prompt's difficulty decides who is asked. After it, an answer of the small model that shows a weakness
is thrown away for one of the large one; both are paid for, and the record says so. Streams leave as they come: holding
them back would take from everyone the time that streaming gives. Where the large model cannot be had, the small one's
answer is better than none. Knows nothing of how upstreams are called.
"""

from collections.abc import AsyncGenerator, Callable

from watchkeeper.record import Scalar
from watchkeeper.serving.calibration import Decision, decide
from watchkeeper.serving.difficulty import difficulty
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.postprocess import postprocess
from watchkeeper.serving.refusals import refuses
from watchkeeper.serving.stages import generate
from watchkeeper.serving.stages.check import checker_of
from watchkeeper.serving.stages.embed import whole
from watchkeeper.serving.structured import settle
from watchkeeper.serving.wire import Delta, UpstreamFailed
from watchkeeper.settings import Cascade, Signal


def decided(journey: Journey, parts: Parts) -> Decision | None:
    """Who is asked first; None where no cascade is set for this request, or where it or its release names a model."""
    settings = parts.settings
    route = settings.route(journey.request.extension.route)
    cascade = settings.cascade if route is None or not route.upstreams else None
    if route is not None and route.cascade is not None:
        cascade = route.cascade
    if cascade is None or journey.upstream_name is not None:
        return None
    return decide(cascade, difficulty(journey.prompt, whole(journey, journey.prompt)), parts.calibrations())


def told(journey: Journey) -> dict[str, Scalar]:
    """What a record says of the decision; nothing where there was none."""
    decision = journey.cascade
    if decision is None or not journey.candidates:
        return {}
    return {
        "cascade": "small" if journey.candidates[0].name in decision.cascade.small else "large",
        "difficulty": round(decision.difficulty.value, 4),
        "difficulty_by": decision.difficulty.by,
        "threshold": decision.threshold,
        "threshold_by": decision.by,
    }


def answer(journey: Journey, parts: Parts) -> AsyncGenerator[Delta, None]:
    """The deltas of the answers, by whichever model is to give them. Raises `UpstreamFailed`."""
    decision = journey.cascade
    if decision is None or decision.hard or journey.request.stream or journey.request.n > 1:
        return generate.answers(journey, parts)
    return _answer_twice(journey, parts, decision.cascade)


async def _answer_twice(journey: Journey, parts: Parts, cascade: Cascade) -> AsyncGenerator[Delta, None]:
    """The small model's answer; the large one's where that is weak. Only where nothing has left yet."""
    held = [delta async for delta in generate.answers(journey, parts)]
    small, noted, spent = journey.upstream, journey.spans["route"].attributes, (journey.spent, journey.spent_usd)
    if small is not None and small.name in cascade.small and (weak := await weakness(held, journey, cascade)):
        noted["weakness"] = weak
        used = journey.usage = _used(held, journey, parts)
        journey.next_call()
        journey.candidates = [upstream for upstream in journey.candidates if upstream.name in cascade.large]
        try:
            async for delta in generate.answers(journey, parts):
                yield delta
        except UpstreamFailed as failure:
            noted["not_escalated"] = failure.code
            journey.answered_by, (journey.spent, journey.spent_usd) = small, spent
        else:
            noted |= {"cascade": "escalated", "small_input_tokens": used[0], "small_output_tokens": used[1]}
            return
    journey.usage = _used(held, journey, parts)
    for delta in held:
        yield delta


def _used(answer: list[Delta], journey: Journey, parts: Parts) -> tuple[int, int]:
    """Tokens in and out; estimated where the upstream does not say."""
    said = next((delta.usage for delta in reversed(answer) if delta.usage), None)
    return said or (journey.prompt_tokens, parts.tokens.text("".join(delta.text for delta in answer)))


async def weakness(answer: list[Delta], journey: Journey, cascade: Cascade) -> Signal | None:
    """The first sign that an answer is not good enough, in the order of the settings; None: nothing speaks against it."""
    text = "".join(delta.text for delta in answer)
    if any(delta.extra for delta in answer) and not text.strip():
        return None  # it calls tools
    cut = any(delta.finish_reason == "length" for delta in answer)
    shape = journey.request.shape
    wrong = shape is not None and (await settle(shape, text, None, torn=cut)).problem is not None
    shows: dict[Signal, Callable[[], bool]] = {
        "empty": lambda: not text.strip(),
        "truncated": lambda: cut and journey.request.max_tokens is None,
        "refusal": lambda: refuses(text),
        "repetition": lambda: "loop" in postprocess(text)[1],
        "json": lambda: wrong,
        "support": lambda: _unsupported(text, journey, cascade.min_support),
    }
    return next((signal for signal in cascade.signals if shows[signal]()), None)


def _unsupported(text: str, journey: Journey, least: float) -> bool:
    overall = checker_of(journey).support(text).overall
    return overall is not None and overall < least
