"""`GET /openapi.json`: what can be asked of the gateway and what it answers, made of the types that parse and write it.

Knows nothing of any request.
"""

from functools import cache
from typing import Any, Final

import msgspec

from watchkeeper import __version__
from watchkeeper.embedded.openai_api import ErrorBody, Model, ModelList
from watchkeeper.serving.opinion import FeedbackBody
from watchkeeper.serving.request import ChatBody
from watchkeeper.serving.shapes import Chunk, Completion, Embeddings, EmbeddingsBody, Event, FeedbackTaken, Live, Ready

TYPES: Final = (
    ChatBody, Completion, Chunk, EmbeddingsBody, Embeddings, FeedbackBody, FeedbackTaken, Model, ModelList, Live, Ready,
    ErrorBody, Event,
)  # fmt: skip
TEMPLATE: Final = "#/components/schemas/{name}"

ALWAYS: Final = {
    400: "The request is wrong: `param` and the message say where.",
    401: "A key is asked for here, and none that is valid came.",
    403: "The key may not do this.",
    413: "The body is too large.",
    429: "Too much is asked for at once, or a budget is spent; `retry-after` says when to come back.",
    500: "The gateway failed; its log tells more under the request's id.",
    503: "It cannot be taken now; `retry-after` says when to come back.",
}
UPSTREAM: Final = {
    404: "No such model.",
    408: "The upstream waited too long.",
    422: "The upstream does not take the request.",
    502: "The upstream failed.",
    504: "The upstream did not answer in time.",
}
HEADERS: Final = {
    "x-request-id": "Of the request, and of its trace.",
    "x-watchkeeper-release": "The release that served it.",
    "x-watchkeeper-overhead-ms": "What the gateway added, in milliseconds.",
}


@cache
def document() -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    _, components = msgspec.json.schema_components(TYPES, ref_template=TEMPLATE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Watchkeeper",
            "version": __version__,
            "description": "OpenAI's API in front of your models, with guards, records and releases.",
        },
        "paths": _paths(),
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        # Without keys set, none is asked for.
        "security": [{}, {"key": []}],
    }


def _paths() -> dict[str, Any]:
    chat = _operation(
        "createChatCompletion",
        "An answer of the model, plain or as a stream of events.",
        {"application/json": Completion, "text/event-stream": Event},
        body=ChatBody,
        errors=ALWAYS | UPSTREAM,
    )
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()}
    chat["responses"]["200"]["headers"] = {name: {**header, "required": True} for name, header in headers.items()}
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {
        "/v1/chat/completions": {"post": chat},
        "/v1/embeddings": {
            "post": _operation(
                "createEmbedding", "Vectors of texts.", {"application/json": Embeddings}, body=EmbeddingsBody
            )
        },
        "/v1/feedback": {
            "post": _operation(
                "giveFeedback", "What somebody says of an answer.", {"application/json": FeedbackTaken}, body=FeedbackBody
            )
        },
        "/v1/traces": {"post": _traces()},
        "/v1/models": {
            "get": _operation("listModels", "What may be asked for as `model`.", {"application/json": ModelList})
        },
        "/v1/models/{model}": {
            "get": _operation(
                "retrieveModel",
                "One of them.",
                {"application/json": Model},
                errors=ALWAYS | {404: "No such model."},
                parameters=[name],
            )
        },
        "/health/live": {"get": _operation("live", "The process answers.", {"application/json": Live}, errors={})},
        "/health/ready": {"get": _ready()},
        "/metrics": {"get": _operation("metrics", "Counts for Prometheus.", {"text/plain": str})},
        "/openapi.json": {"get": _operation("openapi", "This document.", {"application/json": dict})},
    }


def _operation(
    name: str,
    summary: str,
    answers: dict[str, Any],
    *,
    body: type | None = None,
    errors: dict[int, str] = ALWAYS,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """`answers`: the type of a good answer, by media type."""
    good = {media: {"schema": _schema(kind)} for media, kind in answers.items()}
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": "Well.", "content": good}, **_errors(errors, ErrorBody)},
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _schema(body)}}}
    if parameters:
        operation["parameters"] = parameters
    return operation


def _errors(errors: dict[int, str], kind: type) -> dict[str, Any]:
    content = {"application/json": {"schema": _schema(kind)}}
    return {str(status): {"description": text, "content": content} for status, text in sorted(errors.items())}


def _schema(kind: Any) -> dict[str, Any]:
    if kind in TYPES:
        return {"$ref": TEMPLATE.format(name=kind.__name__)}
    return msgspec.json.schema(kind)


def _traces() -> dict[str, Any]:
    """OTLP over HTTP, whose shapes are OpenTelemetry's."""
    traces = _operation("exportTraces", "Traces of other people's instrumentations (OTLP).", {})
    either = {"application/json": {"schema": {"type": "object"}}, "application/x-protobuf": {"schema": {}}}
    traces["requestBody"] = {"required": True, "content": either}
    for status in (200, 400, 413, 415, 500, 503):
        traces["responses"][str(status)] = {"description": ALWAYS.get(status, "As OTLP has it."), "content": either}
    return traces


def _ready() -> dict[str, Any]:
    ready = _operation("ready", "Requests are taken; 503 while they are not.", {"application/json": Ready}, errors={})
    ready["responses"]["503"] = {"description": "The spool is full.", "content": ready["responses"]["200"]["content"]}
    return ready
