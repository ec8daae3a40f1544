"""The parts of one trace → one record. One trace is one request, however many times a model was called for it.

    prompt_text     what its root was asked; else the newest user turn of the first call of a model
    output_text     what its root answered; else the answer of the last call
    prompt          the conversation of the last call: what the answer was made of
    tokens, cost    sums over all calls
    model, upstream, finish_reason, stream, ttft_ms, tpot_ms     of the last call
    stages          calls → generate, retrievers → ground, embeddings → embed, guardrails → guard_in before the last call
                    and guard_out after it; each summed up, as in the gateway; nothing else is a stage of ours

A call inside a call (a framework's around the client's) is one: the inner one counts. A trace is the tenant's who sent its
root, or else its first part; what another sent under the same id is no part of it. Knows nothing of dialects, and
nothing of where parts are kept.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from watchkeeper.record import Origin, Record, Source, Stage, StageName, StageStatus
from watchkeeper.telemetry.spans.part import MOST_SOURCES, MOST_TAGS, Part

MILLI: Final = 1_000_000
"""Nanoseconds of a millisecond."""

OLDEST: Final = 7 * 86_400_000_000
"""µs. An export that says that it is older than what the schedule still scores has a clock that is wrong."""


class Trace(NamedTuple):
    """The parts of a trace by what they are, each list by time."""

    root: Part | None
    calls: list[Part]
    parts: list[Part]


def assemble(request_id: str, parts: Iterable[Part], *, source: Origin, arrived_at: int) -> Record | None:
    """One record; None where no model was called and nobody was asked anything. `arrived_at`: µs; the time of a request
    whose own clock is ahead of ours, a week behind, or silent."""
    trace = _of_one_tenant(_sorted(parts))
    root, calls = trace.root, trace.calls
    if not calls and not (root is not None and root.kind != "foreign" and root.told):
        return None
    begun = min((part.start for part in trace.parts if part.start > 0), default=0)
    ended = max(part.end for part in trace.parts)
    last = calls[-1] if calls else root
    assert last is not None
    outer = root if root is not None and root is not last and root.kind == "step" else None
    asked = next((part for part in (outer, *calls, last) if part is not None and part.asked), last)
    answered = next((part for part in (outer, last) if part is not None and part.answered), last)
    total_ms = (ended - begun) / MILLI
    stages = _stages(trace, begun)
    generated = next((stage.ms for stage in stages if stage.name == "generate"), 0.0)
    error = root.error if root is not None else last.error
    return Record(
        request_id=request_id,
        received_at=begun // 1000 if arrived_at - OLDEST <= begun // 1000 <= arrived_at else arrived_at,
        tenant=_first(trace, "tenant"),
        user=_first(trace, "user") or None,
        session=_first(trace, "session") or None,
        route=_first(trace, "service") or "default",
        tags=_tags(trace),
        release=_release(trace),
        model=last.model,
        upstream=last.provider or None,
        attempts=1 if calls else 0,
        stream=last.stream,
        prompt=tuple(last.messages),
        prompt_text=asked.asked,
        output_text=answered.answered,
        finish_reason=last.finish_reason,
        error=error,
        status=200 if error is None else 500,
        input_tokens=sum(part.input_tokens for part in calls or [last]),
        output_tokens=sum(part.output_tokens for part in calls or [last]),
        cost_usd=sum(part.cost_usd for part in calls or [last]),
        ttft_ms=(last.first_token_at - begun) / MILLI if last.first_token_at >= begun > 0 else None,
        tpot_ms=_tpot_ms(last),
        total_ms=total_ms,
        overhead_ms=max(0.0, total_ms - generated),
        stages=stages,
        sources=_sources(trace),
        retrieved=_retrieved(trace),
        redactions=dict(sum((Counter(part.redactions) for part in _each(asked, answered)), Counter())),
        source=source,
    )


def _sorted(parts: Iterable[Part]) -> Trace:
    ordered = sorted(parts, key=lambda part: (part.start, part.end, part.span_id))
    roots = [part for place in ("root", "entry") for part in ordered if part.place == place]
    calls = [part for part in ordered if part.kind == "llm"]
    around = _with_a_call_inside(ordered)
    calls = sorted((part for part in calls if part.span_id not in around), key=lambda part: (part.end, part.start))
    return Trace(roots[0] if roots else None, calls, ordered)


def _of_one_tenant(trace: Trace) -> Trace:
    owner = _first(trace, "tenant")
    if all(part.tenant == owner for part in trace.parts):
        return trace
    return _sorted(part for part in trace.parts if part.tenant == owner)


def _with_a_call_inside(parts: Sequence[Part]) -> set[str]:
    """The spans that have a call of a model somewhere below them."""
    parents = {part.span_id: part.parent_id for part in parts}
    found: set[str] = set()
    for part in parts:
        above = part.parent_id if part.kind == "llm" else ""
        while above and above not in found:
            found.add(above)
            above = parents.get(above, "")
    return found


def _stages(trace: Trace, begun: int) -> tuple[Stage, ...]:
    """In the order in which each began first."""
    answered_at = trace.calls[-1].start if trace.calls else 0
    found: dict[StageName, list[Part]] = {}
    calls = {part.span_id for part in trace.calls}
    for part in trace.parts:
        name = _stage_of(part, answered_at)
        if name is not None and (name != "generate" or part.span_id in calls):
            found.setdefault(name, []).append(part)
    return tuple(
        Stage(
            name,
            (min(part.start for part in group) - begun) / MILLI,
            sum(part.end - part.start for part in group) / MILLI,
            _status(group),
            {"calls": len(group)} if len(group) > 1 else {},
        )
        for name, group in found.items()
    )


def _stage_of(part: Part, answered_at: int) -> StageName | None:
    if part.kind == "llm":
        return "generate"
    if part.kind == "retriever":
        return "ground"
    if part.kind == "embedding":
        return "embed"
    if part.kind == "guardrail":
        return "guard_in" if part.start <= answered_at else "guard_out"
    return None


def _status(group: Sequence[Part]) -> StageStatus:
    """An error that was got over (another call went well after it) is a degraded stage."""
    failed = [part.error is not None for part in group]
    if not any(failed):
        return "ok"
    return "error" if failed[-1] else "degraded"


def _tpot_ms(last: Part) -> float | None:
    if last.output_tokens < 2 or not last.first_token_at or last.end < last.first_token_at:
        return None
    return (last.end - last.first_token_at) / MILLI / (last.output_tokens - 1)


def _sources(trace: Trace) -> tuple[Source, ...]:
    """What was retrieved, each passage once."""
    found = {source.id: source for part in reversed(trace.parts) for source in reversed(part.sources)}
    return tuple(reversed(found.values()))[:MOST_SOURCES]


def _retrieved(trace: Trace) -> int | None:
    retrievers = [part for part in trace.parts if part.kind == "retriever"]
    return len(_sources(trace)) if retrievers else None


def _tags(trace: Trace) -> dict[str, str]:
    tags = {key: value for part in reversed(trace.parts) for key, value in part.tags.items()}
    if len(trace.calls) > 1:
        tags["model_calls"] = str(len(trace.calls))
    return dict([*tags.items()][-MOST_TAGS:])


def _release(trace: Trace) -> str:
    """`service@version`, as our own releases are written; empty where no version is told."""
    service, version = _first(trace, "service"), _first(trace, "version")
    return f"{service}@{version}" if service and version else ""


def _first(trace: Trace, name: str) -> str:
    """The root's, else that of the earliest part that has one."""
    ordered = trace.parts if trace.root is None else [trace.root, *trace.parts]
    found: list[str] = [getattr(part, name) for part in ordered]
    return next((value for value in found if value), "")


def _each(*parts: Part) -> list[Part]:
    """The parts, each once."""
    return list({part.span_id: part for part in parts}.values())
