"""ground: the session's turns, passages of the knowledge base, and its entities named in the prompt."""

import contextlib

import msgspec

from watchkeeper.encoder.client import EncoderUnavailable
from watchkeeper.record import Source
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.sessions import SessionsUnavailable
from watchkeeper.serving.stages.embed import embed, searched, whole, windows
from watchkeeper.serving.stages.stage import Stage


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    grounding = journey.release.grounding
    session = journey.request.extension.session
    alone = len(journey.turns) == 1 and journey.turns[0].role == "user"
    if session and alone:
        try:
            journey.history = parts.sessions.turns(journey.tenant, parts.redact.name(session), grounding.turns)
        except SessionsUnavailable as away:
            span.status, span.attributes["error"] = "degraded", str(away)
    query = searched(journey)
    span.attributes |= {"turns": len(journey.history), "query": parts.redact(query)[0][:200]}
    if parts.knowledge is None:
        return
    if parts.settings.stages.embed:
        with contextlib.suppress(EncoderUnavailable):  # then keywords alone are searched
            await embed(journey, parts, windows(query))
    vector = whole(journey, query)
    found = parts.knowledge.search(query, vector, grounding.k, grounding.min_score)
    journey.sources = _fitting(found.sources, grounding.max_characters)
    journey.retrieved = len(journey.sources)
    # In the redacted prompt: the base may know by name what was taken out there (a street, a number).
    journey.entities = parts.knowledge.catalogue.link(parts.redact(journey.prompt)[0])
    if found.degraded:
        span.status = "degraded"
    span.attributes |= {
        "documents": len(journey.sources),
        "search": "keywords" if found.degraded or vector is None else "hybrid",
        "entities": ", ".join(journey.entities),
    }


def _fitting(sources: tuple[Source, ...], most: int) -> tuple[Source, ...]:
    """The first passages that together have at most `most` characters; always the best one, cut where it must be."""
    fitting: list[Source] = []
    for source in sources:
        left = most - sum(len(other.text) for other in fitting)
        if fitting and len(source.text) > left:
            break
        fitting.append(msgspec.structs.replace(source, text=source.text[:left]))
    return tuple(fitting)


async def remember(journey: Journey, parts: Parts) -> None:
    """Stores the turn in its session, redacted, once it has been answered."""
    session = journey.request.extension.session
    if session is None or journey.delivered is None:
        return
    try:
        asked, answered = parts.redact(journey.prompt)[0], parts.redact(journey.delivered)[0]
        session = parts.redact.name(session)
        parts.sessions.add(journey.tenant, session, asked, answered, journey.request_id)
    except SessionsUnavailable as away:
        span = journey.spans.get("ground") or journey.spans["generate"]  # the stage may be off; there was an answer
        span.attributes["not_stored"] = str(away)


STAGE = Stage("ground", _run)
