"""A text's embedding is made once while it is remembered, and is the encoder's own."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from watchkeeper.encoder.client import EncoderUnavailable
from watchkeeper.serving.vector_memory import VectorMemory


class Counting:
    """An encoder that remembers what it was asked; its vectors tell their texts apart."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.away = False

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self.away:
            raise EncoderUnavailable("away")
        self.calls.append(list(texts))
        return np.array([[float(len(text)), float(hash(text) % 1000)] for text in texts], np.float32)


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5), max_size=20), st.integers(1, 8))
def test_vectors_are_the_encoders_own_and_no_more_are_kept_than_may_be(asked: list[list[str]], kept: int) -> None:
    encoder = Counting()
    memory = VectorMemory(cast(Any, encoder), kept)

    async def run() -> None:
        for texts in asked:
            got = await memory.of(texts)
            assert np.array_equal(np.stack(got), await Counting().embed(texts))
            assert len(memory._known) <= kept

    asyncio.run(run())
    assert all(len(set(call)) == len(call) for call in encoder.calls)
    assert memory.encoded == sum(map(len, encoder.calls))


def test_what_is_known_is_not_asked_again_and_the_least_recently_used_goes() -> None:
    encoder = Counting()
    memory = VectorMemory(cast(Any, encoder), 2)

    async def run() -> None:
        await memory.of(["a", "b"])
        await memory.of(["a"])
        await memory.of(["c", "a", "c"])
        await memory.of(["a", "c"])
        await memory.of(["b"])

    asyncio.run(run())
    assert encoder.calls == [["a", "b"], ["c"], ["b"]]


def test_while_the_encoder_is_away_what_is_known_goes_on() -> None:
    encoder = Counting()
    memory = VectorMemory(cast(Any, encoder), 2)

    async def run() -> None:
        await memory.of(["a"])
        encoder.away = True
        assert len(await memory.of(["a"])) == 1
        with pytest.raises(EncoderUnavailable):
            await memory.of(["a", "b"])

    asyncio.run(run())
