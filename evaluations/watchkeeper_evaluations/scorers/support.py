"""support: the share of the answer's claims that its sources carry, as the gateway's check found it (serving/check.py).


Measured on 429 public answers labelled by people (BEGIN, Wizard of Wikipedia): AUC 0.886 for this share.
What it cannot see: whether a source is right; a false statement built from a source's own words; an answer in
another language than its sources.
"""

from typing import Final

import pyarrow as pa

from watchkeeper_evaluations.scorer import Score, Scores
from watchkeeper_evaluations.scorers.answer import COLUMNS, answers

NAME: Final = "support"


class Support:
    """None where there was nothing to check: no source, no claim, no answer."""

    name = NAME
    version = "1"
    source = "share of claims that the sources support, by words, numbers, names and negations"
    columns = ("support", *COLUMNS)
    scores = (Score(NAME, better="higher", flag_below=0.5),)

    def score(self, batch: pa.Table) -> list[Scores]:
        pairs = zip(batch.column("support").to_pylist(), answers(batch), strict=True)
        return [{NAME: None if answer is None else support} for support, answer in pairs]
