"""A client's connection as uvicorn serves it, but that head and body of an answer leave together, and that whoever serves
a client learns at once when it goes away.

uvicorn writes the head, then the body: two system calls, and a client that is woken to read a head. What is written in
one turn of the event loop goes out at its end, in one. And it tells of a client that went to whoever awaits `receive`: a
task of its own for each request. Knows nothing of what is written, or of who serves.
"""

import asyncio
from types import TracebackType
from typing import Any, Final, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

PRESENCE: Final = "watchkeeper.presence"
"""The ASGI extension by which a scope has its client's `Presence`."""


class Presence:
    """Whether the client is there. Whoever serves it within the block is cancelled when it goes away, and has ended
    quietly once it has cleaned up."""

    __slots__ = ("_gone", "_serving")

    def __init__(self) -> None:
        self._serving: asyncio.Task[Any] | None = None
        self._gone = False

    def __enter__(self) -> None:
        self._serving = asyncio.current_task()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        serving, self._serving = self._serving, None
        # Someone else may end this task too: then it is to end.
        return kind is asyncio.CancelledError and self._gone and serving is not None and serving.uncancel() == 0

    def leave(self) -> None:
        """The client went away."""
        self._gone = True
        if self._serving is not None:
            self._serving.cancel()


def presence_of(scope: Scope) -> Presence:
    """The client's that a request came from."""
    presence: Presence = scope["extensions"][PRESENCE]
    return presence


class Connection(HttpToolsProtocol):
    """uvicorn's protocol over a transport that gathers, with an eye on the client."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        gathering = Gathering(cast(asyncio.Transport, transport), self.loop)  # uvloop's is no subclass, nor is ours
        self._extensions = {PRESENCE: Presence()}
        super().connection_made(cast(asyncio.Transport, gathering))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = cast(dict[str, dict[object, object]], self._extensions)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._extensions[PRESENCE].leave()


class Gathering:
    """A transport whose writes leave once a turn of the loop. Everything else is the transport's own."""

    __slots__ = ("_loop", "_transport", "_waiting")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._waiting: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)

    def close(self) -> None:
        """Closes it when all that was written has left."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._waiting:
            data, self._waiting = b"".join(self._waiting), []
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
