"""Real sockets: whatever an upstream sends, and however it is cut into pieces, is read as it was meant, or is broken; a
connection is used again only when nothing is left on it."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watchkeeper.serving import line as module
from watchkeeper.serving.line import Broken, Connection, ConnectTimeout, Line

LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\nRetry-After: 7\r\n\r\nhello there"
CHUNKED = b"HTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n there\r\n0\r\ntrailer: z\r\n\r\n"
TO_THE_END = b"HTTP/1.1 200 OK\r\n\r\nhello there"
EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + LENGTH
EMPTY = b"HTTP/1.1 204 Nothing\r\n\r\n"


@dataclass
class Server:
    """Sends `answers` in turn, each in its pieces, one for each request; the last one again and again. `closes`: the
    connection after each."""

    answers: list[list[bytes]]
    closes: bool = False
    pause_s: float = 0.0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    gone: int = 0
    written: int = 0
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                for piece in self.answers[min(len(self.requests), len(self.answers)) - 1]:
                    writer.write(piece)
                    await writer.drain()
                    self.written += len(piece)
                    await asyncio.sleep(self.pause_s)
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone += 1
        finally:
            writer.close()


@asynccontextmanager
async def serving(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[Line]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    server.url = f"{scheme}://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1/chat?x=1"
    line = Line(server.url, {"authorization": "Bearer key"}, 5.0)
    try:
        yield line
    finally:
        await line.close()
        listening.close()


async def ask(line: Line, body: bytes = b"{}", within_s: float = 5.0) -> tuple[int, bytes]:
    connection = await line.post(body, asyncio.get_running_loop().time() + within_s)
    try:
        return connection.status, await connection.body()
    finally:
        connection.close()


def run(server: Server, test: Callable[[Line], Awaitable[object]]) -> None:
    async def within() -> None:
        async with serving(server) as line:
            await test(line)

    asyncio.run(within())


def test_what_is_sent() -> None:
    server = Server([[LENGTH]])

    async def test(line: Line) -> None:
        await ask(line, b'{"a": 1}')

    run(server, test)
    host = server.url.split("/")[2].encode()
    assert server.requests == [
        b"POST /v1/chat?x=1 HTTP/1.1\r\nhost: %b\r\nauthorization: Bearer key\r\ncontent-length: 8\r\n\r\n" % host
        + b'{"a": 1}'
    ]


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (LENGTH, 200, b"hello there"),
        (CHUNKED, 429, b"hello there"),
        (EARLY, 200, b"hello there"),
        (TO_THE_END, 200, b"hello there"),
        (EMPTY, 204, b""),
    ],
    ids=["length", "chunked", "early", "to_the_end", "empty"],
)
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_an_answer_is_the_same_in_whatever_pieces_it_comes(
    data: st.DataObject, answer: bytes, status: int, body: bytes
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(answer) - 1), max_size=6)))
    pieces = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    server = Server([pieces], closes=answer is TO_THE_END, pause_s=0.001)

    async def test(line: Line) -> None:
        assert await ask(line) == (status, body)
        assert await ask(line) == (status, body)

    run(server, test)
    assert server.connections == (2 if answer is TO_THE_END else 1)


def test_the_last_of_several_headers_is_told_and_none_of_an_earlier_answer() -> None:
    bare = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    server = Server([[b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nX: 1\r\nx: 2\r\n\r\n"], [bare]])

    async def header(line: Line) -> str | None:
        connection = await line.post(b"", asyncio.get_running_loop().time() + 5)
        connection.close()
        return connection.header(b"x")

    async def test(line: Line) -> None:
        assert (await header(line), await header(line)) == ("2", None)

    run(server, test)


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello",
        b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: %b\r\n" % (b"y" * 1000) * 70 + b"content-length: 0\r\n\r\n",
        b"",
    ],
    ids=["nonsense", "half_a_head", "half_a_body", "half_a_chunk", "no_chunk", "upgrade", "long_head", "nothing"],
)
def test_what_is_no_answer_is_broken(answer: bytes) -> None:
    async def test(line: Line) -> None:
        with pytest.raises(Broken):
            await ask(line)

    run(Server([[answer]], closes=True), test)


def test_a_connection_that_is_to_be_closed_is_not_used_again() -> None:
    server = Server([[LENGTH.replace(b"Retry-After: 7", b"connection: close")]])

    async def test(line: Line) -> None:
        assert await ask(line) == await ask(line) == (200, b"hello there")

    run(server, test)
    assert server.connections == 2


def test_a_connection_that_the_upstream_closed_meanwhile_is_not_used_again() -> None:
    server = Server([[LENGTH]], closes=True)

    async def test(line: Line) -> None:
        for _ in range(3):
            assert await ask(line) == (200, b"hello there")
            await asyncio.sleep(0.05)

    run(server, test)
    assert server.connections == 3


def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_S", 0.05)
    server = Server([[LENGTH]])

    async def test(line: Line) -> None:
        await ask(line)
        await ask(line)
        await asyncio.sleep(0.1)
        await ask(line)

    run(server, test)
    assert server.connections == 2


@pytest.mark.parametrize("pieces", [[LENGTH + LENGTH], [LENGTH, LENGTH], [LENGTH + EMPTY]])
def test_what_nobody_asked_for_is_nobodys_answer(pieces: list[bytes]) -> None:
    second = LENGTH.replace(b"there", b"again")
    server = Server([pieces, [second]])

    async def test(line: Line) -> None:
        assert await ask(line) == (200, b"hello there")
        await asyncio.sleep(0.05)
        assert await ask(line) == (200, b"hello again")

    run(server, test)
    assert server.connections == 2


def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    server = Server([[LENGTH]], pause_s=0.02)

    async def test(line: Line) -> None:
        for _ in range(2):
            assert set(await asyncio.gather(*(ask(line) for _ in range(5)))) == {(200, b"hello there")}

    run(server, test)
    assert (server.connections, len(server.requests)) == (5, 10)


def test_who_closes_before_the_end_is_seen_to() -> None:
    server = Server([[LENGTH[:-3]]])

    async def test(line: Line) -> None:
        connection = await line.post(b"", asyncio.get_running_loop().time() + 5)
        assert await connection.block() == b"hello th"
        connection.close()
        await ask_in_vain(connection)
        for _ in range(200):
            if server.gone:
                break
            await asyncio.sleep(0.01)

    async def ask_in_vain(connection: Connection) -> None:
        with pytest.raises(Broken):
            await connection.block()

    run(server, test)
    assert server.gone == 1


def test_a_cancelled_request_closes_its_connection() -> None:
    server = Server([[b"HTTP/1.1 200"]])

    async def test(line: Line) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(line), 0.1)
        for _ in range(200):
            if server.gone:
                break
            await asyncio.sleep(0.01)

    run(server, test)
    assert server.gone == 1


def test_time_is_up_for_the_head_and_for_the_body() -> None:
    async def test(line: Line) -> None:
        with pytest.raises(TimeoutError):
            await ask(line, within_s=0.1)

    run(Server([[b"", LENGTH]], pause_s=0.5), test)
    run(Server([[LENGTH[:-1], LENGTH[-1:]]], pause_s=0.5), test)


def test_all_the_time_there_is_may_be_over_while_it_connects() -> None:
    """TEST-NET-1 answers nobody; where a machine says at once that there is no way there, that is an `OSError`."""

    async def connect(within_s: float, connect_s: float) -> None:
        line = Line("http://192.0.2.1:9/v1", {}, connect_s)
        await ask(line, within_s=within_s)

    with pytest.raises((TimeoutError, OSError)):
        asyncio.run(connect(0.1, 5.0))
    with pytest.raises((ConnectTimeout, OSError)):
        asyncio.run(connect(5.0, 0.1))


def test_a_body_without_a_length_that_time_cut_off_is_not_whole() -> None:
    server = Server([[TO_THE_END[:-5], TO_THE_END[-5:]]], pause_s=0.4)

    async def test(line: Line) -> None:
        connection = await line.post(b"", asyncio.get_running_loop().time() + 0.1)
        await asyncio.sleep(0.2)  # nobody reads while the time runs out and the connection goes
        assert await connection.block() == b"hello "
        with pytest.raises(TimeoutError):
            await connection.block()
        connection.close()

    run(server, test)


def test_the_headers_of_what_nobody_asked_for_are_not_the_answers() -> None:
    server = Server([[LENGTH + LENGTH.replace(b"Retry-After: 7", b"Retry-After: 9")]])

    async def test(line: Line) -> None:
        connection = await line.post(b"", asyncio.get_running_loop().time() + 5)
        assert (await connection.body(), connection.header(b"retry-after")) == (b"hello there", "7")
        connection.close()

    run(server, test)


def test_a_body_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BODY", 1_000)

    async def test(line: Line) -> None:
        with pytest.raises(Broken, match="longer than 1000 bytes"):
            await ask(line)

    run(Server([[b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 500] * 10]], closes=True), test)


def test_an_upstream_waits_for_who_reads_slowly() -> None:
    size = 100 << 20
    server = Server([[b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size, *[b"x" * (1 << 20)] * 100]])

    async def test(line: Line) -> None:
        connection = await line.post(b"", asyncio.get_running_loop().time() + 60)
        await asyncio.sleep(0.5)
        assert server.written < size / 2
        read = 0
        while (block := await connection.block()) is not None:
            read += len(block)
        assert read == size
        connection.close()

    run(server, test)


def test_an_https_upstream_is_who_its_certificate_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "upstream")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain = tmp_path / "upstream.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain)

    async def answer() -> tuple[int, bytes]:
        async with serving(Server([[CHUNKED]]), tls) as line:
            return await ask(line)

    module._tls.cache_clear()
    with pytest.raises(ssl.SSLCertVerificationError):
        asyncio.run(answer())
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    module._tls.cache_clear()
    assert asyncio.run(answer()) == (429, b"hello there")
    module._tls.cache_clear()
