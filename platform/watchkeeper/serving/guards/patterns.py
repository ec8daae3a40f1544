"""What the guards that find spans share: a pattern, and how patterns are run over a text.

Every pattern runs over the scan copy and, where that differs, over the text as it came, so that neither a hidden character
nor the clean-up hides a find. Patterns must be linear: bounded repeats, or repeats that cannot start inside themselves.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

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


_DIGIT: Final = re.compile(r"\d")


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


class Family(msgspec.Struct, frozen=True):
    """Patterns that need not be run on a text in which `gate` finds nothing, nor, with `digits`, on one without any. Both
    only save time."""

    gate: Callable[[str], object]
    patterns: tuple[Pattern, ...]
    digits: bool = False


def find(families: Iterable[Family], text: str) -> list[Finding]:
    """What the patterns find in a text, in its order. Of findings within one another the outermost stays; of equal ones
    the one whose pattern comes first."""
    families = tuple(families)
    copy = scan(text)
    found = [(*copy.span(start, end), rank, pattern) for start, end, rank, pattern in _matches(families, copy.text)]
    if copy.origins is not None:
        found += _matches(families, text)
    return list(_outermost(found))


def _matches(families: tuple[Family, ...], text: str) -> Iterator[tuple[int, int, int, Pattern]]:
    lower = text.lower()
    digits = _DIGIT.search(text) is not None
    rank = 0
    for family in families:
        gated = (family.digits and not digits) or not family.gate(text)
        for pattern in family.patterns:
            rank += 1
            if gated or (pattern.needs and not any(map(lower.__contains__, pattern.needs))):
                continue
            for start, end in pattern.spans(text):
                yield start, end, rank, pattern


def _outermost(found: list[tuple[int, int, int, Pattern]]) -> Iterator[Finding]:
    covered = -1
    for start, end, _, pattern in sorted(found, key=lambda item: (item[0], -item[1], item[2])):
        if end > covered:
            yield Finding(pattern.category, pattern.rule, start=start, end=end)
            covered = end
