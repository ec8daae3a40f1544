"""Feedback: what a person said of one answer, frozen. It stands beside the record and imports nothing of ours.

Text in it is redacted before it is made; nothing here redacts.
"""

from typing import Final

import msgspec

SCHEMA_VERSION: Final = 1

NAME: Final = "feedback"
"""What was judged, where nobody says."""


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """One opinion on one answer: a `score` in [0, 1], 1 the best, or a `label`; never both.

    `feedback_id`: 32 hex digits. `request_id`: of the answer, 32 hex digits. `received_at`: when it was said, µs since the
    epoch. `tenant`: of whoever said it. `name`: what was judged.
    """

    feedback_id: str
    request_id: str
    received_at: int
    tenant: str = "default"
    name: str = NAME
    score: float | None = None
    label: str | None = None
    comment: str | None = None
    user: str | None = None
    schema_version: int = SCHEMA_VERSION


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Feedback)


def encode(feedback: Feedback) -> bytes:
    """Feedback → msgpack, the form in which the spool keeps it."""
    return _encoder.encode(feedback)


def decode(body: bytes) -> Feedback:
    """msgpack → Feedback. Raises `msgspec.DecodeError` (or its child `ValidationError`) on anything else."""
    return _decoder.decode(body)
