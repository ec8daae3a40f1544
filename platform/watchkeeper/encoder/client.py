"""The encoder as its users see it: texts in, unit vectors out, or `EncoderUnavailable` (`TextRefused`: by fault of a text).

Speaks OpenAI's `/v1/embeddings` with whatever answers there. `EncoderClient` is for the gateway: asynchronous, quick to
give up, and while the encoder is away it costs nothing. `embed_blocking` is for jobs, which have time.
"""

import base64
import binascii
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import aiohttp
import msgspec
import numpy as np
import requests
from numpy.typing import NDArray

DIMENSION: Final = 384
FAILURES: Final = 2
"""In a row; then the encoder is left alone for a while."""
COOLDOWN_S: Final = 3.0
BATCH: Final = 64
REFUSALS: Final = (400, 413, 422)
"""What servers say of a text that is too long for them, or otherwise not to their taste."""

Vectors = NDArray[np.float32]


class EncoderUnavailable(Exception):
    """There are no vectors now; the message says why, and holds none of the texts."""


class TextRefused(EncoderUnavailable):
    """The encoder is there, and does not take these texts: because of one of them, or because they are too many at once.
    Who needs them all goes on as if it were away. The message holds none of the texts."""


class _Row(msgspec.Struct):
    index: int
    embedding: str | list[float]


class _Answer(msgspec.Struct):
    data: list[_Row]


class EncoderClient:
    """The gateway's. `url` ends in `/v1`. After two failures in a row calls fail at once for three seconds; then one call
    tries again, and the others follow when it succeeds."""

    def __init__(
        self,
        url: str,
        model: str,
        session: aiohttp.ClientSession,
        api_key: str | None = None,
        timeout_s: float = 2.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._model = model
        self._session = session
        self._headers = _headers(api_key)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._clock = clock
        self._failures = 0
        self._closed_until = 0.0
        self._probing = False

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, 384) float32, each row of length 1. Raises `EncoderUnavailable`."""
        if not texts:
            return np.empty((0, DIMENSION), np.float32)
        self._admit()
        try:
            vectors = await self._ask(texts)
        except TextRefused:  # it is there: one client's text must not take it from all others
            raise
        except EncoderUnavailable:
            self._failures += 1
            if self._failures >= FAILURES:
                self._closed_until = self._clock() + COOLDOWN_S
            raise
        finally:
            # Also when the call is cancelled: a probe that nobody waits for must not keep the others out.
            self._probing = False
        self._failures = 0
        return vectors

    async def healthy(self) -> bool:
        """Whether the encoder answers; asks it, and leaves what is known of failures as it is."""
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._session.get(f"{self._url}/models", headers=self._headers, timeout=self._timeout) as response:
                return response.status == 200
        return False

    def _admit(self) -> None:
        if self._failures < FAILURES:
            return
        if self._probing or self._clock() < self._closed_until:
            raise EncoderUnavailable("the encoder failed a moment ago")
        self._probing = True

    async def _ask(self, texts: Sequence[str]) -> Vectors:
        try:
            async with self._session.post(
                f"{self._url}/embeddings",
                data=_request(self._model, texts),
                headers=self._headers,
                timeout=self._timeout,
            ) as response:
                body = await response.read()
                return _vectors(response.status, body, len(texts))
        except TimeoutError as error:
            raise EncoderUnavailable("the encoder did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EncoderUnavailable(f"the encoder cannot be reached: {type(error).__name__}") from error


def embed_blocking(
    url: str, model: str, texts: Sequence[str], *, api_key: str | None = None, timeout_s: float = 60.0
) -> Vectors:
    """(n, 384) float32, each row of length 1; asks in batches of 64, each with `timeout_s`. Raises `EncoderUnavailable`;
    `TextRefused` where the fault may be a text's."""
    parts = [np.empty((0, DIMENSION), np.float32)]
    with requests.Session() as session:
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            try:
                response = session.post(
                    f"{url}/embeddings", data=_request(model, batch), headers=_headers(api_key), timeout=timeout_s
                )
            except requests.RequestException as error:
                raise EncoderUnavailable(f"the encoder cannot be reached at {url}: {type(error).__name__}") from error
            parts.append(_vectors(response.status_code, response.content, len(batch)))
    return np.concatenate(parts)


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    return headers


def _request(model: str, texts: Sequence[str]) -> bytes:
    # base64 halves the answer and saves parsing 384 decimal numbers a text.
    return msgspec.json.encode({"model": model, "input": list(texts), "encoding_format": "base64"})


def _vectors(status: int, body: bytes, n: int) -> Vectors:
    """The answer's vectors, in order and of unit length. Some servers ignore the format asked for and send numbers."""
    if status in REFUSALS:
        raise TextRefused(f"the encoder refused the text: status {status}")
    if status != 200:
        raise EncoderUnavailable(f"the encoder answered with status {status}")
    try:
        rows = sorted(msgspec.json.decode(body, type=_Answer).data, key=lambda row: row.index)
        vectors = np.stack([_vector(row.embedding) for row in rows])
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise EncoderUnavailable(f"the encoder's answer cannot be read: {type(error).__name__}") from error
    if vectors.shape != (n, DIMENSION):
        raise EncoderUnavailable(f"the encoder sent vectors of shape {vectors.shape}, not {(n, DIMENSION)}")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise EncoderUnavailable("the encoder sent vectors that are no directions (NaN or zero)")
    return np.asarray(vectors / lengths, dtype=np.float32)


def _vector(sent: str | list[float]) -> Vectors:
    if isinstance(sent, str):
        return np.frombuffer(base64.b64decode(sent, validate=True), dtype="<f4")
    return np.asarray(sent, dtype=np.float32)
