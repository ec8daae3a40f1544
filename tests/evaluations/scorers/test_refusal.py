"""A refusal is scored where somebody got the answer (what is one: tests/platform/serving/test_refusals.py)."""

from collections.abc import Callable

from watchkeeper_evaluations.scorers.refusal import Refusal


def test_an_answer_that_nobody_saw_is_not_judged(say: Callable[..., object]) -> None:
    assert say(Refusal(), output_text="I don't know.", finish_reason="stop") is True
    assert say(Refusal(), output_text="I don't know.", finish_reason="content_filter") is None
    assert say(Refusal(), output_text=" \n") is None
    assert say(Refusal(), output_text=None) is None
