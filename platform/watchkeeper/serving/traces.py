"""`POST /v1/traces`: OTLP over HTTP, as its specification (1.7) says: protobuf or JSON, answered in kind.

200 with an `ExportTraceServiceResponse`, in which `partial_success` says what was refused and why; an error as a
`google.rpc.Status`. 400 and 413 are for good, 415 too; 503 comes with `Retry-After`, and the export is to be sent again.
Knows nothing of what is done with an export.
"""

from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from watchkeeper.serving.intake import Busy, Intake, TooLarge
from watchkeeper.serving.request import Refused
from watchkeeper.telemetry.spans.decoding import JSON, PROTOBUF, Unreadable
from watchkeeper.telemetry.spans.staging import StagingUnavailable

TYPES: Final = (PROTOBUF, JSON)
PACKINGS: Final = ("", "identity", "gzip")
RETRY_S: Final = 5

_CODES: Final = {400: 3, 413: 8, 415: 3, 500: 13, 503: 14}
"""HTTP status → gRPC's: INVALID_ARGUMENT, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE."""


def form_of(request: Request) -> tuple[str, bool]:
    """The type of an export, and whether it is packed. Raises `Refused` with 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    packing = request.headers.get("content-encoding", "").strip().lower()
    if kind not in TYPES:
        raise Refused(415, "unsupported_media_type", f"content-type must be one of {', '.join(TYPES)}")
    if packing not in PACKINGS:
        raise Refused(415, "unsupported_media_type", "content-encoding must be gzip or none")
    return kind, packing == "gzip"


async def take(intake: Intake, body: bytes, kind: str, packed: bool, limit: int, tenant: str) -> Response:
    """Has a tenant's export taken in, and answers it. Raises `Refused`."""
    try:
        taken = await intake.take(body, kind, packed=packed, tenant=tenant)
    except Unreadable as error:
        raise Refused(400, "invalid_body", str(error)) from None
    except TooLarge:
        raise Refused(413, "request_too_large", f"the export is larger than {limit} bytes when it is unpacked") from None
    except Busy:
        raise Refused(503, "busy", "many exports wait for their turn", retry_after=RETRY_S) from None
    except StagingUnavailable as error:
        raise Refused(503, "traces_full", f"traces cannot be kept now: {error}", retry_after=RETRY_S) from None
    return _answer(kind, taken.refused, taken.reason)


def refusal(refused: Refused, kind: str) -> Response:
    """An error in the form that the client speaks; JSON for one of another type."""
    code = _CODES.get(refused.status, 2)
    headers = {} if refused.retry_after is None else {"retry-after": str(refused.retry_after)}
    if kind == PROTOBUF:
        # google.rpc.Status: field 1 is the code, field 2 the message. Not worth a package.
        text = refused.message.encode()
        body = bytes([0x08, code, 0x12]) + _varint(len(text)) + text
        return Response(body, refused.status, headers, media_type=PROTOBUF)
    return Response(
        msgspec.json.encode({"code": code, "message": refused.message}), refused.status, headers, media_type=JSON
    )


def _answer(kind: str, refused: int, reason: str) -> Response:
    if kind == JSON:
        partial: dict[str, Any] = {"rejectedSpans": str(refused), "errorMessage": reason}
        return Response(msgspec.json.encode({"partialSuccess": partial} if reason else {}), media_type=JSON)
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    answer = ExportTraceServiceResponse()
    if reason:
        answer.partial_success.rejected_spans = refused
        answer.partial_success.error_message = reason
    return Response(answer.SerializeToString(), media_type=PROTOBUF)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
