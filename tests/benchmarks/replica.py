"""A replica of a model as a queueing theorist sees one: log-normal service times, so many at a time, the rest in line.

Its own process: `python replica.py PORT MEDIAN_S SIGMA SLOTS SEED`. It sleeps where a model would compute, so that what is
measured is who was asked, not what this machine has to spare. Who hangs up is served no further.
"""

import asyncio
import json
import math
import random
import sys
from typing import Any

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "replica",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 25, "total_tokens": 55},
    }
).encode()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "


class Replica:
    """What all connections share."""

    def __init__(self, median_s: float, sigma: float, slots: int, seed: int) -> None:
        self._median_s = median_s
        self._sigma = sigma
        self._slots = asyncio.Semaphore(slots)
        self._rng = random.Random(seed)

    async def serve(self) -> None:
        async with self._slots:
            await asyncio.sleep(self._median_s * math.exp(self._rng.gauss(0, self._sigma)))

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept; requests one after the other."""
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).lower():
                at = head.find(b"content-length:")
                if at >= 0:
                    await reader.readexactly(int(head[at + 15 :].split(b"\r\n", 1)[0]))
                if head.startswith(b"post") and not await self._serve_unless_gone(reader):
                    break
                body = ANSWER if head.startswith(b"post") else b"{}"
                writer.write(HEAD + str(len(body)).encode() + b"\r\n\r\n" + body)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _serve_unless_gone(self, reader: asyncio.StreamReader) -> bool:
        """Whether somebody still waits for what was served."""
        serving = asyncio.ensure_future(self.serve())
        gone: asyncio.Future[Any] = asyncio.ensure_future(reader.read(1))  # only hanging up can come before the answer
        await asyncio.wait((serving, gone), return_when=asyncio.FIRST_COMPLETED)
        waits = not gone.done()
        for task in (serving, gone):
            task.cancel()
        await asyncio.gather(serving, gone, return_exceptions=True)
        return waits


async def main(port: int, replica: Replica) -> None:
    server = await asyncio.start_server(replica.talk, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    port, median_s, sigma, slots, seed = sys.argv[1:]
    asyncio.run(main(int(port), Replica(float(median_s), float(sigma), int(slots), int(seed))))
