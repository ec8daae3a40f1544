"""Toxicity: the strongest label, all that hold, and no verdict without an embedding."""

from collections.abc import Callable

import pytest

from watchkeeper.encoder.heads import Head, load
from watchkeeper.serving.guard import Judgement
from watchkeeper.serving.guards.toxicity import Toxicity


def actions(judgement: Judgement) -> dict[str, str]:
    return {verdict.category: verdict.action for verdict in judgement.verdicts}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"toxicity": 0.1, "insult": 0.05}, {"toxicity": "pass"}),
        ({"toxicity": 0.7, "insult": 0.6, "threat": 0.2}, {"toxicity": "flag", "insult": "flag"}),
        ({"toxicity": 0.95, "insult": 0.6}, {"toxicity": "block", "insult": "flag"}),
    ],
)
def test_labels_become_verdicts(
    judged: Callable[..., Judgement], head: Callable[..., Head], scores: dict[str, float], expected: dict[str, str]
) -> None:
    assert actions(judged(Toxicity(head(scores)), "text", "output", embedded=True)) == expected


def test_it_does_not_know_without_an_embedding(judged: Callable[..., Judgement], head: Callable[..., Head]) -> None:
    (verdict,) = judged(Toxicity(head({"toxicity": 0.1})), "text").verdicts
    assert (verdict.action, verdict.rule) == ("unknown", "no_embedding")


def test_its_version_changes_with_the_packaged_head() -> None:
    assert load("toxicity").version in Toxicity(load("toxicity")).version
