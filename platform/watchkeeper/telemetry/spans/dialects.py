"""The dialects, in the order in which they are asked. Each fills in what it finds and the ones before it left open, so that
a span that speaks several (many do) says everything once."""

from collections.abc import Callable
from typing import Final

from watchkeeper.telemetry.spans import genai, genai_older, mlflow_sdk, openinference
from watchkeeper.telemetry.spans.part import Part, Place, code_of
from watchkeeper.telemetry.spans.span import Span

Dialect = Callable[[Span, Part], None]

DIALECTS: Final[tuple[Dialect, ...]] = (openinference.read, mlflow_sdk.read, genai.read, genai_older.read)

SESSIONS: Final = (
    *("session.id", "gen_ai.conversation.id", "mlflow.trace.session", "traceloop.association.properties.session_id"),
)
USERS: Final = ("user.id", "enduser.id", "mlflow.trace.user", "traceloop.association.properties.user_id")
_ASSOCIATED: Final = "traceloop.association.properties."
_NO_SERVICE: Final = "unknown_service"

FOREVER: Final = (1 << 63) - 1


def read(span: Span) -> Part:
    """What the span says. Its texts are not redacted yet."""
    part = Part(
        span_id=span.span_id,
        parent_id=span.parent_id,
        place=_place(span),
        start=min(span.start, FOREVER),
        end=min(max(span.end, span.start), FOREVER),
    )
    for dialect in DIALECTS:
        dialect(span, part)
    _whose(span, part)
    _failure(span, part)
    part.first_token_at = max(0, min(part.first_token_at, FOREVER))
    return part


def _place(span: Span) -> Place:
    if not span.parent_id:
        return "root"
    return "entry" if span.remote else "inside"


def _whose(span: Span, part: Part) -> None:
    """Session, user, tags and service: the same names in all dialects."""
    part.session = part.session or _first(span, SESSIONS)
    part.user = part.user or _first(span, USERS)
    service = str(span.resource.get("service.name") or "")
    part.service = "" if service.startswith(_NO_SERVICE) else service
    part.version = str(span.resource.get("service.version") or "")
    environment = span.resource.get("deployment.environment.name") or span.resource.get("deployment.environment")
    if environment:
        part.tags = {**part.tags, "environment": str(environment)}
    told = {
        key.removeprefix(_ASSOCIATED): str(value)
        for key, value in span.attributes.items()
        if key.startswith(_ASSOCIATED) and key not in (*SESSIONS, *USERS)
    }
    if told:
        part.tags = {**part.tags, **told}


def _failure(span: Span, part: Part) -> None:
    if not span.failed:
        return
    kinds = [event.attributes.get("exception.type") for event in span.events if event.name == "exception"]
    part.error = code_of(span.attributes.get("error.type") or (kinds[-1] if kinds else None) or "error")


def _first(span: Span, names: tuple[str, ...]) -> str:
    found = (span.attributes.get(name) for name in names)
    return next((str(value).strip('"') for value in found if value not in (None, "")), "")
