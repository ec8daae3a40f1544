"""The gateway: HTTP in OpenAI's shapes around the loop. A request is accepted in the spool first, and its record is durable
there before the last byte of the answer leaves.

Knows nothing of what the stages do, or of where records go after the spool.
"""

import asyncio
import contextlib
import os
import random
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import numpy as np
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from watchkeeper.encoder.client import DIMENSION, EncoderUnavailable, TextRefused
from watchkeeper.serving import completion, traces
from watchkeeper.serving.access import caller_of, turned_away
from watchkeeper.serving.admission import Admission
from watchkeeper.serving.building import build, open_spool
from watchkeeper.serving.choice import Piece
from watchkeeper.serving.completion import Whole
from watchkeeper.serving.connection import presence_of
from watchkeeper.serving.embedding import wanted
from watchkeeper.serving.failure import defect, freeze, log_defect, refuse
from watchkeeper.serving.intake import Intake
from watchkeeper.serving.journey import Journey
from watchkeeper.serving.keys import Keys, keys_of
from watchkeeper.serving.loop import Loop
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.openapi import document
from watchkeeper.serving.opinion import BODY_BYTES, opinion
from watchkeeper.serving.parts import Parts
from watchkeeper.serving.request import Refused, parse
from watchkeeper.serving.stages.admit import models
from watchkeeper.serving.upstream_metrics import UpstreamCollector
from watchkeeper.settings import Settings
from watchkeeper.telemetry.depth import depth
from watchkeeper.telemetry.spool import Spool, SpoolFull

CHAT = "/v1/chat/completions"
ROUTES = (
    f"POST {CHAT}, POST /v1/embeddings, POST /v1/feedback, POST /v1/traces, GET /v1/models, "
    "GET /health/live, GET /health/ready, GET /metrics, GET /openapi.json"
)
RANDOM = 256
"""Request ids that are drawn at a time."""
_random: list[bytes] = []
os.register_at_fork(after_in_child=_random.clear)  # else two processes would draw the same
DISCONNECTED = 499
"""The status that records keep for a client that went away (nginx's number; no client ever sees it)."""


class Gateway:
    """One gateway worker: the loop, the spool, and what is counted."""

    def __init__(self, parts: Parts, spool: Spool, replica: str, keys: Keys) -> None:
        self.parts = parts
        self.keys = keys
        self.loop = Loop(parts)
        self.spool = spool
        self.replica = replica
        self.metrics = Metrics(UpstreamCollector(parts.upstreams))
        self.intake = Intake(parts.settings, spool, parts.redact, self.metrics)

    async def chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """POST /v1/chat/completions."""
        request_id, received_at, started = _request_id(), time.time_ns() // 1000, time.perf_counter()
        release = self.parts.releases.champion()
        headers = _headers(request_id, release.id)
        try:
            asked = parse(await _body(receive, self.parts.settings.gateway.max_body_bytes))
            self.spool.accept(request_id, received_at)
        except ClientDisconnect:
            return
        except Refused as refused:
            headers["x-watchkeeper-overhead-ms"] = f"{(time.perf_counter() - started) * 1000:.3f}"
            self.metrics.refused(refused.status)
            await _send(completion.refusal(refused, headers), send)
            return
        except SpoolFull as full:
            unavailable = _spool_full(full)
            self.metrics.refused(unavailable.status)
            await _send(completion.refusal(unavailable, headers), send)
            return
        journey = Journey(
            request_id=request_id,
            received_at=received_at,
            request=asked,
            release=release,
            clock=time.perf_counter,
            started=started,
            tenant=caller_of(scope).tenant,
            key=caller_of(scope).key,
            replica=self.replica,
            turns=list(asked.turns),
        )
        self.parts.in_flight += 1
        try:
            run = self._streamed if asked.stream else self._plain
            with presence_of(scope):
                await run(journey, send)
        finally:
            self.parts.in_flight -= 1
            if self.parts.admission:
                self.parts.admission.leave(journey, None)

    async def _plain(self, journey: Journey, send: Send) -> None:
        try:
            await self.loop.answer(journey)
            whole = completion.answer(journey, _told(journey))
        except asyncio.CancelledError:
            await self._disconnected(journey)
            raise
        except Exception as error:  # its record says what became of it
            whole = completion.refusal(refuse(journey, error), _told(journey))
        await self._answer(journey, whole, send)

    async def _streamed(self, journey: Journey, send: Send) -> None:
        try:
            pieces = await self.loop.open(journey)
        except asyncio.CancelledError:
            await self._disconnected(journey)
            raise
        except Exception as error:  # its record says what became of it
            await self._answer(journey, completion.refusal(refuse(journey, error), _told(journey)), send)
            return
        headers = _told(journey)
        headers["x-watchkeeper-overhead-ms"] = f"{journey.overhead_ms:.3f}"
        try:
            await _deliver(send, completion.stream_start(headers))
            await _deliver(send, completion.stream_part(completion.opening(journey)))
            async for piece in pieces:
                journey.first_byte_at = journey.first_byte_at or journey.clock()
                await _deliver(send, completion.stream_part(completion.piece(journey, piece)))
            ending = completion.ending(journey)
            await self._keep(journey)
            await _deliver(send, completion.stream_part(ending, last=True))
        except asyncio.CancelledError:
            await self._disconnected(journey, pieces)
            raise
        except ClientDisconnect:
            await self._disconnected(journey, pieces)
        except Exception as error:  # its record says what became of it, where it had none yet
            await self._break_off(journey, error, send)
        finally:
            await pieces.aclose()

    async def _answer(self, journey: Journey, whole: Whole, send: Send) -> None:
        """Sends a whole answer once its record is durable; what cannot be logged is not answered."""
        try:
            overhead_ms = await self._keep(journey)
        except SpoolFull as full:
            whole, overhead_ms = completion.refusal(_spool_full(full), _told(journey)), journey.overhead_ms
        whole.headers["x-watchkeeper-overhead-ms"] = f"{overhead_ms:.3f}"
        await _send(whole, send)

    async def _break_off(self, journey: Journey, error: Exception, send: Send) -> None:
        """Ends a stream that has begun with an error event."""
        refused = _spool_full(error) if isinstance(error, SpoolFull) else defect(journey, error)
        journey.error = journey.error or refused.code
        try:
            await self._keep(journey)
        except SpoolFull as full:
            refused = _spool_full(full)
        with contextlib.suppress(ClientDisconnect):
            await _deliver(send, completion.stream_part(completion.broken(refused), last=True))

    async def _disconnected(self, journey: Journey, pieces: AsyncGenerator[Piece, None] | None = None) -> None:
        """The record of a request whose client has gone, unless it has one already. Made when its stream has ended, as only
        then it is known what the upstream used."""
        if journey.kept:
            return
        journey.error, journey.status = "disconnected", DISCONNECTED
        try:
            if pieces is not None:
                await pieces.aclose()
        finally:
            with contextlib.suppress(SpoolFull):  # the spool notes by itself what it could not take
                await asyncio.shield(self._keep(journey))

    async def _keep(self, journey: Journey) -> float:
        """Makes the record and waits until it is durable. Once: a request has one record, whatever breaks after it.

        Returns the overhead, in ms, as the record has it. Raises `SpoolFull`; the spool then writes a record that says so
        as soon as it can.
        """
        if journey.kept:
            return journey.overhead_ms
        journey.kept = True
        record = freeze(journey, self.parts.redact)
        if self.parts.admission:
            self.parts.admission.leave(journey, record)
        await self.spool.append(record)
        self.metrics.count(record)
        if journey.cache:
            self.metrics.recalled(journey.cache)
        return record.overhead_ms

    async def feedback(self, request: Request) -> Response:
        """POST /v1/feedback: what someone says of an answer. It is durable when it is answered."""
        feedback_id, received_at = uuid.uuid4().hex, time.time_ns() // 1000
        try:
            body = await _body(request.receive, min(BODY_BYTES, self.parts.settings.gateway.max_body_bytes))
            said = opinion(
                body,
                self.parts.redact,
                feedback_id=feedback_id,
                received_at=received_at,
                tenant=caller_of(request).tenant,
            )
            await self.spool.append(said)
            response = completion.plain_json({"id": feedback_id, "request_id": said.request_id})
        except ClientDisconnect:
            response = Response(status_code=DISCONNECTED)  # nobody is there to read it
        except Refused as refused:
            response = completion.error(refused, {})
        except SpoolFull as full:
            response = completion.error(_spool_full(full), {})
        except Exception as error:  # what cannot be redacted is not kept
            log_defect(f"feedback {feedback_id}", error)
            message = f"the gateway failed; its log tells more under {feedback_id}"
            response = completion.error(Refused(500, "internal_error", message), {})
        self.metrics.said(response.status_code)
        return response

    async def traces(self, request: Request) -> Response:
        """POST /v1/traces: what other people's instrumentations export. It is durable when it is answered."""
        kind, limit = "", self.parts.settings.traces.max_body_bytes
        try:
            kind, packed = traces.form_of(request)
            body = await _body(request.receive, limit)
            return await traces.take(self.intake, body, kind, packed, limit, caller_of(request).tenant)
        except ClientDisconnect:
            return Response(status_code=DISCONNECTED)  # nobody is there to read it
        except Refused as refused:
            return traces.refusal(refused, kind)
        except Exception as error:  # what cannot be redacted is not kept
            log_defect("traces", error)
            return traces.refusal(Refused(500, "internal_error", "the gateway failed; its log tells more"), kind)

    async def embeddings(self, request: Request) -> Response:
        """POST /v1/embeddings: the encoder's, for clients that want the same vectors."""
        try:
            asked = wanted(await _body(request.receive, self.parts.settings.gateway.max_body_bytes), DIMENSION)
            admission = self.parts.admission
            tokens = asked.tokens(self.parts.tokens.text)
            with admission.counted(caller_of(request).tenant, tokens) if admission else contextlib.nullcontext():
                vectors = np.concatenate([await self.parts.encoder.embed(batch) for batch in asked.batches()])
        except ClientDisconnect:
            return Response(status_code=DISCONNECTED)  # nobody is there to read it
        except Refused as refused:
            return completion.error(refused, {})
        except TextRefused as error:
            return completion.error(Refused(400, "invalid_value", f"input: {error}", param="input"), {})
        except EncoderUnavailable as away:
            return completion.error(Refused(503, "encoder_unavailable", str(away), retry_after=5), {})
        except Exception as error:  # the file of budgets, say, on a disk that has gone
            log_defect("embeddings", error)
            return completion.error(Refused(500, "internal_error", "the gateway failed; its log tells more"), {})
        return completion.embeddings(vectors, self.parts.settings.encoder.model, tokens, asked.packed)

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        known = models(self.parts, self.parts.releases.champion().id, caller_of(request).tenant)
        return completion.models(known)

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{model}."""
        known = models(self.parts, self.parts.releases.champion().id, caller_of(request).tenant)
        return completion.model(request.path_params["model"], known)

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json: what can be asked here, and what is answered."""
        return completion.plain_json(document())

    async def live(self, request: Request) -> Response:
        """GET /health/live: the process answers."""
        return completion.plain_json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """GET /health/ready: requests are taken; 503 while the spool is full. What is merely degraded is named."""
        encoder = "ok" if await self.parts.encoder.healthy() else "away"
        body = {"status": "ready", "release": self.parts.releases.champion().id, "encoder": encoder, "knowledge": "none"}
        if self.parts.knowledge:
            body["knowledge"] = "ready" if self.parts.knowledge.complete else "indexing"
        if self.spool.full is not None:
            return completion.plain_json(body | {"status": "spool_full", "spool": self.spool.full}, status=503)
        return completion.plain_json(body)

    async def prometheus(self, request: Request) -> Response:
        """GET /metrics."""
        settings = self.parts.settings
        with contextlib.suppress(OSError):  # the rest is still worth telling
            looked = await asyncio.to_thread(
                depth, settings.data, settings.spool_folder, settings.gateway.max_spool_bytes, time.time
            )
            self.metrics.spool(looked, self.spool.full is not None)
        if self.parts.cache is not None:
            self.metrics.cached(len(self.parts.cache), self.parts.cache.bytes)
        if self.parts.admission:
            try:
                self.metrics.admission(self.parts.admission.queue.waiting, self.parts.admission.allowances())
            except Exception as error:  # the file of budgets, say, on a disk that has gone: as above
                log_defect("metrics", error)
        return Response(self.metrics.text(self.parts.in_flight), media_type="text/plain; version=0.0.4")


def _request_id() -> str:
    """A random UUID of version 4, by which the traces of others tell whether an id could be a request's of ours: as
    `uuid.uuid4().hex`, which asks the kernel for each one."""
    if not _random:
        drawn = os.urandom(16 * RANDOM)
        _random.extend(drawn[at : at + 16] for at in range(0, len(drawn), 16))
    bits = int.from_bytes(_random.pop()) & ~(0xF << 76 | 0x3 << 62)
    return f"{bits | 4 << 76 | 2 << 62:032x}"


def _headers(request_id: str, release_id: str) -> dict[str, str]:
    """What every answer tells. Made once it is known which release the request is served by."""
    return {"x-request-id": request_id, "x-watchkeeper-release": release_id}


def _told(journey: Journey) -> dict[str, str]:
    return _headers(journey.request_id, journey.release.id) | journey.limits


async def _body(receive: Receive, limit: int) -> bytes:
    """The request's body. Raises `Refused` with 413 beyond `limit` bytes, and `ClientDisconnect`."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > limit:
            raise Refused(413, "request_too_large", f"the body is larger than {limit} bytes")
        more = message.get("more_body", False)
    return bytes(body)


async def _send(whole: Whole, send: Send) -> None:
    for message in completion.messages(whole):
        await send(message)


async def _deliver(send: Send, message: dict[str, Any]) -> None:
    """Sends a part of a stream. Raises `ClientDisconnect` when nobody is there any more."""
    try:
        await send(message)
    except OSError as error:
        raise ClientDisconnect from error


def _spool_full(full: SpoolFull) -> Refused:
    return Refused(503, "spool_full", f"requests cannot be logged now, so none is taken: {full}", retry_after=5)


async def _not_found(request: Request, error: Exception) -> Response:
    message = f"{request.method} {request.url.path} does not exist here; there is {ROUTES}"
    status = getattr(error, "status_code", 404)
    return completion.error(Refused(status, "not_found", message), dict(getattr(error, "headers", None) or {}))


class Chat:
    """The chat endpoint as a bare ASGI application: it must see the client going away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await scope["app"].state.gateway.chat(scope, receive, send)


class Application(Starlette):
    """Starlette, behind access.py. Chat requests come in by a door of their own: its middleware and routing would be 5% of
    each, and have nothing to do for it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        gateway: Gateway = self.state.gateway
        refusal = turned_away(scope, gateway.keys)
        if refusal is not None:
            gateway.metrics.refused(refusal.status_code)
            await refusal(scope, receive, send)
        elif scope["path"] == CHAT and scope["method"] == "POST":
            await gateway.chat(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def application(settings: Settings) -> Starlette:
    """The ASGI application; collaborators are made when it starts and closed when it stops."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        keys = keys_of(settings)
        spool, replica = open_spool(settings)
        connector = aiohttp.TCPConnector(limit=0)
        # No cookies: what an upstream sets for one client's request must not travel with another's.
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
            parts = build(settings, session, clock=time.monotonic, rng=random.Random())
            gateway = app.state.gateway = Gateway(parts, spool, replica, keys)
            parts.admission = Admission.open(settings, replica, time.monotonic)
            working = [asyncio.create_task(gateway.intake.run()), asyncio.create_task(parts.admission.run())]
            try:
                yield
            finally:
                for task in working:
                    task.cancel()
                await asyncio.gather(*working, return_exceptions=True)
                await spool.close()
                await gateway.intake.close()
                parts.admission.close()
                await parts.close()

    def handler(name: str) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            response: Response = await getattr(request.app.state.gateway, name)(request)
            return response

        return handle

    routes = [
        Route(CHAT, Chat(), methods=["POST"]),
        Route("/v1/embeddings", handler("embeddings"), methods=["POST"]),
        Route("/v1/feedback", handler("feedback"), methods=["POST"]),
        Route("/v1/traces", handler("traces"), methods=["POST"]),
        Route("/v1/models", handler("models")),
        Route("/v1/models/{model:path}", handler("model")),
        Route("/openapi.json", handler("openapi")),
        Route("/health/live", handler("live")),
        Route("/health/ready", handler("ready")),
        Route("/metrics", handler("prometheus")),
    ]
    return Application(routes=routes, lifespan=lifespan, exception_handlers={404: _not_found, 405: _not_found})
