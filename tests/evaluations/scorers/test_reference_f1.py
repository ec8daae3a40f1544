"""F1 of words, as SQuAD counts them, in any script."""

from collections.abc import Callable

import pytest

from watchkeeper_evaluations.scorers.reference_f1 import ReferenceF1, f1


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("Thirty days.", "thirty days", 1.0),
        ("The thirty days", "thirty days", 1.0),
        ("thirty", "thirty days", 2 / 3),
        ("It is thirty days", "thirty days", 2 / 3),
        ("no", "thirty days", 0.0),
        ("1,000 euros", "1000 euros", 1.0),
        ("Café", "cafe", 1.0),
        ("東京都", "東京都", 1.0),
        ("東京", "東京都", 2 / 3),
        ("yes yes yes", "yes", 0.5),
        ("", "thirty", 0.0),
        ("?", "?", 1.0),
        ("?", "!", 0.0),
        ("the", "thirty", 0.0),
    ],
)
def test_the_share_of_common_words(answer: str, reference: str, score: float) -> None:
    assert f1(answer, reference) == pytest.approx(score)
    assert f1(reference, answer) == pytest.approx(score)


def test_no_expected_answer_no_score_but_no_answer_is_a_zero(say: Callable[..., object]) -> None:
    scorer = ReferenceF1()
    assert say(scorer, output_text="thirty days", reference="Thirty days") == 1.0
    assert say(scorer, output_text="thirty days", reference=None) is None
    assert say(scorer, output_text="thirty days", reference=" ") is None
    assert say(scorer, output_text=None, reference="Thirty days") == 0.0
    assert say(scorer, output_text="thirty days", reference="Thirty days", finish_reason="content_filter") == 0.0
