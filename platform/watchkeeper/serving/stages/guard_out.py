"""guard_out: the guards on the answer, whole or in the windows of a stream. Blocks it, or redacts what leaves."""

from collections.abc import Sequence
from typing import Any

from watchkeeper.encoder.client import EncoderUnavailable
from watchkeeper.record import Verdict
from watchkeeper.serving.choice import UNDERSTOOD, readable, with_texts
from watchkeeper.serving.guard import Judgement, Subject
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.judging import blocking, judge_text, merge
from watchkeeper.serving.leaves import Document, Leaves, Place
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.redact import redact
from watchkeeper.serving.scan import scan_copy
from watchkeeper.serving.stages.embed import embed, windows
from watchkeeper.serving.stages.stage import Stage


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    of_text, text = await judge_whole(journey, parts, span)
    beside, extra = await judge_extra(journey, parts, span)
    verdicts = merge((*of_text, *beside))
    merge_into(journey, verdicts)
    stop = blocking(verdicts)
    blocked = stop is not None or bool(span.attributes.get("blocked"))
    count = sum(verdict.target == "output" for verdict in journey.verdicts)
    span.attributes |= {"verdicts": count, "blocked": blocked}
    if stop and parts.settings.guards.streaming != "audit":
        withhold(journey, stop, exposed=0)
        journey.delivered = ""
    else:
        journey.delivered = text
        journey.choice.extra_delivered = extra


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


async def judge_whole(journey: Journey, parts: Parts, span: Span) -> tuple[tuple[Verdict, ...], str]:
    """Verdicts on the answer's text, and the text that may leave. Of an answer in JSON, the texts in it are judged: escapes
    hide nothing, and what is redacted is JSON again."""
    if journey.choice.json is None:
        judged = await judge_answer(journey, parts, journey.answer, span)
        return judged.verdicts, redact(journey.answer, judged.spans)[0]
    leaves = Leaves(Document(journey.answer))
    judged = await judge_answer(journey, parts, leaves.text, span)
    text = leaves.replaced(_label, judged.spans) if judged.spans else journey.answer
    return judged.verdicts, text


def _label(leaf: str, spans: Sequence[Place]) -> str:
    return redact(leaf, spans)[0]


async def judge_extra(journey: Journey, parts: Parts, span: Span) -> tuple[tuple[Verdict, ...], dict[str, Any]]:
    """Verdicts on what is said beside the answer's text (calls and their arguments, thoughts), and what may leave of it.
    What the guards cannot read does not leave."""
    extra = {key: value for key, value in journey.extra.items() if key in UNDERSTOOD}
    left_out = sorted(key for key, value in journey.extra.items() if value and key not in UNDERSTOOD)
    if left_out:
        span.attributes["left_out"] = ", ".join(left_out)
    if not extra:
        return (), extra
    leaves = Leaves(readable(extra))
    judged = await judge_answer(journey, parts, leaves.text, span)
    if not judged.spans:
        return judged.verdicts, extra
    return judged.verdicts, with_texts(extra, leaves.replaced(_label, judged.spans))


def withhold(journey: Journey, stop: Verdict, *, exposed: int) -> None:
    """Ends the answer. `exposed`: characters that had left before."""
    journey.finish_reason = "content_filter"
    journey.choice.withheld = {"category": stop.category, "rule": stop.rule, "exposed_chars": exposed}
    journey.choice.extra_delivered = {}
    journey.spans["guard_out"].attributes |= journey.choice.withheld


def merge_into(journey: Journey, verdicts: tuple[Verdict, ...]) -> None:
    """Adds verdicts on further parts of the same answer."""
    journey.verdicts = list(merge([*journey.verdicts, *verdicts]))


STAGE = Stage("guard_out", _run, on_error="closed")
