"""What the tests of all guards share: a guard, a text and the default policies in, an action out."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from watchkeeper.encoder.heads import Card, Head
from watchkeeper.record import Action, Source, Target, strongest
from watchkeeper.release import DEFAULT_POLICIES
from watchkeeper.serving.guard import Guard, Judgement, Subject, judge
from watchkeeper.serving.scan import scan_copy

EMBEDDING: NDArray[np.float32] = np.full(384, 384**-0.5, np.float32)


@pytest.fixture(scope="session")
def judged() -> Callable[..., Judgement]:
    """(guard, text, target, embedded, support) → what the default policies make of it."""

    def judged(
        guard: Guard, text: str, target: Target = "prompt", *, embedded: bool = False, support: float | None = None
    ) -> Judgement:
        subject = Subject(
            target=target,
            text=text,
            scan=scan_copy(text),
            embedding=EMBEDDING if embedded else None,
            support=support,
            sources=() if support is None else (Source("a#1", "a", 1.0, "a source"),),
        )
        return judge(guard, subject, DEFAULT_POLICIES[guard.name])

    return judged


@pytest.fixture(scope="session")
def action(judged: Callable[..., Judgement]) -> Callable[..., Action]:
    """As `judged`, the strongest action alone."""

    def action(guard: Guard, text: str, target: Target = "prompt", **rest: object) -> Action:
        return strongest(verdict.action for verdict in judged(guard, text, target, **rest).verdicts)

    return action


@pytest.fixture(scope="session")
def head() -> Callable[[dict[str, float]], Head]:
    """Class → probability: a head that gives these to every text."""

    def head(scores: dict[str, float]) -> Head:
        values = np.array(list(scores.values()), np.float64).clip(1e-9, 1 - 1e-9)
        bias = np.log(values / (1 - values)).astype(np.float32)
        nothing: Sequence[NDArray[np.float32]] = (np.zeros((384, 1), np.float32), np.zeros(1, np.float32))
        card = Card(name="test", classes=tuple(scores), sha256="0" * 64, encoder_sha256="0" * 64)
        return Head(card, (nothing[0], nothing[1], np.zeros((1, len(scores)), np.float32), bias))

    return head
