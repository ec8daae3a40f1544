"""A record with everything in it redacted that somebody else than the gateway wrote: the one place that knows which of its
fields hold such text.

What is left as it is, is ours (ids, times, counts, roles, names of attributes, of guards and of releases) or named by the
operator. Knows nothing of how a record comes about.
"""

from typing import Final

import msgspec

from watchkeeper.record import Message, Record, Redact, Scalar, Source, Stage
from watchkeeper.serving.redact import harmless, tally

OURS: Final = frozenset(
    {
        "request_id", "received_at", "tenant", "release", "digest", "upstream", "replica", "attempts", "stream", "language",
        "status", "input_tokens", "output_tokens", "cost_usd", "ttft_ms", "tpot_ms", "total_ms", "overhead_ms", "verdicts",
        "retrieved", "redactions", "support", "embedding", "source", "schema_version",
    }
)  # fmt: skip
"""The fields that nobody's text gets into. An embedding is made of text that was redacted."""

SNIPPET: Final = 500
"""Characters of a retrieved passage that a record keeps."""


def redacted_record(record: Record, redact: Redact) -> Record:
    """The record that may be kept. `redactions` grows by what was taken out, each text counted once: a prompt that is in a
    message does not count again, nor does a passage."""
    counts = dict(record.redactions)
    known: dict[str, str] = {}

    def clean(text: str, counted: bool = True) -> str:
        if harmless(text):
            return text
        redacted = known.get(text)
        if redacted is None:
            redacted, found = redact(text)
            known[text] = redacted
            if counted:
                tally(counts, found)
        return redacted

    def cleaned(stage: Stage) -> Stage:
        changed: dict[str, Scalar] = {}
        for key, value in stage.attributes.items():
            if isinstance(value, str) and not harmless(value) and (redacted := clean(value)) != value:
                changed[key] = redacted
        return msgspec.structs.replace(stage, attributes=stage.attributes | changed) if changed else stage

    return msgspec.structs.replace(
        record,
        user=record.user and redact.name(record.user),
        session=record.session and redact.name(record.session),
        route=clean(record.route),
        tags={clean(key): clean(value) for key, value in record.tags.items()},
        model=clean(record.model),
        prompt=tuple([Message(message.role, clean(message.content)) for message in record.prompt]),
        prompt_text=clean(record.prompt_text, counted=not record.prompt),
        output_text=clean(record.output_text),
        finish_reason=record.finish_reason and clean(record.finish_reason),
        error=record.error and clean(record.error),
        stages=tuple([cleaned(stage) for stage in record.stages]),
        sources=tuple(
            Source(clean(source.id), clean(source.title), source.score, clean(source.text, counted=False)[:SNIPPET])
            for source in record.sources
        ),
        entities=tuple(map(clean, record.entities)),
        redactions=counts,
    )
