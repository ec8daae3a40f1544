"""What the guards that find spans share: a pattern, and how patterns are run over a text.

Every pattern runs over the scan copy and, where that differs, over the text as it came, so that neither a hidden character
nor the clean-up hides a find. Patterns must be linear: bounded repeats, or repeats that cannot start inside themselves.
Where the first character is one of few, it comes first in a pattern, and second what must not stand before it
(a digit, then `(?<!x.)`): `re` then leaps from one such character to the next, in a fifth of the time.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import ahocorasick
import msgspec

from watchkeeper.serving.guard import Finding
from watchkeeper.serving.scan import scan

LOOK_BACK: Final = 48
"""Characters before a match in which its context is looked for."""

AFTER_NAME: Final = r"(?:\W{1,3}(?:number|numbers|nr|no|num|code|details))?(?:\W{0,3}(?:is|was|are))?[\W_]{0,4}$"
"""What may stand between the name of a number and the number itself."""
OTHER_NUMBER: Final = re.compile(
    r"\b(?:isbn|issn|doi|arxiv|orders?|invoice|ticket|tracking|ref|reference|sku|parts?|serial|model|case|article|item|product|build"
    r"|version|commit|transaction|batch|lot|rfc|pages?|chapter|section|timestamp|epoch)\b" + AFTER_NAME,
    re.IGNORECASE,
)
"""What a number that looks like a phone or card number is called when it is none."""


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """`check`: a test of what `group` matched (a checksum, say). `after`, `never_after`: what must, or must not, end
    somewhere in the `LOOK_BACK` characters before. `needs`: one of these must be in the lower-cased text for the pattern
    to be run at all; it only saves time."""

    category: str
    rule: str
    regex: re.Pattern[str]
    group: int | str = 0
    check: Callable[[str], bool] | None = None
    after: re.Pattern[str] | None = None
    never_after: re.Pattern[str] | None = None
    needs: tuple[str, ...] = ()

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        for match in self.regex.finditer(text):
            start, end = match.span(self.group)
            before = text[max(0, start - LOOK_BACK) : start]
            if self.after and not self.after.search(before):
                continue
            if self.never_after and self.never_after.search(before):
                continue
            if self.check is None or self.check(text[start:end]):
                yield start, end


_DIGIT = re.compile(r"\d")
_TOKEN_LIKE: Final = bytes(  # letters, digits and _/+=.- become `w`; so does every byte of other scripts' characters
    ord("w") if code >= 0x80 or chr(code).isalnum() or chr(code) in "_/+=.-" else ord(" ") for code in range(256)
)
_LONG: Final = b"w" * 16


MOST: Final = 1_000
"""A family has fewer patterns: for their order over all families."""


class Look:
    """A text, and what tells at a glance which patterns cannot match: most texts hold nothing, and are to cost nothing.
    `digits`: how many there are. `long`: whether sixteen characters of a token stand in a row. `words`: which of the words
    that patterns need stand in it, in whatever letters."""

    __slots__ = ("digits", "long", "text", "words")

    def __init__(self, text: str, words: "ahocorasick.Automaton") -> None:
        raw = text.encode("utf-8", "surrogatepass")
        self.text = text
        self.words = {word for _, word in words.iter(text.lower())}
        if len(raw) == len(text):
            self.digits = len(raw) - len(raw.translate(None, b"0123456789"))
        else:
            self.digits = len(_DIGIT.findall(text))
        self.long = _LONG in raw.translate(_TOKEN_LIKE)

    def has(self, needs: Iterable[str]) -> bool:
        """Whether one of some of the words stands in the text."""
        return not self.words.isdisjoint(needs)


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """Patterns that are run only on texts that have so many `digits`, one of the `signs` (in small letters), and pass the
    `gate`; it only saves time, and may let through what holds none."""

    patterns: tuple[Pattern, ...]
    digits: int = 0
    signs: tuple[str, ...] = ()
    gate: Callable[[Look], bool] | None = None

    def passes(self, look: Look) -> bool:
        if look.digits < self.digits or (self.signs and look.words.isdisjoint(self.signs)):
            return False
        return self.gate is None or self.gate(look)


class Families:
    """All patterns of a reader, and the words that any of them needs: those are looked for in one pass."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = tuple(enumerate(families))
        self._without_digits = tuple((number, family) for number, family in self._families if not family.digits)
        self._words = ahocorasick.Automaton()
        for _, family in self._families:
            for word in (*family.signs, *(need for pattern in family.patterns for need in pattern.needs)):
                self._words.add_word(word, word)
        self._words.make_automaton()

    def look(self, text: str) -> Look:
        return Look(text, self._words)

    def find(self, text: str) -> list[Finding]:
        """What the patterns find in a text, in its order. Of findings within one another the outermost stays; of equal ones
        the one whose pattern comes first."""
        copy = scan(text)
        found = [(*copy.span(start, end), rank, pattern) for start, end, rank, pattern in self._matches(copy.text)]
        if copy.origins is not None:
            found += self._matches(text)
        return list(_outermost(found)) if found else []

    def _matches(self, text: str) -> Iterator[tuple[int, int, int, Pattern]]:
        look = self.look(text)
        if not (look.words or look.digits or look.long):
            return
        for number, family in self._families if look.digits else self._without_digits:
            if not family.passes(look):
                continue
            for place, pattern in enumerate(family.patterns):
                if not pattern.needs or look.has(pattern.needs):
                    for start, end in pattern.spans(text):
                        yield start, end, number * MOST + place, pattern


def _outermost(found: list[tuple[int, int, int, Pattern]]) -> Iterator[Finding]:
    covered = -1
    for start, end, _, pattern in sorted(found, key=lambda item: (item[0], -item[1], item[2])):
        if end > covered:
            yield Finding(pattern.category, pattern.rule, start=start, end=end)
            covered = end
