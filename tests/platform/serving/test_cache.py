"""Answers kept in memory: bounded, for a while, and all forgotten at once when somebody is erased."""

import asyncio
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchkeeper.serving.cache import FORGOTTEN, AnswerCache, Entry, Keys, forget
from watchkeeper.serving.wire import Delta


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def cache(data: Path, clock: Any = None, **bounds: Any) -> AnswerCache:
    return AnswerCache(
        data, **{"ttl_s": 60.0, "max_entries": 100, "max_bytes": 10_000_000, **bounds}, clock=clock or Clock()
    )


def entry(text: str = "Hello.") -> Entry:
    return Entry("0" * 32, Delta(text, "stop"))


def keys(cache: AnswerCache, name: str, near: str | None = None) -> Keys:
    return Keys(name.encode(), near.encode() if near else None, cache.now())


def test_what_is_kept_is_given_until_it_is_too_old(tmp_path: Path) -> None:
    clock = Clock()
    kept = cache(tmp_path, clock)
    kept.put(keys(kept, "a"), entry())
    clock.now = 59.9
    assert kept.get(b"a") == entry()
    assert kept.get(b"b") is None
    clock.now = 60.0
    assert kept.get(b"a") is None
    assert (len(kept), kept.bytes) == (0, 0)


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    kept = cache(tmp_path, max_entries=2)
    for name in ("a", "b"):
        kept.put(keys(kept, name), entry())
    assert kept.get(b"a")
    kept.put(keys(kept, "c"), entry())
    assert [kept.get(name) is not None for name in (b"a", b"b", b"c")] == [True, False, True]


def test_all_is_forgotten_when_somebody_is_erased_also_what_was_under_way(tmp_path: Path) -> None:
    first, second = cache(tmp_path), cache(tmp_path)
    for kept in (first, second):
        kept.put(keys(kept, "a", "like a"), entry())
    under_way = keys(first, "b")
    for _ in range(3):
        forget(tmp_path)
        for kept in (first, second):
            assert kept.get(b"a") is None
            assert kept.like(b"like a") is None
            assert (len(kept), kept.bytes) == (0, 0)
        first.put(under_way, entry())
        assert first.get(b"b") is None
        first.put(keys(first, "a"), entry())
        assert first.get(b"a")
    assert os.listdir(tmp_path) == [FORGOTTEN]


def test_a_second_key_leads_to_the_last_that_was_kept_with_it(tmp_path: Path) -> None:
    kept = cache(tmp_path, max_entries=2)
    kept.put(keys(kept, "a", "near"), entry("first"))
    kept.put(keys(kept, "b", "near"), entry("second"))
    found = kept.like(b"near")
    assert found is not None
    assert found.answer.text == "second"
    kept.put(keys(kept, "c"), entry())
    kept.put(keys(kept, "d"), entry())
    assert kept.like(b"near") is None


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 30_000), st.booleans()), max_size=40))
def test_it_never_takes_more_than_it_may(
    tmp_path_factory: pytest.TempPathFactory, puts: list[tuple[str, int, bool]]
) -> None:
    kept = cache(Path("nowhere"), max_entries=4, max_bytes=100_000)
    held: dict[str, str] = {}
    for name, size, near in puts:
        text = name * size
        kept.put(keys(kept, name, name.upper() if near else None), entry(text))
        held[name] = text
        assert len(kept) <= 4
        assert 0 <= kept.bytes <= 100_000
        for other, said in held.items():
            found = kept.get(other.encode())
            assert found is None or found.answer.text == said
    assert kept.bytes == sum(
        4_000 + 4 * (len(one.answer.text) + 2) for one in map(kept.get, map(str.encode, "abcdef")) if one
    )


def test_its_bytes_are_no_less_than_what_it_takes(tmp_path: Path) -> None:
    import numpy as np

    kept = cache(tmp_path, max_entries=10_000)
    tracemalloc.start()
    for number in range(500):
        vector = np.ones(384, np.float32) * number
        made = Entry(f"{number:032}", Delta(f"{number} 東京 " * 40, "stop", (1, 2), f"model-{number}"), vector)
        kept.put(Keys(f"{number:032}".encode(), f"near {number:032}".encode(), kept.now()), made)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken <= kept.bytes


def test_others_with_the_same_key_wait_until_the_first_has_ended(tmp_path: Path) -> None:
    async def fly(kept: AnswerCache, told: list[str], others: list[asyncio.Task[None]]) -> None:
        with kept.flying(b"a"):
            await asyncio.sleep(0)
            others[0].cancel()
            await asyncio.sleep(0)
            told.append("first")
            raise ZeroDivisionError

    async def run() -> list[str]:
        kept = cache(tmp_path)
        told: list[str] = []

        async def other() -> None:
            flight = kept.flight(b"a")
            assert flight is not None
            await asyncio.wait((flight,))
            told.append("other")

        others: list[asyncio.Task[None]] = []
        first = asyncio.create_task(fly(kept, told, others))
        await asyncio.sleep(0)
        others += [asyncio.create_task(other()) for _ in range(3)]
        with pytest.raises(ZeroDivisionError):
            await first
        await asyncio.gather(*others, return_exceptions=True)
        assert kept.flight(b"a") is None
        return told

    assert asyncio.run(run()) == ["first", "other", "other"]
