"""ground: the session's turns, passages of the knowledge base, and its entities named in the prompt."""

import contextlib

import msgspec

from watchkeeper.encoder.client import EncoderUnavailable
from watchkeeper.record import Source
from watchkeeper.serving.citing import unmarked
from watchkeeper.serving.index import asks
from watchkeeper.serving.journey import Journey, Span
from watchkeeper.serving.knowledge import Reading
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.sessions import SessionsUnavailable
from watchkeeper.serving.stages.embed import embed, searched, whole, windows
from watchkeeper.serving.stages.stage import Stage


async def _run(journey: Journey, parts: Parts, span: Span) -> None:
    _read_session(journey, parts, span)
    query = searched(journey)
    span.attributes |= {"turns": len(journey.history), "query": parts.redact(query)[0][:200]}
    reading = parts.knowledge.reading(journey.tenant, journey.request.extension.route) if parts.knowledge else None
    if reading:
        await _search(journey, parts, span, reading, query)


def _read_session(journey: Journey, parts: Parts, span: Span) -> None:
    """The session's last turns, where only one message of the user's was sent."""
    session = journey.request.extension.session
    if not session or len(journey.turns) != 1 or journey.turns[0].role != "user":
        return
    try:
        limit = journey.release.grounding.turns
        journey.history = parts.sessions.turns(journey.tenant, parts.redact.name(session), limit)
    except SessionsUnavailable as away:
        span.status, span.attributes["error"] = "degraded", str(away)


async def _search(journey: Journey, parts: Parts, span: Span, reading: Reading, query: str) -> None:
    """Passages and names from what this request may read."""
    grounding = journey.release.grounding
    if parts.settings.stages.embed:
        with contextlib.suppress(EncoderUnavailable):  # then keywords alone are searched
            await embed(journey, parts, windows(query))
    vector = whole(journey, query)
    found = reading.search(query, vector, grounding.k, grounding.min_score)
    journey.sources = _fitting(found.sources, grounding.max_characters)
    journey.retrieved = len(journey.sources)
    journey.index_version = reading.version
    # In the redacted prompt: the base may know by name what was taken out there (a street, a number).
    journey.entities = reading.link(parts.redact(journey.prompt)[0])
    if found.degraded:
        span.status = "degraded"
    if found.spelling:
        span.attributes["spelling"] = ", ".join(f"{word} → {stem}" for word, stem in found.spelling)
    span.attributes |= {
        "documents": len(journey.sources),
        "search": "keywords" if found.degraded or vector is None else "hybrid",
        "bases": ", ".join(reading.names),
        "index": reading.version,
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


def unfound(journey: Journey) -> str | None:
    """What is said instead of an answer where the release wants none without passages, and there is none (nothing was
    found, or a guard took it out). None: the model answers; also where the prompt asks for nothing, or tools and data are
    asked for, of which nobody knows what they rest on."""
    grounding, span = journey.release.grounding, journey.spans.get("ground")
    if grounding.no_hit == "answer" or journey.sources or span is None:
        return None
    if journey.request.shape is not None or journey.request.forwarded.get("tools") or not asks(journey.prompt):
        return None
    span.attributes["no_hit"] = "said"
    return grounding.no_hit_text


async def remember(journey: Journey, parts: Parts) -> None:
    """Stores the turn in its session, redacted, once it has been answered."""
    session = journey.request.extension.session
    if session is None or journey.delivered is None:
        return
    try:
        answer = journey.delivered.removesuffix(f"\n\n{journey.release.grounding.note}")
        if journey.choice.citing is not None and journey.choice.citing.marked:
            answer = unmarked(answer, len(journey.sources))  # they number passages that the next turn does not have
        asked, answered = parts.redact(journey.prompt)[0], parts.redact(answer)[0]
        session = parts.redact.name(session)
        parts.sessions.add(journey.tenant, session, asked, answered, journey.request_id)
    except SessionsUnavailable as away:
        span = journey.spans.get("ground") or journey.spans["generate"]  # the stage may be off; there was an answer
        span.attributes["not_stored"] = str(away)


STAGE = Stage("ground", _run)
