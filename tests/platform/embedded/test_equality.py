"""The packaged model answers together what transformers' `generate` answers alone: the same tokens, or a tie.

20 questions; `EQUALITY_QUESTIONS=100` asks all there are.
"""

import os
import queue
from pathlib import Path
from typing import Any

import pytest
import torch

from watchkeeper.embedded import weights
from watchkeeper.embedded.answer import Event, Sampling
from watchkeeper.embedded.checkpoint import Checkpoint, load
from watchkeeper.embedded.generation import Generator

QUESTIONS = (Path(__file__).parent / "questions.txt").read_text().splitlines()
ASKED = int(os.environ.get("EQUALITY_QUESTIONS", "20"))
TOKENS = 24
TIE = 1e-3
"""Two logits nearer to each other than this may change places when sums are added up in another order."""

pytestmark = [pytest.mark.models, pytest.mark.timeout(300 + 30 * ASKED)]


def together(checkpoint: Checkpoint, prompts: list[list[int]]) -> list[list[int]]:
    generator = Generator(checkpoint.model, checkpoint.ends)
    generator.start()
    events: list[queue.Queue[Event]] = [queue.Queue() for _ in prompts]
    for prompt, its in zip(prompts, events, strict=True):
        generator.submit(prompt, Sampling(max_tokens=TOKENS, temperature=0), its.put)
    answers = []
    for its in events:
        answer, finish = [], None
        while finish is None:
            event = its.get(timeout=600)
            answer += [] if event.token is None else [event.token]
            finish = event.finish
        assert finish != "error"
        answers.append(answer)
    generator.stop()
    return answers


def alone(plain: Any, prompt: list[int], ends: frozenset[int]) -> list[int]:
    ids = torch.tensor([prompt])
    whole = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False)
    answer: list[int] = whole[0, len(prompt) :].tolist()
    return answer[:-1] if answer[-1] in ends else answer


def gap(plain: Any, prompt: list[int], ours: list[int], theirs: list[int], end: int) -> float:
    """How far apart plain transformers sees the two tokens with which two answers part."""
    at = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    pair = [answer[at] if at < len(answer) else end for answer in (ours, theirs)]
    with torch.inference_mode():
        logits = plain(torch.tensor([prompt + ours[:at]])).logits[0, -1]
    return float((logits[pair[0]] - logits[pair[1]]).abs())


def test_answers_together_are_those_of_generate(packaged: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = str(weights.chat_model(packaged))
    checkpoint = load(folder)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    step = len(QUESTIONS) // ASKED
    prompts = [checkpoint.prompt([("user", question)]) for question in QUESTIONS[::step][:ASKED]]
    ours = together(checkpoint, prompts)
    theirs = [alone(plain, prompt, checkpoint.ends) for prompt in prompts]
    parted = [at for at in range(len(prompts)) if ours[at] != theirs[at]]
    (end,) = checkpoint.ends
    gaps = {at: gap(plain, prompts[at], ours[at], theirs[at], end) for at in parted}
    print(f"{len(prompts) - len(parted)} of {len(prompts)} answers equal; others part at logits this far apart: {gaps}")
    assert len(prompts) == ASKED
    assert len(parted) <= 0.05 * len(prompts), gaps
    assert all(apart < TIE for apart in gaps.values()), gaps
