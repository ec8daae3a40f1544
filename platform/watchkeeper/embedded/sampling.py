"""The next token of each answer, drawn from what a model says of all tokens."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from watchkeeper.embedded.answer import Likelihood, Sampling

NUCLEUS: Final = 512
"""Most nuclei are smaller than this, and finding the largest 512 is far cheaper than sorting a vocabulary."""
COLDEST: Final = 1e-5
"""A temperature below this is greedy: dividing by it would overflow."""
SMALLEST: Final = 1e-9
"""A nucleus holds a token at least, also for a `top_p` of 0."""


def draw(logits: Tensor, asked: Sequence[tuple[Sampling, torch.Generator]]) -> list[int]:
    """A token from each row of the logits (answers, vocabulary)."""
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    for row, (sampling, random) in enumerate(asked):
        if sampling.temperature >= COLDEST:
            tokens[row] = _sample(logits[row].float().cpu(), sampling, random)
    return tokens


def likelihood(logits: Tensor, token: int, top: int) -> Likelihood:
    """How likely the model found the token, and which `top` it found likeliest: before temperature and nucleus."""
    logs = torch.log_softmax(logits.float(), dim=-1)
    values, tokens = logs.topk(min(top, len(logs)))
    return Likelihood(float(logs[token]), tuple(zip(tokens.tolist(), values.tolist(), strict=True)))


def _sample(logits: Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """A draw from the nucleus: the fewest tokens whose probabilities reach `top_p`; the likeliest is always in it."""
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    if sampling.top_p >= 1:
        return int(torch.multinomial(probabilities, 1, generator=random))
    likely, tokens = probabilities.topk(min(NUCLEUS, len(probabilities)))
    if likely.sum() < sampling.top_p:
        likely, tokens = probabilities.sort(descending=True)
    nucleus = likely[likely.cumsum(0) - likely < max(sampling.top_p, SMALLEST)]
    return int(tokens[torch.multinomial(nucleus, 1, generator=random)])
