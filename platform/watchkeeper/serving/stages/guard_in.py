"""guard_in: the guards on what the client wrote and on the passages that were found. Blocks, redacts what the model will
see, and leaves out a passage that tries to give orders."""

import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec

from watchkeeper.encoder.client import EncoderUnavailable
from watchkeeper.record import Source, Verdict
from watchkeeper.serving.choice import readable, with_texts
from watchkeeper.serving.guard import Judgement, Subject
from watchkeeper.serving.guards.injection import neutralise
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.judging import blocking, judge_text, merge
from watchkeeper.serving.leaves import Leaves, Place
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.redact import redact, tally
from watchkeeper.serving.request import Refused, Turn
from watchkeeper.serving.scan import scan_copy
from watchkeeper.serving.stages.embed import embed, whole, windows
from watchkeeper.serving.stages.stage import Stage

REMEMBERED = 10_000
"""Passages whose judgements are kept."""


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    verdicts: list[Verdict] = []
    turns: list[Turn] = []
    for turn in journey.turns:
        subject = Subject(target="prompt", text=turn.text, scan=scan_copy(turn.text), language=journey.language)
        judged = judge_text(parts.guards, journey.release.policies, subject, journey.embeddings)
        verdicts += judged.verdicts
        text, found = parts.redact.replace(turn.text, judged.spans)
        tally(journey.redactions, found)
        calls, of_calls = await _calls(journey, parts, turn)
        verdicts += of_calls
        turns.append(msgspec.structs.replace(turn, text=neutralise(text), calls=calls))
    journey.sources, of_passages = await _passages(journey, parts)
    journey.verdicts += merge([*verdicts, *of_passages])
    await _keep_embedding(journey, parts)
    journey.turns = turns
    stop = blocking(journey.verdicts)
    span.attributes |= {"verdicts": len(journey.verdicts), "blocked": stop is not None}
    if stop:
        journey.finish_reason = "content_filter"
        raise Refused(400, "content_filter", f"the prompt was blocked: {stop.guard} ({stop.category})", param="messages")


async def _calls(journey: Journey, parts: Parts, turn: Turn) -> tuple[dict[str, Any], tuple[Verdict, ...]]:
    """What the model will see of what is said beside a message's content, and the verdicts on it: of calls and thoughts the
    client says that the model wrote them."""
    if not turn.calls:
        return turn.calls, ()
    leaves = Leaves(readable(turn.calls))
    with contextlib.suppress(EncoderUnavailable):  # guards that need the embedding then say `unknown`
        await embed(journey, parts, windows(leaves.text))
    subject = Subject(target="prompt", text=leaves.text, scan=scan_copy(leaves.text), language=journey.language)
    judged = judge_text(parts.guards, journey.release.policies, subject, journey.embeddings)
    if not judged.spans:
        return turn.calls, judged.verdicts

    def replace(leaf: str, spans: Sequence[Place]) -> str:
        text, found = parts.redact.replace(leaf, spans)
        tally(journey.redactions, found)
        return text

    return with_texts(turn.calls, leaves.replaced(replace, judged.spans)), judged.verdicts


async def _keep_embedding(journey: Journey, parts: Parts) -> None:
    """The record keeps the embedding of the redacted prompt: where something was taken out it is made again."""
    if not journey.embeddings:
        return
    text = parts.redact(journey.prompt)[0]
    try:
        await embed(journey, parts, windows(text))
    except EncoderUnavailable:
        return
    vector = whole(journey, text)
    journey.embedding = None if vector is None else vector.astype("<f2").tobytes()


async def _passages(journey: Journey, parts: Parts) -> tuple[tuple[Source, ...], list[Verdict]]:
    """The passages that may be shown to the model, and the verdicts on all. A block here takes the passage out, which is
    a redaction of the context, not the end of the request."""
    kept: list[Source] = []
    verdicts: list[Verdict] = []
    for source in journey.sources:
        judged = await _judge_passage(journey, parts, source)
        stop = blocking(judged.verdicts)
        verdicts += [
            msgspec.structs.replace(verdict, action="redact") if verdict.action == "block" else verdict
            for verdict in judged.verdicts
        ]
        if stop is None:
            title = _cleaned(source.title, 0, judged.spans)
            text = _cleaned(source.text, len(source.title) + 1, judged.spans)
            kept.append(msgspec.structs.replace(source, title=title, text=text))
    return tuple(kept), verdicts


def _shown(source: Source) -> str:
    """What the model reads of a passage: its title was written by whoever wrote the rest."""
    return f"{source.title}\n{source.text}"


def _cleaned(part: str, first: int, spans: Sequence[Place]) -> str:
    """The title or the text as the model gets it. `first`: where it stands in what is shown, of which `spans` are."""
    last = first + len(part)
    inside = [(max(a, first) - first, min(b, last) - first, name) for a, b, name in spans if a < last and b > first]
    return neutralise(redact(part, inside)[0])


async def _judge_passage(journey: Journey, parts: Parts, source: Source) -> Judgement:
    shown = _shown(source)
    known = parts.judged_passages.get((journey.release.digest, shown))
    if known is not None:
        return known
    with contextlib.suppress(EncoderUnavailable):  # guards that need the embedding then say `unknown`
        await embed(journey, parts, windows(shown))
    subject = Subject(target="context", text=shown, scan=scan_copy(shown))
    judged = judge_text(parts.guards, journey.release.policies, subject, journey.embeddings)
    if all(verdict.action != "unknown" for verdict in judged.verdicts):
        if len(parts.judged_passages) >= REMEMBERED:
            parts.judged_passages.clear()
        parts.judged_passages[(journey.release.digest, shown)] = judged
    return judged


STAGE = Stage("guard_in", _run, on_error="closed")
