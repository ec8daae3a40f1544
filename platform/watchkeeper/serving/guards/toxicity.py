"""toxicity: the toxicity head on the embedding, Detoxify's six labels as categories.

Scores are a head's of some hundred kilobytes, good enough to flag; the evaluation job judges again with a whole model. Says
nothing without an embedding.
"""

from collections.abc import Sequence
from typing import Final, Literal

from watchkeeper.encoder.heads import Head
from watchkeeper.record import Target
from watchkeeper.serving.guard import Finding, Subject, Unavailable

REPORTED: Final = 0.5
"""Labels from this score on are reported beside the strongest."""


class Toxicity:
    """The strongest label, and all others that hold. `head` None: always unavailable."""

    name = "toxicity"
    targets: tuple[Target, ...] = ("prompt", "output")
    on_error: Literal["open", "closed"] = "open"
    reads_embedding = True

    def __init__(self, head: Head | None) -> None:
        self._head = head
        self.version = "1" if head is None else f"1+{head.version}"

    def inspect(self, subject: Subject) -> Sequence[Finding]:
        if self._head is None:
            raise Unavailable("no_head")
        if subject.embedding is None:
            raise Unavailable("no_embedding")
        scores = [float(score) for score in self._head.score(subject.embedding[None])[0]]
        strongest = max(scores)
        return [
            Finding(label, "head", score=score)
            for label, score in zip(self._head.classes, scores, strict=True)
            if score >= REPORTED or score == strongest
        ]
