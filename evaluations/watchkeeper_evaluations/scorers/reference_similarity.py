"""reference_similarity: does the answer mean what the expected answer means? The cosine of the two.

What it cannot see: a wrong number, name or negation in an otherwise equal sentence (`reference_f1` and people can).
"""

from typing import Final

import pyarrow as pa

from watchkeeper.settings import Settings
from watchkeeper_evaluations.scorer import Score, Scores
from watchkeeper_evaluations.scorers.answer import COLUMNS, answers
from watchkeeper_evaluations.scorers.reference_f1 import references
from watchkeeper_evaluations.scorers.similarity import Similarity

NAME: Final = "reference_similarity"


class ReferenceSimilarity:
    """None where no answer is expected; 0 where one is and none came. Raises `ScorerUnavailable`, `TextRefused`."""

    name = NAME
    columns = ("reference", *COLUMNS)
    scores = (Score(NAME, better="higher", flag_below=0.3),)

    def __init__(self, settings: Settings) -> None:
        self._similarity = Similarity(settings)
        self.version = self._similarity.version("1")
        self.source = f"cosine of answer and expected answer, {self._similarity.source}"

    def score(self, batch: pa.Table) -> list[Scores]:
        expected = references(batch)
        cosines = self._similarity.of(list(zip(expected, answers(batch), strict=True)))
        return [
            {NAME: None if reference is None else cosine or 0.0}
            for reference, cosine in zip(expected, cosines, strict=True)
        ]
