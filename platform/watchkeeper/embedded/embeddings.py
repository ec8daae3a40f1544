"""The embedded text encoder behind OpenAI's API: unit vectors for texts, batched across callers.

While a batch is computed, what arrives waits; the next batch takes some of everybody's texts, so that one request's single
text does not stand behind a job's thousand. Knows nothing of what the vectors are used for.
"""

import asyncio
import base64
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from watchkeeper.embedded import hub, service, weights
from watchkeeper.embedded.openai_api import ApiError, overloaded, parse, require_model
from watchkeeper.settings import Settings

MAX_TOKENS: Final = 256
"""Of a text, its two marks among them: what the encoder was trained on. The rest of a longer text is not read."""
BATCH_TOKENS: Final = 1024
"""Padding included. A batch takes about a quarter of a second on one core, which is what a new request waits at most."""
MAX_INPUTS: Final = 2048
MAX_WAITING: Final = 20_000
RETRY_AFTER_S: Final = 5

Vectors = NDArray[np.float32]
Text = list[int]
"""A text's tokens."""


class Body(msgspec.Struct, frozen=True):
    model: str
    input: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_INPUTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class Encoder:
    """Texts → unit vectors: the mean over a text's tokens, normalised. Not for several threads at once."""

    def __init__(self, source: str) -> None:
        """Loads from a folder or a hub. Raises `ModelRejected`."""
        transformers = hub.transformers()
        from watchkeeper.embedded.packing import pack

        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(source)
            self._model = transformers.AutoModel.from_pretrained(source).float().eval()
        except (OSError, ValueError, ImportError) as error:
            raise hub.rejected(source, error) from error
        pack(self._model)
        self.dimension: int = self._model.config.hidden_size
        self._longest = min(MAX_TOKENS, self._model.config.max_position_embeddings)

    def tokens(self, texts: Sequence[str]) -> list[Text]:
        """Cut to what the encoder reads. An empty text is its two marks, and has a vector like any other."""
        tokens: list[Text] = self._tokenizer(list(texts), truncation=True, max_length=self._longest).input_ids
        return tokens

    def embed(self, texts: Sequence[Text]) -> Vectors:
        """(n, dimension) float32, each row of length 1."""
        import torch

        longest = max(len(text) for text in texts)
        padding = self._tokenizer.pad_token_id or 0
        ids = torch.tensor([[*text, *[padding] * (longest - len(text))] for text in texts])
        real = torch.arange(longest) < torch.tensor([[len(text)] for text in texts])
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=real.long()).last_hidden_state
            counted = real.unsqueeze(-1).float()
            mean = (hidden * counted).sum(dim=1) / counted.sum(dim=1)
            vectors: Vectors = torch.nn.functional.normalize(mean, dim=-1).numpy()
        return vectors


class Call:
    """One caller's texts: which are still to be computed, and the vectors of those that are. Shortest first, because a
    batch is as long as its longest text."""

    def __init__(self, texts: Sequence[Text], dimension: int, done: asyncio.Future[Vectors]) -> None:
        self.texts = texts
        self.done = done
        self._vectors = np.empty((len(texts), dimension), np.float32)
        self._to_take = deque(sorted(range(len(texts)), key=lambda index: len(texts[index])))
        self._missing = len(texts)

    def __len__(self) -> int:
        """How many texts no batch has taken yet."""
        return len(self._to_take)

    @property
    def first(self) -> int:
        """The index of the text that is taken next."""
        return self._to_take[0]

    def take(self) -> int:
        return self._to_take.popleft()

    def put(self, index: int, vector: NDArray[np.float32]) -> None:
        self._vectors[index] = vector
        self._missing -= 1
        if not self._missing and not self.done.done():
            self.done.set_result(self._vectors)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Batches:
    """Forms batches from the texts of all callers and has them computed, one after the other, on a thread of its own."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._calls: deque[Call] = deque()
        self._arrived = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Texts that no batch has taken yet."""
        return sum(len(call) for call in self._calls)

    async def embed(self, texts: Sequence[Text]) -> Vectors:
        """(n, dimension), in the order of the texts. Cancelling it takes back what is not computed yet."""
        call = Call(texts, self._encoder.dimension, asyncio.get_running_loop().create_future())
        self._calls.append(call)
        self._arrived.set()
        return await call.done

    async def run(self) -> None:
        """Works until it is cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="encoder") as thread:
            while True:
                await self._arrived.wait()
                batch = self._next_batch()
                if not batch:
                    self._arrived.clear()
                    continue
                texts = [call.texts[index] for call, index in batch]
                try:
                    vectors = await loop.run_in_executor(thread, self._encoder.embed, texts)
                except Exception as error:
                    for call, _ in batch:
                        call.fail(error)
                else:
                    for (call, index), vector in zip(batch, vectors, strict=True):
                        call.put(index, vector)

    def _next_batch(self) -> list[tuple[Call, int]]:
        """One text of each caller in turn, until the batch is full. Whoever has more goes to the end of the line."""
        batch: list[tuple[Call, int]] = []
        longest = 0
        while self._calls:
            call = self._calls[0]
            if call.done.done():
                self._calls.popleft()
                continue
            longest = max(longest, len(call.texts[call.first]))
            if batch and longest * (len(batch) + 1) > BATCH_TOKENS:
                break
            batch.append((call, call.take()))
            self._calls.popleft()
            if len(call):
                self._calls.append(call)
        return batch


class Embeddings:
    """One encoder and its callers. `name`: what clients call it."""

    def __init__(self, name: str, encoder: Encoder) -> None:
        self.name = name
        self._encoder = encoder
        self._batches = Batches(encoder)

    def application(self) -> Starlette:
        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            self._working = asyncio.create_task(self._batches.run())
            try:
                yield
            finally:
                self._working.cancel()

        routes = [Route("/v1/embeddings", self.embeddings, methods=["POST"])]
        return service.application(self.name, routes, ready=lambda: not self._working.done(), lifespan=lifespan)

    async def embeddings(self, request: Request) -> Response:
        """POST /v1/embeddings."""
        body = parse(await request.body(), Body)
        require_model(body.model, self.name)
        if body.dimensions not in (None, self._encoder.dimension):
            raise ApiError(
                400, f"dimensions: this model has {self._encoder.dimension}", param="dimensions", code="invalid_value"
            )
        texts = [body.input] if isinstance(body.input, str) else body.input
        if self._batches.waiting + len(texts) > MAX_WAITING:
            raise overloaded(RETRY_AFTER_S)
        tokens = await asyncio.to_thread(self._encoder.tokens, texts)
        vectors: list[Vectors] = []

        async def embed() -> None:
            vectors.append(await self._batches.embed(tokens))

        await service.while_connected(embed(), request.receive)
        return service.json_response(
            {
                "object": "list",
                "model": self.name,
                "data": list(_rows(vectors[0], body.encoding_format)),
                "usage": dict.fromkeys(("prompt_tokens", "total_tokens"), sum(map(len, tokens))),
            }
        )


def _rows(vectors: Vectors, encoding: str) -> Iterator[dict[str, Any]]:
    for index, row in enumerate(vectors):
        shown = base64.b64encode(row.astype("<f4").tobytes()).decode() if encoding == "base64" else row.tolist()
        yield {"object": "embedding", "index": index, "embedding": shown}


def run(settings: Settings) -> None:
    """Loads the encoder and serves it until SIGTERM. Raises `WeightsMissing` or `ModelRejected`."""
    source = hub.locate(settings.encoder.model, weights.ENCODER, weights.encoder_model, settings.models)
    hub.share_cores(settings.encoder.threads)
    app = Embeddings(settings.encoder.model, Encoder(source)).application()
    service.run(app, settings.encoder.host, settings.encoder.port, settings.encoder.model)
