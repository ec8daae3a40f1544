"""truncated: was the answer cut off at its greatest length? What the upstream gave as its reason to stop.

What it cannot see: an answer that breaks off for another reason, or an upstream that does not say why it stopped.
"""

from typing import Final

import pyarrow as pa

from watchkeeper_evaluations.scorer import Score, Scores
from watchkeeper_evaluations.scorers.answer import COLUMNS, answers

NAME: Final = "truncated"
CUT: Final = "length"


class Truncated:
    """None where there is no answer."""

    name = NAME
    version = "1"
    source = "the finish reason that the upstream gave"
    columns = COLUMNS
    scores = (Score(NAME, kind="assertion", better="lower"),)

    def score(self, batch: pa.Table) -> list[Scores]:
        pairs = zip(answers(batch), batch.column("finish_reason").to_pylist(), strict=True)
        return [{NAME: None if answer is None else reason == CUT} for answer, reason in pairs]
