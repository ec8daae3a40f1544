"""A case: a conversation that ends with what a user asks, to be put to a release. And the digest of cases.

A case is what it asks: two with the same messages are the same case. Knows nothing of where cases come from or are kept.
"""

import hashlib
from collections.abc import Iterable
from functools import cached_property
from typing import Final

import msgspec

from watchkeeper.record import Message

ROLES: Final = ("system", "user", "assistant")


class Case(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """`messages`: as a client would send them, the last one a user's; `reference`: the answer that is expected;
    `request_id`: the request that it was made from; `session`: cases of one session are no independent evidence.

    Messages that no release could be asked are a `ValueError`, one line."""

    messages: tuple[Message, ...]
    reference: str | None = None
    request_id: str | None = None
    session: str | None = None
    tags: dict[str, str] = {}

    def __post_init__(self) -> None:
        for number, message in enumerate(self.messages, start=1):
            if message.role not in ROLES:
                raise ValueError(f"message {number}: role must be one of {', '.join(ROLES)}, not {message.role!r}")
        if not self.messages or self.messages[-1].role != "user":
            raise ValueError("messages must end with one of the user's")
        if not self.messages[-1].content.strip():
            raise ValueError("the last message is empty")
        if self.reference is not None and not self.reference.strip():
            raise ValueError("reference is empty; leave it out where there is none")

    @cached_property
    def case_id(self) -> str:
        """The first 16 hex digits of the sha256 of the messages as JSON."""
        return hashlib.sha256(msgspec.json.encode(self.messages, order="deterministic")).hexdigest()[:16]

    @property
    def prompt(self) -> str:
        """What is asked: the last message's text."""
        return self.messages[-1].content


def digest(cases: Iterable[Case]) -> str:
    """sha256 over all that the cases hold, in whatever order they come."""
    ordered = sorted(cases, key=lambda case: case.case_id)
    return hashlib.sha256(msgspec.json.encode(ordered, order="deterministic")).hexdigest()
