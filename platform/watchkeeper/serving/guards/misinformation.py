"""misinformation: what an answer says without support in its sources, and claims that are known to be false.

Unsupported: only where there were sources to check the answer against. Known to be false: a short list of widely debunked
claims (known_false.jsonl, each with its correction and where that is from), found where they are asserted: a sentence that
denies, reports or asks is none, nor one that the next sentence calls false. Everything else it does not know: it is no fact
checker.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from watchkeeper.record import Target
from watchkeeper.serving.guard import Finding, Subject
from watchkeeper.serving.guards import rules

FILE: Final = Path(__file__).with_name("known_false.jsonl")


class Claim(msgspec.Struct, frozen=True):
    """`pattern`, `needs`: as in rules.py. `denies`: the claim itself denies something ("never landed on the moon")."""

    id: str
    pattern: str
    needs: str
    denies: bool
    correction: str
    source: str


CLAIMS: Final = tuple(msgspec.json.decode(line, type=Claim) for line in FILE.read_bytes().splitlines())
_COMPILED: Final = tuple((claim, rules.compiled(claim.pattern, {}), tuple(claim.needs.split("|"))) for claim in CLAIMS)

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_DENIED = re.compile(
    r"\b(?:not|no|never|nor|neither|cannot|without|isn't|aren't|wasn't|weren't|don't|doesn't|didn't|can't|won't|couldn't|hasn't)\b"
)
_FALSE = (
    r"(?:false(?:ly|hoods?)?|wrong|untrue|not true|myths?|incorrect|inaccurate|debunked|disproven|discredited"
    r"|misconceptions?|misinformation|disinformation|unfounded|baseless|no evidence|fiction)"
)
_REPORTED = re.compile(
    rf"\b(?:{_FALSE}|mythical|debunk\w*|disprov\w+|discredit\w*|conspirac\w+|mistaken\w*|erroneous\w*|contrary to|rumou?rs?"
    r"|pseudoscien\w+|claim(?:s|ed|ing)?|believ\w+|theor(?:y|ies) that|thought that|idea that|notion that|people think"
    r"|legend|joke|satir\w+|fictional|is it true|if|whether|who say|suggest\w*|alleg\w+|supposed\w*|so called)\b"
)
_ASKED = re.compile(
    r"^[\W_]*(?:and |but |so |then |please |tell me )*(?:do|does|did|is|are|was|were|can|could|will|would|has|have)\b"
    r"[^?]*\?|^[\W_]*(?:who|when|where) "
)
_CALLED_FALSE = re.compile(
    r"^[\W_]*(?:but |however,? |yet |in fact,? )?(?:this|that|it|these|which|the (?:claim|statement))\b.{0,40}"
    rf"\b{_FALSE}\b|^[\W_]*(?:{_FALSE}|no)\b"
)


class Misinformation:
    """Findings `unsupported` (score: the share of the answer without support) and `known_false` (rule: the claim's id)."""

    name = "misinformation"
    version = f"1+{len(CLAIMS)}"
    targets: tuple[Target, ...] = ("prompt", "output")
    on_error: Literal["open", "closed"] = "open"
    reads_embedding = False

    def inspect(self, subject: Subject) -> Sequence[Finding]:
        found = [Finding("known_false", claim.id) for claim in asserted(subject.scan)]
        if subject.target == "output" and subject.sources and subject.support is not None:
            found.append(Finding("unsupported", "support", score=1.0 - subject.support))
        return found


def asserted(text: str) -> Iterator[Claim]:
    """The known false claims that a text makes, each once."""
    lower = text.lower()
    candidates = [entry for entry in _COMPILED if any(needed in lower for needed in entry[2])]
    if not candidates:
        return
    sentences = [sentence[0] for sentence in _SENTENCE.finditer(lower)]
    for claim, pattern, _ in candidates:
        for sentence, following in zip(sentences, [*sentences[1:], ""], strict=True):
            match = pattern.search(sentence)
            if match and _is_meant(sentence, match, claim) and not _CALLED_FALSE.search(following):
                yield claim
                break


def _is_meant(sentence: str, match: re.Match[str], claim: Claim) -> bool:
    """Whether a sentence asserts what was matched in it."""
    around = sentence[: match.start()] + " " + sentence[match.end() :]
    if _ASKED.search(sentence) or _REPORTED.search(around):
        return False
    return claim.denies or _DENIED.search(sentence[max(0, match.start() - 24) : match.end()]) is None
