"""Answers over real sockets, through uvicorn: what arrives, in how many pieces, and what a closed connection still gets."""

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from watchkeeper.serving.connection import Connection, Presence, presence_of

HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def _served(app: Any, request: bytes, count: int = 1, linger_s: float = 0.0) -> list[bytes]:
    """The pieces in which the answers to `count` requests over one connection arrive. `linger_s`: how long the server goes
    on when the client has closed it."""

    async def run() -> list[bytes]:
        loop = asyncio.get_running_loop()
        config = uvicorn.Config(app, lifespan="off", log_level="warning")
        config.load()
        state = ServerState()
        server = await loop.create_server(lambda: Connection(config, state, {}), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        pieces: list[bytes] = []
        ended = loop.create_future()

        class Client(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                pieces.append(data)
                if b"".join(pieces).count(b"END") == count and not ended.done():
                    ended.set_result(None)

        transport, _ = await loop.create_connection(Client, "127.0.0.1", port)
        for _ in range(count):
            transport.write(request)
        await asyncio.wait_for(ended, 10)
        transport.close()
        await asyncio.sleep(linger_s)
        server.close()
        await server.wait_closed()
        return pieces

    return asyncio.run(run())


async def _whole(scope: Any, receive: Any, send: Any) -> None:
    await send(HEAD)
    await send({"type": "http.response.body", "body": b"all of it END"})


async def _streamed(scope: Any, receive: Any, send: Any) -> None:
    await send(HEAD)
    for number in range(3):
        await send({"type": "http.response.body", "body": b"piece %d " % number, "more_body": True})
        await asyncio.sleep(0.05)
    await send({"type": "http.response.body", "body": b"END"})


def test_head_and_body_leave_together() -> None:
    (answer,) = _served(_whole, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"all of it END\r\n0\r\n\r\n")


def test_a_stream_leaves_piece_by_piece() -> None:
    pieces = _served(_streamed, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert [b"piece %d" % number in piece for number, piece in enumerate(pieces[:3])] == [True] * 3


def test_a_connection_that_is_to_be_closed_gets_all_first() -> None:
    pieces = _served(_whole, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert b"".join(pieces).endswith(b"all of it END\r\n0\r\n\r\n")


def test_requests_that_come_at_once_are_answered_in_order() -> None:
    answers = b"".join(_served(_whole, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", count=5))
    assert answers.count(b"HTTP/1.1 200 OK") == answers.count(b"all of it END") == 5


def test_who_serves_a_client_that_goes_away_is_cancelled_and_ends_quietly() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with presence_of(scope):
            try:
                await send(HEAD)
                await send({"type": "http.response.body", "body": b"END", "more_body": True})
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                seen.append("cancelled")
                await asyncio.sleep(0)  # it may still wait for what it has to put in order
                seen.append("in order")
                raise
        seen.append("over")

    _served(app, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", linger_s=0.2)
    assert seen == ["cancelled", "in order", "over"]


def test_who_is_ended_by_someone_else_ends() -> None:
    presence = Presence()

    async def serve() -> None:
        with presence:
            await asyncio.sleep(10)

    async def run(*, gone: bool) -> None:
        serving = asyncio.create_task(serve())
        await asyncio.sleep(0)
        if gone:
            presence.leave()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    asyncio.run(run(gone=False))
    asyncio.run(run(gone=True))


def test_a_client_that_leaves_when_it_has_its_answer_ends_nothing() -> None:
    presence = Presence()

    async def run() -> str:
        with presence:
            pass
        presence.leave()
        await asyncio.sleep(0)
        return "served"

    assert asyncio.run(run()) == "served"
