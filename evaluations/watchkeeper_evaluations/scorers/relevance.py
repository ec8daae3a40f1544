"""relevance: is the answer about what was asked? The cosine of prompt and answer.


Measured on 700 public questions with ChatGPT's answers (HaluEval), packaged encoder: an answer is nearer to its own
question than to another one's in 99.5% of pairs (AUC). Half of the answers reach 0.62; below 0.15 lie 0.9% of them, but 86%
of answers to other questions.
What it cannot see: whether the answer is right; that a refusal repeats the question's words; an answer that is rightly far
from its question (a number, a piece of code, a poem). Encoders of English see other languages dimly.
"""

from typing import Final

import pyarrow as pa

from watchkeeper.settings import Settings
from watchkeeper_evaluations.scorer import Score, Scores
from watchkeeper_evaluations.scorers.answer import COLUMNS, answers
from watchkeeper_evaluations.scorers.similarity import Similarity

NAME: Final = "relevance"


class Relevance:
    """None where there is no prompt or no answer. Raises `ScorerUnavailable` while the encoder is away, `TextRefused`."""

    name = NAME
    columns = ("prompt_text", *COLUMNS)
    scores = (Score(NAME, better="higher", flag_below=0.15),)

    def __init__(self, settings: Settings) -> None:
        self._similarity = Similarity(settings)
        self.version = self._similarity.version("1")
        self.source = f"cosine of prompt and answer, {self._similarity.source}"

    def score(self, batch: pa.Table) -> list[Scores]:
        pairs = list(zip(batch.column("prompt_text").to_pylist(), answers(batch), strict=True))
        return [{NAME: value} for value in self._similarity.of(pairs)]
