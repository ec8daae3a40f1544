"""repetition: how much of the answer says again what it has said? The share of its runs of four words that came before.

A model that loops goes towards 1. Measured on 4,507 public answers of ChatGPT (HaluEval), which do not loop: median 0, 99%
stay below 0.14, and 0.07% reach the 0.3 from which it is flagged (timetables, a refrain).
What it cannot see: the same thing said in other words. A refrain, a table or a form repeats on purpose.
"""

from typing import Final

import pyarrow as pa

from watchkeeper.serving.words import tokens
from watchkeeper_evaluations.scorer import Score, Scores
from watchkeeper_evaluations.scorers.answer import COLUMNS, answers

NAME: Final = "repetition"
RUN: Final = 4
"""Words. Shorter runs come again in any text."""
ENDLESS: Final = 40
"""Characters: what is longer is no word, and counts by its characters (a model stuck on one letter)."""


class Repetition:
    """None where there is no answer."""

    name = NAME
    version = "1"
    source = "share of runs of four words that came before"
    columns = COLUMNS
    scores = (Score(NAME, better="lower", flag_from=0.3),)

    def score(self, batch: pa.Table) -> list[Scores]:
        return [{NAME: None if answer is None else repetition(answer)} for answer in answers(batch)]


def repetition(text: str) -> float:
    """In [0, 1]; 0 for a text of four words or fewer."""
    units = [unit for token in _tokens(text) for unit in (token if len(token) > ENDLESS else (token,))]
    runs = [tuple(units[at : at + RUN]) for at in range(len(units) - RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _tokens(text: str) -> list[str]:
    """Words; of a text that has none (only marks), what stands between blanks."""
    return tokens(text) or text.split()
