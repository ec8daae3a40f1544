"""Several requests at once give each what it would have got alone."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from watchkeeper.embedded.answer import Event, Sampling
from watchkeeper.embedded.checkpoint import load
from watchkeeper.embedded.generation import Generator

pytestmark = pytest.mark.models

GREEDY = Sampling(max_tokens=24, temperature=0)


class Asked:
    """One request and what came of it."""

    def __init__(self, generator: Generator, prompt: list[int], sampling: Sampling) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.job = generator.submit(prompt, sampling, self.events.put)

    def answer(self) -> list[int]:
        tokens, self.finish, self.generated = [], None, 0
        while self.finish is None:
            event = self.events.get(timeout=60)
            tokens += [] if event.token is None else [event.token]
            self.finish, self.generated = event.finish, event.generated
        return tokens


@pytest.fixture(scope="module")
def plain(tiny: Path) -> Any:
    """As transformers loads it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def model(tiny: Path) -> Any:
    return load(str(tiny)).model


@contextmanager
def running(model: Any, ends: tuple[int, ...] = (), **options: int) -> Iterator[Generator]:
    generator = Generator(model, ends, **options)
    generator.start()
    try:
        yield generator
    finally:
        generator.stop()


def prompts(n: int, longest: int) -> list[list[int]]:
    """Different ones, of different lengths up to `longest`, that begin alike."""
    random = torch.Generator().manual_seed(1)
    lengths = [1 + (index * 29) % longest for index in range(n)]
    return [[7, 8, 9, *torch.randint(3, 250, (length,), generator=random).tolist()] for length in lengths]


def alone(plain: Any, prompt: list[int], tokens: int) -> list[int]:
    """What transformers itself answers, greedily and to the last token."""
    ids = torch.tensor([prompt])
    answered = plain.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, eos_token_id=-1
    )
    found: list[int] = answered[0, len(prompt) :].tolist()
    return found


def test_greedy_answers_are_those_of_generate(model: Any, plain: Any) -> None:
    """More requests than rows, prompts longer than a chunk, answers of different lengths: rows come, move and go."""
    asked = prompts(9, longest=60)
    wanted = [4 + index % 5 * 6 for index in range(len(asked))]
    with running(model, rows=3, alone=16, beside=8) as generator:
        going = [
            Asked(generator, prompt, Sampling(max_tokens=n, temperature=0)) for prompt, n in zip(asked, wanted, strict=True)
        ]
        answers = [one.answer() for one in going]
    assert answers == [alone(plain, prompt, n) for prompt, n in zip(asked, wanted, strict=True)]
    assert {one.finish for one in going} == {"length"}


def test_a_context_that_outgrows_its_buffer_goes_on(model: Any, plain: Any) -> None:
    (long,) = prompts(1, 1)
    with running(model) as generator:
        first, second = (Asked(generator, long * factor, Sampling(max_tokens=300, temperature=0)) for factor in (1, 30))
        assert first.answer() == alone(plain, long, 300)
        assert second.answer() == alone(plain, long * 30, 300)


def test_the_same_prompt_again_and_a_shorter_one_are_answered_alike(model: Any, plain: Any) -> None:
    """The second and third reuse what was read for the first."""
    prompt = prompts(3, 60)[2]
    with running(model, alone=16) as generator:
        for asked in (prompt, prompt, prompt[:-5], prompt[:3]):
            assert Asked(generator, asked, GREEDY).answer() == alone(plain, asked, 24)


def test_an_end_token_ends_the_answer_and_is_counted_but_not_sent(model: Any, plain: Any) -> None:
    (prompt,) = prompts(1, 20)
    full = alone(plain, prompt, 24)
    end = full[10]
    with running(model, ends=(end,)) as generator:
        asked = Asked(generator, prompt, GREEDY)
        answer = asked.answer()
    assert answer == full[: full.index(end)]
    assert (asked.finish, asked.generated) == ("stop", len(answer) + 1)


def test_a_seed_makes_an_answer_repeatable_whoever_else_is_answered(model: Any, plain: Any) -> None:
    asked = prompts(4, 30)
    hot = [Sampling(max_tokens=20, temperature=1.2, top_p=0.95, seed=seed) for seed in (1, 2, -1)]
    with running(model) as generator:
        single = [Asked(generator, asked[0], sampling).answer() for sampling in hot]
        crowd = [Asked(generator, prompt, GREEDY) for prompt in asked]
        again = [Asked(generator, asked[0], sampling) for sampling in hot]
        assert [one.answer() for one in again] == single
        assert len({tuple(answer) for answer in single}) == 3
        assert [one.answer() for one in crowd] == [alone(plain, prompt, 24) for prompt in asked]


def test_without_a_seed_answers_differ(model: Any, plain: Any) -> None:
    with running(model) as generator:
        hot = Sampling(max_tokens=20, temperature=1.5)
        assert Asked(generator, [5, 6], hot).answer() != Asked(generator, [5, 6], hot).answer()


def test_a_cancelled_request_makes_room_for_the_next(model: Any, plain: Any) -> None:
    """One row: the next is answered only when the endless one has left it, and one cancelled in line never runs."""
    with running(model, rows=1) as generator:
        endless = Asked(generator, [5, 6], Sampling(max_tokens=10_000, temperature=0))
        in_line = Asked(generator, [5], GREEDY)
        after = Asked(generator, [9], GREEDY)
        endless.events.get(timeout=60)
        in_line.job.cancel()
        endless.job.cancel()
        assert after.answer() == alone(plain, [9], 24)
        assert in_line.events.empty()


def test_a_prompt_whose_client_left_is_not_read_to_its_end(model: Any, plain: Any) -> None:
    longest: list[int] = []

    class Leaving(torch.nn.Module):
        dtype, device = model.dtype, model.device

        def forward(self, **inputs: Any) -> Any:
            longest.append(int(inputs["position_ids"].max()))
            leaver.job.cancel()
            return model(**inputs)

    generator = Generator(Leaving(), (), alone=8, prefixes=0)
    leaver = Asked(generator, [5] * 400, GREEDY)
    generator.start()
    assert Asked(generator, [9], GREEDY).answer() == alone(plain, [9], 24)
    generator.stop()
    assert max(longest) < 40


class Failing(torch.nn.Module):
    """A model that fails when it is told to."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.dtype, self.device = model.dtype, model.device
        self.fails = threading.Event()

    def forward(self, **inputs: Any) -> Any:
        if self.fails.is_set():
            self.fails.clear()
            raise RuntimeError("out of memory")
        return self.model(**inputs)


def test_a_step_that_fails_ends_its_requests_and_the_next_are_answered(
    model: Any, plain: Any, caplog: pytest.LogCaptureFixture
) -> None:
    failing = Failing(model)
    with running(failing) as generator:
        victim = Asked(generator, [5, 6, 7], Sampling(max_tokens=10_000, temperature=0))
        victim.events.get(timeout=60)
        failing.fails.set()
        victim.answer()
        assert victim.finish == "error"
        assert "out of memory" in caplog.text
        assert Asked(generator, [5, 6, 7], GREEDY).answer() == alone(plain, [5, 6, 7], 24)


def test_stopping_ends_all_requests(model: Any, plain: Any) -> None:
    with running(model, rows=1) as generator:
        going = [Asked(generator, [5], Sampling(max_tokens=100_000, temperature=0)) for _ in range(2)]
        going[0].events.get(timeout=60)
    for one in going:
        one.answer()
        assert one.finish == "error"
    assert not generator.alive
