"""HTTP/1.1 to one upstream, as much of it as an exchange needs: a body is posted, a head and a body's blocks come back,
over connections that are kept.

httptools (llhttp) reads, asyncio connects, writes and speaks TLS; what is here joins the two. aiohttp's client does far
more, and took a seventh of a request for it: 76 µs of CPU against 15. (pyreqwest, whose Rust works in a thread of its own,
took 8, and lost it again in handing over the interpreter.) Redirects are not followed, proxies not asked, and nothing is
sent twice. Knows nothing of what is said.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from functools import cache
from typing import Final, cast
from urllib.parse import urlsplit

import httptools

KEPT_S: Final = 15.0
"""A connection that was idle for longer is not used again: what stands between may have forgotten it without a word."""
MOST_HEAD: Final = 64 << 10
MOST_BODY: Final = 64 << 20
AHEAD: Final = 256 << 10
"""Bytes that may wait for whoever reads; then the upstream has to."""


class ConnectTimeout(Exception):
    """The connection was not taken in time."""


class Broken(Exception):
    """The connection broke, or what came over it is no HTTP. One line."""


class Line:
    """The connections to the upstream at `url`. `headers`: sent with each request; `connect_s`: how long one may take."""

    def __init__(self, url: str, headers: Mapping[str, str], connect_s: float) -> None:
        place = urlsplit(url)
        self._host = place.hostname or ""
        self._tls = _tls() if place.scheme == "https" else None
        self._port = place.port or (443 if self._tls else 80)
        target = (place.path or "/") + (f"?{place.query}" if place.query else "")
        told = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        host = place.netloc.rpartition("@")[2].encode("idna").decode()
        self._head = f"POST {target} HTTP/1.1\r\nhost: {host}\r\n{told}content-length: ".encode()
        self._connect_s = connect_s
        self._idle: deque[tuple[float, Connection]] = deque()
        self._all: set[Connection] = set()

    async def post(self, body: bytes, by: float) -> "Connection":
        """The connection over which the answer comes, its head there already. Whoever gets it closes it. `by`: a time of
        the event loop's by which all of the answer has to be there.

        Raises `ConnectTimeout`, `TimeoutError`, `Broken`, and `OSError` where there is no connection.
        """
        loop = asyncio.get_running_loop()
        connection = self._kept(loop.time()) or await self._connect(by)
        connection.send(b"%b%d\r\n\r\n%b" % (self._head, len(body), body), by)
        try:
            await connection.head()
        except BaseException:
            connection.close()
            raise
        return connection

    def keep(self, connection: "Connection") -> None:
        """Keeps a connection for another request."""
        self._idle.append((connection.loop.time(), connection))

    def opened(self, connection: "Connection") -> None:
        """There is another connection."""
        self._all.add(connection)

    def lost(self, connection: "Connection") -> None:
        """A connection is no more."""
        self._all.discard(connection)
        self._idle = deque(kept for kept in self._idle if kept[1] is not connection)

    async def close(self) -> None:
        """Closes all connections, and returns when they are closed."""
        open_ones = tuple(self._all)
        for connection in open_ones:
            connection.abort()
        await asyncio.gather(*(connection.gone for connection in open_ones))

    def _kept(self, now: float) -> "Connection | None":
        while self._idle and now - self._idle[0][0] > KEPT_S:
            self._idle.popleft()[1].abort()
        while self._idle:
            _, connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def _connect(self, by: float) -> "Connection":
        loop = asyncio.get_running_loop()
        until = loop.time() + self._connect_s
        try:
            async with asyncio.timeout_at(min(until, by)):
                _, connection = await loop.create_connection(
                    lambda: Connection(self, loop), self._host, self._port, ssl=self._tls
                )
        except TimeoutError as error:
            if until < by:
                raise ConnectTimeout from error
            raise
        return connection


class Connection(asyncio.Protocol):
    """One connection, and the answer that comes over it. `status`: of the answer, 0 while its head is not there. `gone`:
    done when the connection is no more."""

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.gone: asyncio.Future[None] = loop.create_future()
        self.status = 0
        self._line = line
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._blocks: list[bytes] = []
        self._ahead = 0
        self._paused = False
        self._answering = self._complete = self._lasts = False
        self._failure: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._limit: asyncio.TimerHandle | None = None

    # For the one who asks.

    def send(self, request: bytes, by: float) -> None:
        """Sends a request. From now on an answer may come."""
        assert self._transport is not None
        self.status = 0
        self._headers = {}
        self._head_bytes = self._ahead = 0
        self._blocks = []
        self._answering, self._complete, self._lasts = True, False, False
        self._limit = self.loop.call_at(by, self._late)
        self._transport.write(request)

    async def head(self) -> None:
        """Returns when `status` and headers are there. Raises `TimeoutError`, `Broken`."""
        while not self.status:
            await self._wait()

    def header(self, name: bytes) -> str | None:
        """A header of the answer's by its small-lettered name; the last where there are several."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def block(self) -> bytes | None:
        """The next bytes of the body, at least one; None at its end. Raises `TimeoutError`, `Broken`."""
        while not self._blocks:
            if self._complete:
                return None
            await self._wait()
        return self._taken()

    async def body(self) -> bytes:
        """The whole body. Raises `TimeoutError`, and `Broken` also where it is longer than `MOST_BODY`."""
        whole = self._taken()
        while not self._complete or self._blocks:
            if len(whole) > MOST_BODY:
                raise Broken(f"the answer is longer than {MOST_BODY} bytes")
            whole += await self.block() or b""
        return whole

    def close(self) -> None:
        """Ends the exchange: the connection is kept where all of the answer has come, else the upstream sees it close."""
        self._answering = False
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        if self._complete and self._lasts and not self._blocks and self.is_open:
            self._line.keep(self)
        else:
            self.abort()

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def abort(self) -> None:
        """Closes the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _taken(self) -> bytes:
        taken = self._blocks[0] if len(self._blocks) == 1 else b"".join(self._blocks)
        self._blocks = []
        self._ahead = 0
        if self._paused and self._transport is not None and self.is_open:
            self._paused = False
            self._transport.resume_reading()
        return taken

    async def _wait(self) -> None:
        """Until something has come."""
        if self._failure is not None:
            raise self._failure
        self._waiting = self.loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _fail(self, failure: Exception) -> None:
        if not self._complete and self._failure is None:
            self._failure = failure
        self._wake()
        self.abort()

    def _late(self) -> None:
        self._fail(TimeoutError())

    # For asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._line.opened(self)

    def data_received(self, data: bytes) -> None:
        if not self._answering or self._complete:  # nobody asked for that
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(Broken("it does not speak HTTP/1.1"))
            return
        if self._ahead > AHEAD and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        if self.status:
            self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        if self.status and error is None and self._failure is None and not self._is_framed():
            self._complete = True  # this is how its end is told
        self._fail(Broken(f"the connection broke: {error}" if error else "it closed the connection"))
        self._transport = None
        self._line.lost(self)
        self.gone.set_result(None)

    def _is_framed(self) -> bool:
        return b"content-length" in self._headers or b"transfer-encoding" in self._headers

    # For httptools.

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MOST_HEAD:
            raise ValueError("the head is too long")
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self.status = status
        else:  # an answer that says that the answer comes
            self._headers = {}

    def on_body(self, body: bytes) -> None:
        self._blocks.append(body)
        self._ahead += len(body)

    def on_message_complete(self) -> None:
        if self.status:
            self._complete, self._lasts = True, self._parser.should_keep_alive()


@cache
def _tls() -> ssl.SSLContext:
    """The system's authorities, and those of SSL_CERT_FILE."""
    return ssl.create_default_context()
