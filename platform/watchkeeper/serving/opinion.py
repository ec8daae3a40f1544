"""What a client says of an answer, parsed strictly, redacted, and made into `Feedback`.

Knows nothing of the request that it speaks of, nor whether there was one.
"""

import re
from typing import Final

import msgspec

from watchkeeper.feedback import NAME, Feedback
from watchkeeper.record import Redact
from watchkeeper.serving.request import Refused, body_of

BODY_BYTES: Final = 65_536
"""A comment of the greatest length fits, however it is escaped."""
COMMENT: Final = 4_000
LABEL: Final = 100
USER: Final = 200

TRACE_PREFIX: Final = "tr-"
_ID: Final = re.compile(r"[0-9a-f]{32}")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class FeedbackBody(msgspec.Struct, forbid_unknown_fields=True):
    """`score` (0 to 1) or `label`: exactly one of them."""

    request_id: str
    score: float | None = None
    label: str | None = None
    comment: str | None = None
    name: str | None = None
    user: str | None = None


def opinion(body: bytes, redact: Redact, *, feedback_id: str, received_at: int, tenant: str = "default") -> Feedback:
    """Request body → Feedback, its label, comment and user redacted. Raises `Refused` with status 400."""
    known = body_of(body, FeedbackBody)
    request_id = known.request_id.removeprefix(TRACE_PREFIX).lower()
    name = known.name if known.name is not None else NAME
    rules = (
        ("request_id", _ID.fullmatch(request_id), "must be the answer's x-request-id: 32 hexadecimal digits"),
        ("score", (known.score is None) != (known.label is None), "give either score or label, and not both"),
        ("score", known.score is None or 0 <= known.score <= 1, "must be between 0 and 1"),
        ("label", known.label is None or known.label.strip(), "must not be empty"),
        ("label", len(known.label or "") <= LABEL, f"must have at most {LABEL} characters"),
        ("comment", len(known.comment or "") <= COMMENT, f"must have at most {COMMENT} characters"),
        ("user", len(known.user or "") <= USER, f"must have at most {USER} characters"),
        # A name is no text: it becomes a column of MLflow's, and what cannot be redacted must hold nothing to redact.
        ("name", _NAME.fullmatch(name) and redact(name)[0] == name, "must be a word of up to 64 letters, digits, _ . or -"),
    )
    for param, good, message in rules:
        if not good:
            raise Refused(400, "invalid_value", f"{param}: {message}", param=param)

    def cleaned(text: str | None) -> str | None:
        return redact(text.strip())[0] or None if text else None

    return Feedback(
        feedback_id=feedback_id,
        request_id=request_id,
        received_at=received_at,
        tenant=tenant,
        name=name,
        score=known.score,
        label=cleaned(known.label),
        comment=cleaned(known.comment),
        user=redact.name(known.user.strip()) or None if known.user else None,
    )
