"""The encoder's clients: good vectors or `EncoderUnavailable`, and a dead encoder costs nothing."""

import asyncio
import base64
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aiohttp
import numpy as np
import pytest

from watchkeeper.encoder.client import COOLDOWN_S, EncoderClient, EncoderUnavailable, TextRefused, embed_blocking


def vector(text: str) -> np.ndarray:
    """A direction that tells texts apart."""
    row = np.zeros(384, np.float32)
    row[len(text)] = 2.0
    return row


def rows(texts: list[str], *, coded: bool = True) -> list[dict[str, Any]]:
    found = []
    for index, text in enumerate(texts):
        row = vector(text)
        found.append({"index": index, "embedding": base64.b64encode(row.tobytes()).decode() if coded else row.tolist()})
    return found


class FakeEncoder:
    """What the server answers next (a status, and a body or what makes it from the texts), and what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.answer: Callable[[list[str]], Any] = lambda texts: {"data": rows(texts)}
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.hold: threading.Event | None = None
        self.url = ""


@contextmanager
def serving() -> Iterator[FakeEncoder]:
    fake = FakeEncoder()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send({"data": []})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            fake.asked.append(body)
            fake.keys.append(self.headers["authorization"])
            if fake.hold is not None:
                fake.hold.wait(30)
            self._send(fake.answer(body["input"]))

        def _send(self, answer: Any) -> None:
            payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(fake.status)
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: Any, **__: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        fake.url = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def encoder() -> Iterator[FakeEncoder]:
    with serving() as fake:
        yield fake


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def run(encoder: FakeEncoder, story: Callable[[EncoderClient, Clock], Awaitable[None]], *, timeout_s: float = 5.0) -> None:
    async def main() -> None:
        clock = Clock()
        async with aiohttp.ClientSession() as session:
            await story(EncoderClient(encoder.url, "minilm", session, "key", timeout_s, clock=clock), clock)

    asyncio.run(main())


async def fails(client: EncoderClient, why: str) -> None:
    with pytest.raises(EncoderUnavailable, match=why):
        await client.embed(["secret text"])


@pytest.mark.parametrize("coded", [True, False])
def test_vectors_come_in_order_and_of_unit_length(encoder: FakeEncoder, coded: bool) -> None:
    encoder.answer = lambda texts: {"data": rows(texts, coded=coded)[::-1]}

    async def story(client: EncoderClient, clock: Clock) -> None:
        vectors = await client.embed(["a", "four", "to"])
        assert vectors.dtype == np.float32
        assert np.array_equal(vectors, [vector(text) / 2 for text in ("a", "four", "to")])
        assert (await client.embed([])).shape == (0, 384)

    run(encoder, story)
    assert encoder.asked == [{"model": "minilm", "input": ["a", "four", "to"], "encoding_format": "base64"}]
    assert encoder.keys == ["Bearer key"]


NAN = base64.b64encode(np.full(384, np.nan, np.float32).tobytes()).decode()


@pytest.mark.parametrize(
    ("status", "answer", "why"),
    [
        (500, {"error": {"message": "secret text"}}, "status 500"),
        (404, {}, "status 404"),
        (200, b"<html>", "cannot be read"),
        (200, {"data": "none"}, "cannot be read"),
        (200, {"data": [{"index": 0, "embedding": "not base64!"}]}, "cannot be read"),
        (200, {"data": [{"index": 0, "embedding": "AAAA"}]}, "cannot be read"),
        (200, {"data": []}, "cannot be read"),
        (200, {"data": [{"index": 0, "embedding": [0.5] * 512}]}, "shape"),
        (200, {"data": rows(["a", "b"])}, "shape"),
        (200, {"data": [{"index": 0, "embedding": NAN}]}, "NaN or zero"),
        (200, {"data": [{"index": 0, "embedding": [0.0] * 384}]}, "NaN or zero"),
    ],
)
def test_what_is_no_answer_is_unavailable_and_tells_no_text(
    encoder: FakeEncoder, status: int, answer: Any, why: str
) -> None:
    encoder.status, encoder.answer = status, lambda texts: answer

    async def story(client: EncoderClient, clock: Clock) -> None:
        with pytest.raises(EncoderUnavailable, match=why) as unavailable:
            await client.embed(["secret text"])
        assert "secret" not in str(unavailable.value)

    run(encoder, story)
    with pytest.raises(EncoderUnavailable, match=why):
        embed_blocking(encoder.url, "minilm", ["secret text"])


@pytest.mark.parametrize(("status", "refused"), [(400, True), (413, True), (422, True), (429, False), (500, False)])
def test_a_text_that_is_refused_is_told_from_an_encoder_that_is_away(
    encoder: FakeEncoder, status: int, refused: bool
) -> None:
    encoder.status, encoder.answer = status, lambda texts: {"error": {"message": f"too long: {texts}"}}

    async def story(client: EncoderClient, clock: Clock) -> None:
        with pytest.raises(EncoderUnavailable, match=f"status {status}") as asked:
            await client.embed(["secret text"])
        assert isinstance(asked.value, TextRefused) == refused

    run(encoder, story)
    with pytest.raises(EncoderUnavailable, match=f"status {status}") as blocking:
        embed_blocking(encoder.url, "minilm", ["secret text"])
    assert isinstance(blocking.value, TextRefused) == refused
    assert "secret" not in str(blocking.value)


def test_an_encoder_that_hangs_is_given_up_soon(encoder: FakeEncoder) -> None:
    encoder.hold = threading.Event()

    async def story(client: EncoderClient, clock: Clock) -> None:
        await fails(client, "in time")

    run(encoder, story, timeout_s=0.1)
    encoder.hold.set()


def test_after_two_failures_nobody_asks_for_a_while_then_one_does(encoder: FakeEncoder) -> None:
    async def story(client: EncoderClient, clock: Clock) -> None:
        encoder.status = 500
        await fails(client, "status 500")
        await fails(client, "status 500")
        await fails(client, "a moment ago")
        clock.now += COOLDOWN_S - 0.1
        await fails(client, "a moment ago")
        assert len(encoder.asked) == 2

        clock.now += 0.2
        await fails(client, "status 500")
        await fails(client, "a moment ago")
        assert len(encoder.asked) == 3

        clock.now += COOLDOWN_S + 0.1
        encoder.status, encoder.hold = 200, threading.Event()
        probe = asyncio.create_task(client.embed(["a"]))
        await asyncio.sleep(0)
        await fails(client, "a moment ago")
        encoder.hold.set()
        assert (await probe).shape == (1, 384)
        assert (await client.embed(["a"])).shape == (1, 384)

    run(encoder, story)


def test_one_failure_among_successes_closes_nothing(encoder: FakeEncoder) -> None:
    async def story(client: EncoderClient, clock: Clock) -> None:
        for _ in range(3):
            encoder.status = 500
            await fails(client, "status 500")
            encoder.status = 200
            assert (await client.embed(["a"])).shape == (1, 384)

    run(encoder, story)


def test_one_clients_texts_do_not_take_the_encoder_from_all_others(encoder: FakeEncoder) -> None:
    async def story(client: EncoderClient, clock: Clock) -> None:
        for _ in range(5):
            encoder.status = 400
            await fails(client, "refused the text")
        encoder.status = 200
        assert (await client.embed(["a"])).shape == (1, 384)

    run(encoder, story)


def test_a_probe_that_is_cancelled_lets_the_next_one_try(encoder: FakeEncoder) -> None:
    async def story(client: EncoderClient, clock: Clock) -> None:
        encoder.status = 500
        await fails(client, "status 500")
        await fails(client, "status 500")
        clock.now += COOLDOWN_S + 0.1
        encoder.status, encoder.hold = 200, threading.Event()
        probe = asyncio.create_task(client.embed(["a"]))
        await asyncio.sleep(0)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        encoder.hold.set()
        assert (await client.embed(["a"])).shape == (1, 384)

    run(encoder, story)


def test_health_is_whether_it_answers(encoder: FakeEncoder) -> None:
    async def story(client: EncoderClient, clock: Clock) -> None:
        assert await client.healthy()
        encoder.status = 503
        assert not await client.healthy()

    run(encoder, story)


def test_an_encoder_that_is_not_there_is_unavailable() -> None:
    with serving() as gone:
        pass

    async def story(client: EncoderClient, clock: Clock) -> None:
        await fails(client, "cannot be reached")
        assert not await client.healthy()

    run(gone, story)
    with pytest.raises(EncoderUnavailable, match="cannot be reached"):
        embed_blocking(gone.url, "minilm", ["a"])


def test_jobs_ask_in_batches_of_64(encoder: FakeEncoder) -> None:
    texts = ["x" * (index % 300) for index in range(150)]
    vectors = embed_blocking(encoder.url, "minilm", texts, api_key="key")
    assert np.array_equal(vectors, [vector(text) / 2 for text in texts])
    assert [len(asked["input"]) for asked in encoder.asked] == [64, 64, 22]
    assert set(encoder.keys) == {"Bearer key"}
    assert embed_blocking(encoder.url, "minilm", []).shape == (0, 384)
