"""guard_out: the guards on the answer, whole or in the windows of a stream. Blocks it, or redacts what leaves."""

from watchkeeper.encoder.client import EncoderUnavailable
from watchkeeper.record import Verdict
from watchkeeper.serving.guard import Judgement, Subject
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.judging import blocking, judge_text, merge
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.redact import redact
from watchkeeper.serving.scan import scan_copy
from watchkeeper.serving.stages.embed import embed, windows
from watchkeeper.serving.stages.stage import Stage


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    judged = await judge_answer(journey, parts, journey.answer, span)
    journey.verdicts += judged.verdicts
    stop = blocking(judged.verdicts)
    span.attributes |= {"verdicts": len(judged.verdicts), "blocked": stop is not None}
    if stop and parts.settings.guards.streaming != "audit":
        withhold(journey, stop, exposed=0)
        journey.delivered = ""
    else:
        journey.delivered = redact(journey.answer, judged.spans)[0]


async def judge_answer(journey: Journey, parts: Parts, text: str, span: Span) -> Judgement:
    """Verdicts on a text of the answer's, and the spans to redact in it: personal data that the passages given to the model
    hold themselves is no leak."""
    try:
        await embed(journey, parts, windows(text))
    except EncoderUnavailable as away:
        span.status, span.attributes["error"] = "degraded", str(away)
    subject = Subject(
        target="output",
        text=text,
        scan=scan_copy(text),
        language=journey.language,
        prompt=journey.prompt,
        sources=journey.sources,
        support=journey.support,
    )
    judged = judge_text(parts.guards, journey.release.policies, subject, journey.embeddings)
    given = "\n".join(source.text for source in journey.sources)
    leaks = tuple((start, end, category) for start, end, category in judged.spans if text[start:end] not in given)
    return Judgement(judged.verdicts, leaks)


def withhold(journey: Journey, stop: Verdict, *, exposed: int) -> None:
    """Ends the answer. `exposed`: characters that had left before."""
    journey.finish_reason = "content_filter"
    journey.spans["guard_out"].attributes |= {"category": stop.category, "rule": stop.rule, "exposed_chars": exposed}


def merge_into(journey: Journey, verdicts: tuple[Verdict, ...]) -> None:
    """Adds verdicts on further parts of the same answer."""
    journey.verdicts = list(merge([*journey.verdicts, *verdicts]))


STAGE = Stage("guard_out", _run, on_error="closed")
