"""reference_f1: how many words does the answer share with the expected answer? F1 of their words, as SQuAD counts them.

Words are folded (case, accents, compatibility forms), English articles left out; scripts without spaces count by pairs of
characters. What it cannot see: other words for the same thing, and word order.
"""

from collections import Counter
from typing import Final

import pyarrow as pa

from watchkeeper.serving.words import tokens
from watchkeeper_evaluations.scorer import Score, Scores
from watchkeeper_evaluations.scorers.answer import COLUMNS, answers

NAME: Final = "reference_f1"
ARTICLES: Final = frozenset({"a", "an", "the"})


class ReferenceF1:
    """None where no answer is expected; 0 where one is and none came."""

    name = NAME
    version = "1"
    source = "F1 of the words of answer and expected answer, as in SQuAD"
    columns = ("reference", *COLUMNS)
    scores = (Score(NAME, better="higher"),)

    def score(self, batch: pa.Table) -> list[Scores]:
        pairs = zip(references(batch), answers(batch), strict=True)
        return [{NAME: None if reference is None else f1(answer or "", reference)} for reference, answer in pairs]


def references(batch: pa.Table) -> list[str | None]:
    """One a row: the expected answer; None where there is none, or a blank one."""
    return [text if text and text.strip() else None for text in batch.column("reference").to_pylist()]


def f1(answer: str, reference: str) -> float:
    """In [0, 1]: the harmonic mean of the shares of words that the two have in common. Of no words at all: 1 if equal."""
    said, expected = _words(answer), _words(reference)
    if not said or not expected:
        return float(answer.split() == reference.split())
    common = (Counter(said) & Counter(expected)).total()
    return 2 * common / (len(said) + len(expected))


def _words(text: str) -> list[str]:
    return [token for token in tokens(text) if token not in ARTICLES]
