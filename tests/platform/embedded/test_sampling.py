"""Tokens are drawn as temperature, nucleus and seed ask for."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.embedded.answer import Sampling
from watchkeeper.embedded.sampling import draw, likelihood

pytestmark = pytest.mark.models


def drawn(logits: torch.Tensor, n: int = 300, temperature: float = 1.0, top_p: float = 1.0) -> list[int]:
    asked = (Sampling(max_tokens=1, temperature=temperature, top_p=top_p), torch.Generator().manual_seed(3))
    return [draw(logits.unsqueeze(0), [asked])[0] for _ in range(n)]


def test_drawing_follows_the_probabilities() -> None:
    share = torch.tensor(drawn(torch.tensor([0.6, 0.3, 0.1]).log(), n=2000)).bincount() / 2000
    assert share.tolist() == pytest.approx([0.6, 0.3, 0.1], abs=0.04)


def test_a_higher_temperature_is_flatter() -> None:
    share = torch.tensor(drawn(torch.tensor([0.9, 0.1]).log(), n=2000, temperature=2.0)).bincount() / 2000
    assert share.tolist() == pytest.approx([0.75, 0.25], abs=0.04)


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=700), st.floats(0, 1), st.sampled_from([1e-9, 0.3, 1.0, 2.0]))
@settings(deadline=None, max_examples=60)
def test_only_the_nucleus_is_drawn_from(values: list[float], top_p: float, temperature: float) -> None:
    logits = torch.tensor(values)
    likely = torch.softmax(logits / max(temperature, 1e-3), dim=-1)
    for token in set(drawn(logits, n=20, top_p=top_p, temperature=temperature)):
        more_likely = float(likely[likely > likely[token]].sum())
        assert more_likely <= max(top_p, 0) + 1e-4


def test_a_nucleus_wider_than_the_shortcut_is_whole() -> None:
    """3000 equal tokens: the nucleus of .9 is 2700 of them, far more than the 512 that are looked at first."""
    assert max(drawn(torch.zeros(3000), n=300, top_p=0.9)) > 512
    assert len(set(drawn(torch.zeros(3000), n=900, top_p=0.9))) > 512


def test_what_is_told_of_a_token_is_what_the_model_says_whatever_the_temperature() -> None:
    told = likelihood(torch.tensor([0.6, 0.3, 0.1]).log() + 5, 1, 2)
    assert told.log == pytest.approx(math.log(0.3), abs=1e-5)
    assert [token for token, _ in told.top] == [0, 1]
    assert [log for _, log in told.top] == pytest.approx([math.log(0.6), math.log(0.3)], abs=1e-5)
    assert likelihood(torch.zeros(4), 2, 0).top == ()
