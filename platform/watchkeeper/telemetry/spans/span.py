"""A span as somebody else's instrumentation made it, whatever encoding it came in. Knows no dialect."""

from typing import Any, Final

import msgspec

Attributes = dict[str, Any]
"""Values are str, bool, int, float, and lists and dicts of them."""

WANTED: Final = (
    *("gen_ai.", "llm.", "openinference.", "mlflow.", "traceloop.", "input.", "output.", "retrieval."),
    *("session.id", "user.id", "enduser.id", "error.type", "exception.type", "metadata", "tag.tags", "content", "id"),
)
"""How attributes start that are read at all: the others (vectors above all) are not even decoded."""


class Event(msgspec.Struct, frozen=True):
    """`at`: ns since the epoch."""

    name: str
    at: int
    attributes: Attributes = {}


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """`trace_id`: 32 hex digits; `span_id`: 16; `parent_id`: 16, or none where it is a root. `remote`: the parent is in
    another process. `start`, `end`: ns since the epoch. `failed`: its status says so. `scope`: who made it."""

    trace_id: str
    span_id: str
    parent_id: str = ""
    remote: bool = False
    name: str = ""
    start: int = 0
    end: int = 0
    failed: bool = False
    attributes: Attributes = {}
    events: tuple[Event, ...] = ()
    resource: Attributes = {}
    scope: str = ""
