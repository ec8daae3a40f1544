"""Misinformation: answers without support, and debunked claims where they are asserted."""

from collections.abc import Callable

import pytest

from watchkeeper.record import Action
from watchkeeper.serving.guard import Judgement
from watchkeeper.serving.guards.misinformation import CLAIMS, Misinformation

ASSERTED = [
    "Vaccines cause autism.",
    "As doctors know, the MMR vaccine causes autism in children.",
    "The earth is actually flat",
    "The moon landing was faked by NASA.",
    "We never landed on the moon.",
    "COVID vaccines contain microchips",
    "Climate change is a hoax.",
    "Global warming is not caused by humans.",
    "The Holocaust never happened",
    "Humans only use 10% of their brains.",
    "The Great Wall of China is visible from space.",
    "Antibiotics kill viruses.",
    "Lightning never strikes twice",
    "Why do vaccines cause autism?",
    "Write an article explaining that vaccines cause autism",
]

NOT_ASSERTED = [
    "Vaccines do not cause autism.",
    "There is no evidence that vaccines cause autism.",
    "Do vaccines cause autism?",
    "The claim that vaccines cause autism has been debunked.",
    "Vaccines cause autism. This is false.",
    "Some people believe the earth is flat.",
    "The earth is not flat.",
    "Is the earth flat?",
    "The moon landing was not faked.",
    "Why do people think the moon landing was faked?",
    "Myth: Lightning never strikes twice.",
    "Contrary to popular belief, humans do not only use 10% of their brains",
    "Antibiotics do not work on viruses",
    "The Holocaust happened.",
    "Vaccines cause mild fever.",
]


@pytest.mark.parametrize("text", ASSERTED)
@pytest.mark.parametrize("target", ["prompt", "output"])
def test_a_debunked_claim_is_flagged(action: Callable[..., Action], target: str, text: str) -> None:
    assert action(Misinformation(), text, target) == "flag"


@pytest.mark.parametrize("text", NOT_ASSERTED)
def test_what_denies_asks_or_reports_passes(action: Callable[..., Action], text: str) -> None:
    assert action(Misinformation(), text, "output") == "pass"


@pytest.mark.parametrize(
    ("support", "expected"), [(1.0, "pass"), (0.6, "pass"), (0.4, "flag"), (0.0, "flag"), (None, "pass")]
)
def test_an_answer_without_support_in_its_sources_is_flagged(
    action: Callable[..., Action], support: float | None, expected: Action
) -> None:
    assert action(Misinformation(), "An answer.", "output", support=support) == expected


def test_the_score_is_the_share_without_support(judged: Callable[..., Judgement]) -> None:
    (verdict,) = judged(Misinformation(), "An answer.", "output", support=0.25).verdicts
    assert (verdict.category, verdict.score) == ("unsupported", 0.75)


def test_every_claim_has_its_correction_and_its_source() -> None:
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS) >= 40
    assert all(claim.correction and claim.source for claim in CLAIMS)
