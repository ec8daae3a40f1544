"""Rows as the scorers get them, and an encoder that counts words."""

import base64
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from watchkeeper.lake.tables import INTERACTIONS
from watchkeeper.settings import Encoder, Settings
from watchkeeper_evaluations.scorer import Scorer, Value

Rows = Callable[..., pa.Table]
Say = Callable[..., Value]
TYPES = {name: INTERACTIONS.field(name).type for name in INTERACTIONS.names} | {"reference": pa.string()}


@pytest.fixture
def rows() -> Rows:
    """Columns by name, each a list → a batch with every column that a scorer may read; what is not named is null."""

    def make(**columns: Sequence[Any]) -> pa.Table:
        size = max(map(len, columns.values()))
        return pa.table({name: pa.array(columns.get(name, [None] * size), kind) for name, kind in TYPES.items()})

    return make


@pytest.fixture
def say(rows: Rows) -> Say:
    """What a scorer says of one row."""

    def score(scorer: Scorer, **columns: Any) -> Value:
        (said,) = scorer.score(rows(**{name: [value] for name, value in columns.items()}))
        return said[scorer.name]

    return score


@dataclass
class WordEncoder:
    """OpenAI's `/v1/embeddings` over words: each word is a direction, so texts are near that share words. `refuses`: a word
    for which it takes none of the texts it comes with."""

    settings: Settings
    asked: list[str] = field(default_factory=list)
    status: int = 200
    refuses: str = ""


@pytest.fixture
def encoder() -> Iterator[WordEncoder]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

        def do_POST(self) -> None:
            texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
            found.asked += texts
            data = [{"index": at, "embedding": _coded(text)} for at, text in enumerate(texts)]
            body = json.dumps({"data": data}).encode()
            refused = found.refuses and any(found.refuses in text for text in texts)
            self.send_response(413 if refused else found.status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = WordEncoder(Settings(encoder=Encoder(port=server.server_address[1])))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def _coded(text: str) -> str:
    vector = np.zeros(384, np.float32)
    for word in text.split():
        vector[sum(word.encode()) % 384] += 1
    vector[0] += 1e-3
    return base64.b64encode(vector.tobytes()).decode()
