"""policy: topics that the operator denies, and requests that are clearly dangerous: making weapons, explosives or drugs,
ways to suicide, sexual content about children, planning to hurt somebody.

Operators' topics match by their phrases, whole words with their usual endings and in their order; dangers by rules
(dangers.toml) that ask for the request, not for the subject: "how do bombs work" passes. Fiction and study are not told
apart from the real thing. Somebody who speaks of suicide without asking for means is not turned away.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from watchkeeper.record import Target
from watchkeeper.serving.guard import Finding, Subject
from watchkeeper.serving.guards import rules

DANGERS: Final = rules.load("dangers.toml", "danger")
_ENDINGS: Final = r"(?:s|es|ed|d|ing|ings|er|ers|or|ors|'s|s'|e|en|ies|y)?"
_WORD = re.compile(r"\w+")
_GAP: Final = r"[\W_]{1,6}(?:\w{1,12}[\W_]{1,6})?"


class PolicyGuard:
    """`topics`: as in the settings, a topic's name and phrases."""

    name = "policy"
    version = "1"
    targets: tuple[Target, ...] = ("prompt", "output")
    on_error: Literal["open", "closed"] = "open"
    reads_embedding = False

    def __init__(self, topics: Mapping[str, Iterable[str]]) -> None:
        self._topics = tuple((name, pattern) for name, phrases in topics.items() if (pattern := _pattern(phrases)))

    def inspect(self, subject: Subject) -> Sequence[Finding]:
        text = subject.scan.lower()
        found = [Finding(name, "denied_topic") for name, pattern in self._topics if pattern.search(text)]
        return found + [
            Finding(match.rule.category, match.rule.name, score=match.rule.score)
            for match in rules.matches(DANGERS, text, subject.target)
        ]


def _pattern(phrases: Iterable[str]) -> re.Pattern[str] | None:
    """Any of the phrases, each by its words."""
    found = [pattern for phrase in phrases if (pattern := _phrase(phrase))]
    return re.compile("|".join(found)) if found else None


def _phrase(phrase: str) -> str:
    """Words of a phrase → a pattern in which each may have another ending and one more word may stand between two.
    Scripts without spaces between words are taken as they are."""
    words = _WORD.findall(phrase.lower())
    if any(word > "\u2e80" for word in words):
        return re.escape(phrase.lower().strip())
    return r"\b" + _GAP.join(_stem(word) for word in words) + r"\b" if words else ""


def _stem(word: str) -> str:
    """A word without its commonest endings, and with any: gamble, gambles, gambling. Short words as they are."""
    if len(word) < 4 or not word.isalpha():
        return re.escape(word)
    stem = re.sub(r"(?:ing|ies|ed|es|s|e|y)$", "", word)
    return re.escape(stem if len(stem) >= 3 else word) + _ENDINGS
