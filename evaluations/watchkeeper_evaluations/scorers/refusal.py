"""refusal: does the answer decline, or say that it does not know, instead of answering?

Its first sentence (after courtesies) says so in one of the languages of refusals.toml, and little follows that could be an
answer. A "no" that answers the question ("no, employees cannot carry leave over") is none.

Measured on 4,507 public answers of ChatGPT (HaluEval), judged by hand: it calls 142 refusals, and of 80 of those 75 were;
of 60 answers with a declining sentence that it took for answers, 58 were. In the other languages only the cases of its
test. What it cannot see: further languages; a polite change of subject; an excuse that was asked for; whether declining was
right.
"""

from typing import Final

import pyarrow as pa

from watchkeeper.serving.refusals import refuses
from watchkeeper_evaluations.scorer import Score, Scores
from watchkeeper_evaluations.scorers.answer import COLUMNS, answers

NAME: Final = "refusal"


class Refusal:
    """None where there is no answer."""

    name = NAME
    version = "1"
    source = "phrases that decline or do not know, in the languages of refusals.toml, and little beside them"
    columns = COLUMNS
    scores = (Score(NAME, kind="assertion", better="lower", flag_from=1.0),)

    def score(self, batch: pa.Table) -> list[Scores]:
        return [{NAME: None if answer is None else refuses(answer)} for answer in answers(batch)]
