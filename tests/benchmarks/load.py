"""A load of chat requests over kept connections, each sending its next request when it has its answer. Its own process, so
that it takes no time from what it measures but the processor's:
`python load.py URL CONNECTIONS SECONDS MOST` prints one JSON document (`Load`). Keys from LOAD_KEY.

Counts what came back with status 200 and what did not; knows nothing of who answers.
"""

import asyncio
import os
import random
import string
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import msgspec
import uvloop

PROMPT = "How many days of annual leave do I have as a ********, and how many may I carry over into the next year?"
MARK = "********"
"""Where each prompt has a word of its own, so that nobody answers or redacts out of a memory of the one before."""
TIMEOUT_S = 120.0


def word() -> str:
    """Eight letters, most likely never seen before."""
    return "".join(random.choices(string.ascii_lowercase, k=len(MARK)))


class Load(msgspec.Struct, frozen=True):
    """`answered`: with status 200, in `seconds`; `failed`: with another, or not at all. Milliseconds a request."""

    answered: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds


@dataclass
class Tally:
    until: float
    left: int
    times: list[float] = field(default_factory=list)
    failed: int = 0

    def more(self) -> bool:
        """Whether to send one more."""
        self.left -= 1
        return self.left >= 0 and time.perf_counter() < self.until


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, request: tuple[bytes, bytes], tally: Tally) -> None:
        self.before, self.after = request
        self.tally = tally
        self.ended = asyncio.get_running_loop().create_future()
        self.got = b""
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._next()

    def _next(self) -> None:
        if not self.tally.more():
            self.sent_at = 0.0
            self.transport.close()
            return
        self.sent_at = time.perf_counter()
        self.transport.write(self.before + word().encode() + self.after)

    def data_received(self, data: bytes) -> None:
        self.got += data
        end = self.got.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.got[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self.got) < end + 4 + length:
            return
        if head.startswith(b"http/1.1 200"):
            self.tally.times.append(time.perf_counter() - self.sent_at)
        else:
            self.tally.failed += 1
        self.got = b""
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if self.sent_at:
            self.tally.failed += 1
        if not self.ended.done():
            self.ended.set_result(None)


async def _send(url: str, connections: int, seconds: float, most: int) -> Load:
    place = urlsplit(url)
    body = msgspec.json.encode({"model": "watchkeeper", "messages": [{"role": "user", "content": PROMPT}]})
    key = os.environ.get("LOAD_KEY", "")
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {place.netloc}\r\nauthorization: Bearer {key}"
        f"\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    before, _, after = (head + body).partition(MARK.encode())
    started = time.perf_counter()
    tally = Tally(started + seconds, most)
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: Client((before, after), tally), place.hostname or "127.0.0.1", place.port or 80
        )
        clients.append(client)
    await asyncio.wait([client.ended for client in clients], timeout=seconds + TIMEOUT_S)
    spent = time.perf_counter() - started
    times = sorted(tally.times) or [0.0]
    p50, p99 = (times[min(len(times) - 1, int(len(times) * share))] * 1000 for share in (0.5, 0.99))
    return Load(len(tally.times), tally.failed, spent, p50, p99)


def load(url: str, connections: int, *, seconds: float, most: int = sys.maxsize, key: str = "") -> Load:
    """Sends for `seconds`, or `most` requests if those are fewer. Raises `subprocess.SubprocessError`."""
    command = [sys.executable, str(Path(__file__)), url, str(connections), str(seconds), str(most)]
    done = subprocess.run(
        command, capture_output=True, check=True, timeout=seconds + 2 * TIMEOUT_S, env={**os.environ, "LOAD_KEY": key}
    )
    return msgspec.json.decode(done.stdout, type=Load)


if __name__ == "__main__":
    url, connections, seconds, most = sys.argv[1:]
    print(msgspec.json.encode(uvloop.run(_send(url, int(connections), float(seconds), int(most)))).decode())
