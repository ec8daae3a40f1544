"""grounded: does the answer rest on the knowledge base? Passages were found, and they support half of its claims or more.

One assertion over two steps of the journey, retrieval and check, so that an answer from nowhere counts as badly as one that
its sources do not carry. What it cannot see: what `support` cannot; nor whether a question (small talk, a poem) needed
the knowledge base at all.
"""

from typing import Final

import pyarrow as pa

from watchkeeper.record import Source
from watchkeeper.serving.check import support as check
from watchkeeper.serving.refusals import declines
from watchkeeper.serving.sentences import split
from watchkeeper_evaluations.scorer import Score, Scores
from watchkeeper_evaluations.scorers.answer import COLUMNS, answers

NAME: Final = "grounded"
HALF: Final = 0.5
_ANY_SOURCE: Final = (Source(id="", title="", score=0.0, text="-"),)
"""The check names what claims something only where there is a source to hold it against."""


class Grounded:
    """None where no knowledge base was searched, where there is no answer, where it claims nothing (a refusal, a question,
    a courtesy), and where passages were found but the check did not run."""

    name = NAME
    version = "1"
    source = "passages were found, and at least half of the claims rest on them"
    columns = ("retrieved", "support", *COLUMNS)
    scores = (Score(NAME, kind="assertion", better="higher", flag_below=1.0),)

    def score(self, batch: pa.Table) -> list[Scores]:
        columns = (batch.column("retrieved").to_pylist(), batch.column("support").to_pylist(), answers(batch))
        return [{NAME: grounded(*row)} for row in zip(*columns, strict=True)]


def grounded(retrieved: int | None, support: float | None, answer: str | None) -> bool | None:
    """`retrieved`: passages found; None: not searched. `support`: share of claims supported; None: nothing was checked."""
    if retrieved is None or answer is None or not claims(answer):
        return None
    if retrieved == 0:
        return False
    return None if support is None else support >= HALF


def claims(answer: str) -> bool:
    """Whether some sentence of the answer asserts something, and does not decline to."""
    return any(check(piece, _ANY_SOURCE).overall is not None and not declines(piece) for piece in split(answer))
