"""An upstream that answers at once: what a gateway costs is then all that is measured. Its own process:
`python upstream.py PORT [SENTENCES]`. Speaks as much HTTP/1.1 as a client with kept connections needs."""

import asyncio
import json
import random
import string
import sys
from typing import cast

import uvloop

SENTENCE = "As a ******** you have 27 days of annual leave a year; up to 5 unused days may be carried over until 31 March."
SENTENCES = int(sys.argv[2]) if len(sys.argv) > 2 else 1
ANSWER = " ".join([SENTENCE] + [SENTENCE.replace("********", "colleague")] * (SENTENCES - 1))
COMPLETION = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "instant",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 25, "total_tokens": 55},
    }
).encode()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
BEFORE, _, AFTER = (HEAD + str(len(COMPLETION)).encode() + b"\r\n\r\n" + COMPLETION).partition(b"********")
WELL = HEAD + b"2\r\n\r\n{}"


def answer() -> bytes:
    """The completion, with a word of its own each time."""
    return BEFORE + "".join(random.choices(string.ascii_lowercase, k=8)).encode() + AFTER


class Upstream(asyncio.Protocol):
    """One connection: a completion for every POST, an empty object for every GET."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.got = b""

    def data_received(self, data: bytes) -> None:
        self.got += data
        while (end := self.got.find(b"\r\n\r\n")) >= 0:
            head = self.got[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.got) < end + 4 + length:
                return
            self.transport.write(answer() if head.startswith(b"post") else WELL)
            self.got = self.got[end + 4 + length :]


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
