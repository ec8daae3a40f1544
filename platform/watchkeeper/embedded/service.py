"""What both embedded servers do alike over HTTP: health, the list of models, errors, clients that leave, and running.

Knows OpenAI's error bodies; knows nothing of what the models do.
"""

import asyncio
import gc
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive

from watchkeeper.embedded.openai_api import ApiError, Model, ModelList

DRAIN_S: Final = 5
"""After SIGTERM, what is still being answered gets this long."""

logger = logging.getLogger(__name__)


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


def application(
    model: str,
    routes: Sequence[Route],
    *,
    ready: Callable[[], bool],
    lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]],
) -> Starlette:
    """`routes`, with health, the list of models and OpenAI's errors added. `ready`: whether requests are being served."""
    since = int(time.time())

    async def models(request: Request) -> Response:
        return json_response(ModelList(data=(Model(id=model, created=since),)))

    async def live(request: Request) -> Response:
        return json_response({"status": "ok"})

    async def is_ready(request: Request) -> Response:
        return json_response({"status": "ready"}) if ready() else json_response({"status": "unready"}, 503)

    common = [Route("/v1/models", models), Route("/health/live", live), Route("/health/ready", is_ready)]
    return Starlette(
        routes=[*routes, *common],
        lifespan=lifespan,
        exception_handlers={
            ApiError: _api_error,
            HTTPException: _http_error,
            ClientDisconnect: _left,
            Exception: _server_error,
        },
    )


def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return Response(error.body, error.status, error.headers, media_type="application/json")


def _http_error(request: Request, error: Exception) -> Response:
    """Wrong path or method, which Starlette itself refuses."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    headers = dict(error.headers or {})
    return _api_error(
        request, ApiError(error.status_code, message, code=error.detail.lower().replace(" ", "_"), headers=headers)
    )


def _left(request: Request, error: Exception) -> Response:
    """Nobody reads this; the status is the one that nginx logs for it."""
    return Response(status_code=499)


def _server_error(request: Request, error: Exception) -> Response:
    return _api_error(request, ApiError(500, "the model failed; see its log", kind="server_error", code="internal_error"))


async def while_connected(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Runs `work`, and cancels it when the client leaves; then raises `ClientDisconnect`.

    For requests whose body has been read: all that can still arrive is the news that the client is gone.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def run(app: Starlette, host: str, port: int, name: str) -> None:
    """Serves until SIGTERM or SIGINT, then ends well: a stop that was asked for is no failure."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=DRAIN_S
    )
    for signum in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again when it has drained; the default handlers would end the process with it.
        signal.signal(signum, lambda *_: None)
    # What is loaded stays until the end: looking through it for garbage, above all at the end, takes seconds.
    gc.freeze()
    logger.info("%s: http://%s:%d/v1", name, host, port)
    uvicorn.Server(config).run()
