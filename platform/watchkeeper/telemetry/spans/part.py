"""What one span says of a request, in our words: what a dialect fills in, and what is kept until its trace is whole.

Mutable while dialects read a span; redacted before it is kept anywhere.
"""

import re
from collections import Counter
from typing import Final, Literal

import msgspec

from watchkeeper.record import Message, Redact, Source

Kind = Literal["llm", "retriever", "embedding", "guardrail", "step", "foreign"]
"""`step`: of an application with a language model in it (a chain, an agent, a tool); `foreign`: nothing that we know."""

Place = Literal["inside", "entry", "root"]
"""`entry`: its parent is in another process, and may never come."""

SNIPPET: Final = 500
"""Characters of a retrieved passage that are kept."""
READ: Final = 4
"""So many times what is kept is redacted, and cut after it: half an address is found by nobody."""
MOST_SOURCES: Final = 20
MOST_TAGS: Final = 20
LONGEST_NAME: Final = 200

_CODE: Final = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*\.)*([A-Za-z_][A-Za-z0-9_-]{0,63})|([1-5][0-9]{2})")


class Part(msgspec.Struct, kw_only=True):
    """`tenant`: who sent it. Times in ns since the epoch; `first_token_at`: 0 where it is not known. `asked`, `answered`:
    what went in and came out, as texts of people's, where the span says so. `error`: a short code, never a text.
    `redactions`: what was taken out of `asked` and `answered`, by category."""

    span_id: str
    tenant: str = "default"
    parent_id: str = ""
    place: Place = "inside"
    kind: Kind = "foreign"
    start: int = 0
    end: int = 0
    error: str | None = None
    messages: list[Message] = []
    asked: str = ""
    answered: str = ""
    model: str = ""
    provider: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    finish_reason: str | None = None
    stream: bool = False
    first_token_at: int = 0
    sources: list[Source] = []
    session: str = ""
    user: str = ""
    service: str = ""
    version: str = ""
    tags: dict[str, str] = {}
    redactions: dict[str, int] = {}

    @property
    def told(self) -> bool:
        """Whether it says anything of a question or an answer."""
        return bool(self.asked or self.answered or self.messages)


def code_of(text: object) -> str:
    """A short code of an error's type: a class's name without its module, a status, or `error` for whatever is neither."""
    found = _CODE.fullmatch(str(text))
    return (found[1] or found[2]) if found else "error"


def cleaned(part: Part, redact: Redact) -> Part:
    """The part with every text in it redacted."""
    counts: Counter[str] = Counter()

    def clean(text: str, most: int) -> str:
        return redact(text[: READ * most])[0][:most] if text else text

    def counted(text: str) -> str:
        redacted, found = redact(text) if text else (text, {})
        counts.update(found)
        return redacted

    asked, answered = counted(part.asked), counted(part.answered)
    return msgspec.structs.replace(
        part,
        asked=asked,
        answered=answered,
        redactions=dict(counts),
        messages=[Message(clean(one.role, LONGEST_NAME), redact(one.content)[0]) for one in part.messages],
        sources=[
            Source(clean(one.id, SNIPPET), clean(one.title, SNIPPET), one.score, clean(one.text, SNIPPET))
            for one in part.sources[:MOST_SOURCES]
        ],
        tags={clean(key, LONGEST_NAME): clean(value, LONGEST_NAME) for key, value in [*part.tags.items()][:MOST_TAGS]},
        error=part.error and clean(part.error, LONGEST_NAME),
        finish_reason=part.finish_reason and clean(part.finish_reason, LONGEST_NAME),
        model=clean(part.model, LONGEST_NAME),
        provider=clean(part.provider, LONGEST_NAME),
        session=redact.name(part.session[: READ * LONGEST_NAME])[:LONGEST_NAME],
        user=redact.name(part.user[: READ * LONGEST_NAME])[:LONGEST_NAME],
        service=clean(part.service, LONGEST_NAME),
        version=clean(part.version, LONGEST_NAME),
    )


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Part)


def encode(part: Part) -> bytes:
    """Part → msgpack. A lone surrogate, which UTF-8 cannot carry, becomes U+FFFD."""
    try:
        return _encoder.encode(part)
    except UnicodeEncodeError:
        return _encoder.encode(cleaned(part, _Whole()))


def decode(body: bytes) -> Part:
    """msgpack → Part. Raises `msgspec.DecodeError` on anything else."""
    return _decoder.decode(body)


class _Whole:
    """Takes out of texts what UTF-8 cannot carry."""

    def __call__(self, text: str) -> tuple[str, dict[str, int]]:
        return self.name(text), {}

    def name(self, text: str) -> str:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
