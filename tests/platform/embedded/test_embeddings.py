"""The encoder: vectors that mean something, the same for everybody, batched fairly."""

import asyncio
import base64
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import requests
from starlette.applications import Starlette

from watchkeeper.embedded import weights
from watchkeeper.embedded.embeddings import BATCH_TOKENS, Batches, Embeddings, Encoder, Vectors

NAME = "all-minilm-l6-v2"


@pytest.fixture(scope="module")
def encoder(packaged: Path) -> Encoder:
    return Encoder(str(weights.encoder_model(packaged)))


@pytest.fixture(scope="module")
def url(encoder: Encoder, serving: Callable[[Starlette], AbstractContextManager[str]]) -> Iterator[str]:
    with serving(Embeddings(NAME, encoder).application()) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def embed(client: openai.OpenAI, texts: str | list[str]) -> Vectors:
    answer = client.embeddings.create(model=NAME, input=texts)
    assert [row.index for row in answer.data] == list(range(len(answer.data)))
    return np.array([row.embedding for row in answer.data], dtype=np.float32)


@pytest.mark.models
def test_vectors_are_unit_and_near_where_meanings_are(client: openai.OpenAI) -> None:
    ship, boat, tax = embed(client, ["The ship left the harbour.", "A boat sailed out of port.", "Tax law was changed."])
    assert np.linalg.norm([ship, boat, tax], axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert ship.shape == (384,)
    assert ship @ boat > 0.5 > 0.3 > ship @ tax


@pytest.mark.models
def test_a_vector_is_the_normalised_mean_of_the_hidden_states(client: openai.OpenAI, packaged: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = weights.encoder_model(packaged)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        hidden = model(**tokenizer(["Fair winds and following seas."], return_tensors="pt")).last_hidden_state[0]
    mean = hidden.mean(dim=0).numpy()
    assert np.allclose(embed(client, "Fair winds and following seas.")[0], mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.models
def test_a_vector_depends_on_nothing_but_its_text(client: openai.OpenAI) -> None:
    """Of very different lengths, from many callers at once, alone or in a list: padding and order must not show."""
    texts = [f"{'anchor ' * (index * 7 % 90)}{index}" for index in range(24)]
    alone = np.concatenate([embed(client, text) for text in texts])
    assert np.allclose(embed(client, texts), alone, atol=1e-5)
    with ThreadPoolExecutor(6) as pool:
        lists = list(pool.map(lambda start: embed(client, texts[start : start + 4]), range(0, 24, 4)))
    assert np.allclose(np.concatenate(lists), alone, atol=1e-5)


@pytest.mark.models
def test_a_text_is_read_up_to_256_tokens(client: openai.OpenAI) -> None:
    start = "sea " * 254
    same, other = embed(client, [start + "desert", start + "harbour"]), embed(client, "sea " * 250 + "desert")
    assert np.allclose(same[0], same[1], atol=1e-5)
    assert not np.allclose(same[0], other[0], atol=1e-4)


@pytest.mark.models
def test_an_empty_text_has_a_vector_too(client: openai.OpenAI) -> None:
    empty, again = embed(client, ["", "mast"])[0], embed(client, "")[0]
    assert np.linalg.norm(empty) == pytest.approx(1, abs=1e-5)
    assert np.allclose(empty, again, atol=1e-5)


@pytest.mark.models
def test_base64_holds_the_same_numbers(url: str) -> None:
    body = {"model": NAME, "input": ["anchor", "a"]}
    plain = requests.post(f"{url}/embeddings", json=body, timeout=60).json()
    coded = requests.post(f"{url}/embeddings", json=body | {"encoding_format": "base64"}, timeout=60).json()
    for one, other in zip(plain["data"], coded["data"], strict=True):
        numbers = np.frombuffer(base64.b64decode(other["embedding"]), dtype="<f4")
        assert np.array_equal(np.array(one["embedding"], np.float32), numbers)
    assert plain["usage"] == {"prompt_tokens": 6, "total_tokens": 6}


@pytest.mark.models
@pytest.mark.parametrize(
    ("more", "status", "param", "code"),
    [
        ({"model": "text-embedding-3-small"}, 404, "model", "model_not_found"),
        ({"input": []}, 400, "input", "invalid_value"),
        ({"input": [1, 2, 3]}, 400, "input", "invalid_value"),
        ({"input": ["x"] * 2049}, 400, "input", "invalid_value"),
        ({"encoding_format": "hex"}, 400, "encoding_format", "invalid_value"),
        ({"dimensions": 64}, 400, "dimensions", "invalid_value"),
    ],
)
def test_what_cannot_be_embedded_is_refused(url: str, more: dict[str, Any], status: int, param: str, code: str) -> None:
    response = requests.post(f"{url}/embeddings", json={"model": NAME, "input": "x"} | more, timeout=60)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (status, param, code)


class Recording(Encoder):
    """Notes each batch, and waits with it until it is let go. The vector of a text is its first token."""

    def __init__(self) -> None:
        self.dimension = 1
        self.batches: list[list[int]] = []
        self.go = threading.Semaphore(0)
        self.fails = False

    def embed(self, texts: Sequence[list[int]]) -> Vectors:
        assert self.go.acquire(timeout=30)
        self.batches.append([text[0] for text in texts])
        if self.fails:
            raise RuntimeError("out of memory")
        return np.array([[text[0]] for text in texts], np.float32)


def text(mark: int, length: int = 256) -> list[int]:
    return [mark] * length


async def scenario(story: Callable[[Recording, Batches], Any]) -> Recording:
    encoder = Recording()
    batches = Batches(encoder)
    working = asyncio.create_task(batches.run())
    try:
        await asyncio.wait_for(story(encoder, batches), 30)
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
    return encoder


def test_one_text_does_not_stand_behind_a_jobs_hundred() -> None:
    async def story(encoder: Recording, batches: Batches) -> None:
        job = asyncio.create_task(batches.embed([text(mark) for mark in range(100)]))
        await asyncio.sleep(0)
        live = asyncio.create_task(batches.embed([text(777)]))
        encoder.go.release(2)
        assert (await live).tolist() == [[777.0]]
        assert not job.done()
        encoder.go.release(100)
        assert (await job)[:, 0].tolist() == list(range(100))

    encoder = asyncio.run(scenario(story))
    assert 777 in [*encoder.batches[0], *encoder.batches[1]]
    assert all(len(batch) * 256 <= BATCH_TOKENS for batch in encoder.batches)


def test_texts_of_like_length_share_a_batch() -> None:
    async def story(encoder: Recording, batches: Batches) -> None:
        encoder.go.release(9)
        lengths = [256, 4] * 8
        vectors = await batches.embed([text(mark, length) for mark, length in enumerate(lengths)])
        assert vectors[:, 0].tolist() == list(range(16))

    first, *rest = asyncio.run(scenario(story)).batches
    # The eight short ones first; padded to 256 with a long one they would fill the batch, so none is among them.
    assert first == [1, 3, 5, 7, 9, 11, 13, 15]
    assert sorted(mark for batch in rest for mark in batch) == [0, 2, 4, 6, 8, 10, 12, 14]


def test_a_caller_who_leaves_is_not_worked_for() -> None:
    async def story(encoder: Recording, batches: Batches) -> None:
        leaver = asyncio.create_task(batches.embed([text(mark) for mark in range(100)]))
        await asyncio.sleep(0)
        leaver.cancel()
        encoder.go.release(9)
        assert (await batches.embed([text(5)])).tolist() == [[5.0]]
        assert batches.waiting == 0

    assert len(asyncio.run(scenario(story)).batches) <= 2


def test_a_batch_that_fails_fails_its_callers_and_the_next_is_computed() -> None:
    async def story(encoder: Recording, batches: Batches) -> None:
        encoder.fails = True
        encoder.go.release(1)
        with pytest.raises(RuntimeError, match="out of memory"):
            await batches.embed([text(1)])
        encoder.fails = False
        encoder.go.release(1)
        assert (await batches.embed([text(2)])).tolist() == [[2.0]]

    asyncio.run(scenario(story))


@pytest.mark.models
@pytest.mark.servers
def test_the_process_serves_the_packaged_encoder_and_ends_well_on_sigterm(
    packaged: Path, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    (tmp_path / "watchkeeper.toml").write_text(f'models = "{packaged}"\n[encoder]\nport = {port}\n')
    code = "from watchkeeper.embedded.embeddings import run; from watchkeeper.settings import load; run(load())"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline
            with suppress(requests.ConnectionError):
                if requests.get(f"http://127.0.0.1:{port}/health/ready", timeout=1).ok:
                    break
            time.sleep(0.05)
        body = {"model": NAME, "input": "anchor"}
        answer = requests.post(f"http://127.0.0.1:{port}/v1/embeddings", json=body, timeout=30).json()
        assert len(answer["data"][0]["embedding"]) == 384
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
