"""Grounded: passages were found, and they carry half of what is claimed; where nothing is claimed, nothing is said."""

from collections.abc import Callable

import pytest

from watchkeeper_evaluations.scorers.grounded import Grounded, claims, grounded

CLAIM = "Employees have thirty days of leave."


@pytest.mark.parametrize(
    ("retrieved", "support", "answer", "found"),
    [
        (3, 1.0, CLAIM, True),
        (3, 0.5, CLAIM, True),
        (3, 0.49, CLAIM, False),
        (0, None, CLAIM, False),
        (None, None, CLAIM, None),
        (3, None, CLAIM, None),  # the check did not run
        (3, 1.0, None, None),
        (0, None, "I don't know.", None),
        (2, None, "Das weiß ich leider nicht.", None),
        (0, None, "Hello! How can I help you?", None),
        (0, None, f"I am not sure. {CLAIM}", False),
    ],
)
def test_the_rule(retrieved: int | None, support: float | None, answer: str | None, found: bool | None) -> None:
    assert grounded(retrieved, support, answer) is found


def test_a_withheld_answer_is_not_judged(say: Callable[..., object]) -> None:
    columns = {"retrieved": 1, "support": 0.2, "output_text": CLAIM}
    assert say(Grounded(), finish_reason="stop", **columns) is False
    assert say(Grounded(), finish_reason="content_filter", **columns) is None


def test_what_claims_something() -> None:
    assert claims(CLAIM)
    assert claims("Sure! Here it is: the office opens at nine.")
    assert not claims("Which office do you mean?")
    assert not claims("Ik weet het niet.")
