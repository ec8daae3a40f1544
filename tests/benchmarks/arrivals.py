"""A load that does not wait for answers: requests arrive at random (Poisson) at a rate, as they do from many clients. Its
own process: `python arrivals.py POLICY RATE SECONDS SEED URL [URL ...]` prints one JSON document (`Arrivals`).

`gateway` sends all to the one URL. `round-robin` and `least-busy` are the peers of a gateway: they choose among the URLs
themselves, and ask the next one where a connection fails, as reverse proxies do.
"""

import asyncio
import random
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import aiohttp
import msgspec
from load import PROMPT

TIMEOUT_S = 60.0
SETTLED_S = 5.0


class Arrivals(msgspec.Struct, frozen=True):
    """Of all requests, and of those that arrived later than `SETTLED_S` after the first. A failed one is counted, and took
    as long as it took. Milliseconds."""

    sent: int
    failed: int
    p50_ms: float
    p99_ms: float
    settled_p99_ms: float


class Sender:
    def __init__(self, policy: str, urls: list[str], session: aiohttp.ClientSession) -> None:
        self._policy = policy
        self._urls = urls
        self._session = session
        self._busy = dict.fromkeys(urls, 0)
        self._turn = count()
        self.failed = 0

    def _order(self) -> list[str]:
        turn = next(self._turn)
        turned = [self._urls[(turn + at) % len(self._urls)] for at in range(len(self._urls))]
        return sorted(turned, key=self._busy.__getitem__) if self._policy == "least-busy" else turned

    async def send(self) -> float:
        """Seconds that one request took."""
        began = time.perf_counter()
        body = {"model": "watchkeeper", "messages": [{"role": "user", "content": PROMPT}]}
        for url in self._order():
            self._busy[url] += 1
            try:
                async with self._session.post(f"{url}/v1/chat/completions", json=body) as response:
                    await response.read()
                    if response.status == 200:
                        return time.perf_counter() - began
            except (OSError, aiohttp.ClientError, TimeoutError):
                pass
            finally:
                self._busy[url] -= 1
        self.failed += 1
        return time.perf_counter() - began


async def _send(policy: str, rate: float, seconds: float, seed: int, urls: list[str]) -> Arrivals:
    rng = random.Random(seed)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        sender = Sender(policy, urls, session)
        sent: list[tuple[float, asyncio.Task[float]]] = []
        began, due = time.perf_counter(), 0.0
        while (due := due + rng.expovariate(rate)) < seconds:
            await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
            sent.append((due, asyncio.create_task(sender.send())))
        took = [(at, await task) for at, task in sent]
    return Arrivals(
        len(took),
        sender.failed,
        _quantile([spent for _, spent in took], 0.5),
        _quantile([spent for _, spent in took], 0.99),
        _quantile([spent for at, spent in took if at > SETTLED_S], 0.99),
    )


def _quantile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))] * 1000


def start(policy: str, rate: float, seconds: float, seed: int, urls: list[str]) -> "subprocess.Popen[bytes]":
    """Begins to send; `finish` says what came of it."""
    command = [sys.executable, str(Path(__file__)), policy, str(rate), str(seconds), str(seed), *urls]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def finish(sending: "subprocess.Popen[bytes]", seconds: float) -> Arrivals:
    """Raises `subprocess.SubprocessError`, `msgspec.DecodeError`."""
    out, _ = sending.communicate(timeout=seconds + 3 * TIMEOUT_S)
    return msgspec.json.decode(out, type=Arrivals)


if __name__ == "__main__":
    policy, rate, seconds, seed, *urls = sys.argv[1:]
    done = asyncio.run(_send(policy, float(rate), float(seconds), int(seed), urls))
    print(msgspec.json.encode(done).decode())
