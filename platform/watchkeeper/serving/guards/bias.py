"""bias: generalisations over a protected group: what a group is said to be, to be worth less than another, or not to be
allowed.

Rules (bias.toml) on single sentences, strengthened by the toxicity head's identity_attack, which speaks alone where a group
is named. A sentence that denies, reports or asks about a generalisation makes none. A first form: it reads English, and
sees what is said of a group, not who is left out.
"""

import re
from collections.abc import Sequence
from typing import Final, Literal

from watchkeeper.encoder.heads import Head
from watchkeeper.record import Target
from watchkeeper.serving.guard import Finding, Subject, Unavailable
from watchkeeper.serving.guards import rules

CATEGORY: Final = "bias"
RULES: Final = rules.load("bias.toml", CATEGORY)
_WORDS: Final = rules.words("bias.toml")
_GROUP: Final = rules.compiled(r"\b(?:{plural}|{adjective}s?|{one}|ethnic\w*|races?|religio\w+|gender)\b", _WORDS)
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]?")
_REPORTED: Final = rules.compiled(r"(?<!not\sa\s)(?<!no\s)\b{reported}\b", _WORDS)
"""A sentence about such talk, unless it says that it is none."""
_DENIED = re.compile(r"\b(?:not|no|never|nor|neither|hardly|isn't|aren't|wasn't|weren't|don't|doesn't)\b")
_DENIES_ITSELF: Final = frozenset({"may_not", "shut_out"})
"""Rules whose own words are a denial: "should not vote"."""


class Bias:
    """`head` None: rules only."""

    name = "bias"
    targets: tuple[Target, ...] = ("prompt", "output")
    on_error: Literal["open", "closed"] = "open"
    reads_embedding = True

    def __init__(self, head: Head | None) -> None:
        self._head = head
        self.version = "1" if head is None else f"1+{head.version}"

    def inspect(self, subject: Subject) -> Sequence[Finding]:
        """One finding at most. Raises `Unavailable` where a group is named, no rule matches and the head is not there."""
        text = subject.scan.lower()
        if _GROUP.search(text) is None:
            return []
        said = _said(text, subject.target)
        attack = self._identity_attack(subject)
        if attack is None and said is None:
            raise Unavailable("no_embedding")
        if said is None:
            return [Finding(CATEGORY, "identity_attack", score=attack)]
        score = 1.0 - (1.0 - (said.score or 1.0)) * (1.0 - (attack or 0.0))
        return [Finding(CATEGORY, said.name, score=score)]

    def _identity_attack(self, subject: Subject) -> float | None:
        if self._head is None or subject.embedding is None:
            return None
        scores = self._head.score(subject.embedding[None])[0]
        return float(scores[self._head.classes.index("identity_attack")])


def _said(text: str, target: Target) -> rules.Rule | None:
    """The strongest rule that a sentence of the text breaks."""
    best: rules.Rule | None = None
    for sentence in _SENTENCE.finditer(text):
        if _GROUP.search(sentence[0]) is None or _REPORTED.search(sentence[0]):
            continue
        for match in rules.matches(RULES, sentence[0], target):
            matched = sentence[0][max(0, match.start - 8) : match.end]
            if match.rule.name not in _DENIES_ITSELF and _DENIED.search(matched):
                continue
            if best is None or (match.rule.score or 1.0) > (best.score or 1.0):
                best = match.rule
    return best
