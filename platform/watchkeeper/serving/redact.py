"""The one redactor: takes personal data and secrets out of texts, and says how much of a stream may leave before its end.

What is taken out becomes a label (labels.py), `[EMAIL]` unless the settings say otherwise. What the guards pii and secrets
cannot find, this does not take out either. Knows nothing of policies of releases: what a record holds is redacted whatever
they say.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import ahocorasick
import msgspec

from watchkeeper.serving.guards import pii, secrets
from watchkeeper.serving.guards.patterns import Families
from watchkeeper.serving.labels import LABEL, Label, Labels, mask
from watchkeeper.serving.remembered import Remembered

Span = tuple[int, int, str]

LONGEST_SECRET: Final = 320
"""Characters within which every pattern knows what it has before it, or has found the beginning of what it takes out:
tokens and private keys have no longest, but are found from their first characters on, up to the end of the text."""

LEAST_REPEATED: Final = 6
"""A value that was found once is taken out wherever it stands again, if it has as many characters."""

SHORTEST_TOKEN: Final = 16
"""No issuer's token of letters alone is shorter; everything else that is found has a digit or a sign in it."""

_PASSES: Final = 4
_RUN = (
    r"[^\s\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]"  # of a word; Chinese, Japanese and Korean have no spaces
)
_RUNS = re.compile(f"{_RUN}+")
_BEGINNING = re.compile(  # of a find that is not complete yet, other than in the last two words
    rf"(?<!{_RUN})(?:{_RUN}+\s?[\[({{<]\s?at\b|{_RUN}*?(?:\d|@|://|-----B))|[(+]$|\bp\.?\s?o\.?\s?box|\bpost office"
    r"|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?\s(?=\d)"
    r"|\b(?-i:Calle|C/|Avenida|Avda|Av\.|Paseo|Plaza|Rua|Praça|Carrer|Via|Viale|Piazza|Corso|PSC|Private-Lines)",
    re.IGNORECASE,
)


def harmless(text: str) -> bool:
    """Whether nothing can be found in a text, told without looking for it: a short word. Most of a record's texts are."""
    return not text or (len(text) < SHORTEST_TOKEN and text.isalpha())


def redact(text: str, spans: Iterable[Span], label: Label = mask) -> tuple[str, dict[str, int]]:
    """Replaces half-open spans by their labels; overlapping ones become one, of the longest's category. Returns the text
    and how many of each category were replaced."""
    pieces: list[str] = []
    counts: Counter[str] = Counter()
    done = 0
    for start, end, category in _merged(spans):
        pieces += text[done:start], label(category, text[start:end])
        counts[category] += 1
        done = end
    return "".join(pieces) + text[done:], dict(counts)


def tally(counts: dict[str, int], found: Mapping[str, int]) -> None:
    """Adds to how many of each category were taken out."""
    for category, count in found.items():
        counts[category] = counts.get(category, 0) + count


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    longest = 0
    for start, end, category in sorted(spans):
        if end <= start:
            continue
        if not merged or start >= merged[-1][1]:
            merged.append((start, end, category))
            longest = end - start
            continue
        first, last, name = merged[-1]
        if end - start > longest:
            longest, name = end - start, category
        merged[-1] = (first, max(last, end), name)
    return merged


class Redactor:
    """Text → the text without personal data and secrets, and how many of each category were taken out. Redacting what was
    redacted changes nothing."""

    def __init__(self, labels: Labels | None = None) -> None:
        self._labels = labels or Labels()
        # What is kept is not looked for: it must not hide what is found inside it.
        self._families = Families(
            msgspec.structs.replace(
                family, patterns=tuple(one for one in family.patterns if self._labels.style(one.category) != "keep")
            )
            for family in (*secrets.FAMILIES, *pii.FAMILIES)
        )
        self._remembered = Remembered(lambda text: self._redacted(text, self._labels.text))

    def __call__(self, text: str) -> tuple[str, dict[str, int]]:
        return (text, {}) if harmless(text) else self._remembered(text)

    def name(self, text: str) -> str:
        """The name of a user, a session or a conversation, redacted such that it stays apart from every other: what is
        masked in texts is hashed here. Two people of whom only `[EMAIL]` is left would be one."""
        return self._redacted(text, self._labels.name)[0] if self(text)[1] else text

    def names(self, text: str) -> tuple[str, ...]:
        """All names under which something of a user's may be kept: redacted with each key that is known, and as it came
        (the patterns did not always find what they find now, or the category was kept)."""

        def under(key: bytes) -> str:
            return self._redacted(text, lambda category, value: self._labels.name(category, value, key))[0]

        return tuple(dict.fromkeys((*map(under, self._labels.keys), text)))

    def replace(self, text: str, spans: Iterable[Span]) -> tuple[str, dict[str, int]]:
        """The text with spans replaced that somebody else found, labelled as in all other texts."""
        return redact(text, spans, self._labels.text)

    def spans(self, text: str) -> list[Span]:
        """What is to be taken out: every find, and every repetition of what was found."""
        found = [
            (finding.start, finding.end, finding.category)
            for finding in self._families.find(text)
            if finding.start is not None and finding.end is not None
        ]
        if found and (standing := [match.span() for match in LABEL.finditer(text)]):
            found = [span for span in found if not any(_within(span, *there) for there in standing)]
        return found + _repetitions(text, found)

    def _redacted(self, text: str, label: Label) -> tuple[str, dict[str, int]]:
        spans = self.spans(text)
        if not spans:
            return text, {}
        counts: dict[str, int] = {}
        for _ in range(_PASSES):  # a second one where what was taken out stood in the way of another find
            text, found = redact(text, spans, label)
            tally(counts, found)
            spans = self.spans(text)
            if not spans:
                break
        return text, counts


def _within(span: Span, start: int, end: int) -> bool:
    """Whether a find begins or ends inside a label; then it is made of the label's own words (`[PASSWORD:…]`)."""
    return start < span[0] < end or start < span[1] < end


def _repetitions(text: str, found: Sequence[Span]) -> list[Span]:
    values = {text[start:end]: category for start, end, category in found if end - start >= LEAST_REPEATED}
    if not values:
        return []
    automaton = ahocorasick.Automaton()
    for value, category in values.items():
        automaton.add_word(value, (len(value), category))
    automaton.make_automaton()
    return [(last + 1 - length, last + 1, category) for last, (length, category) in automaton.iter(text)]


def releasable(text: str) -> int:
    """How many characters of an unfinished text may leave, once what is found in it was redacted: nothing that a pattern
    would find later begins before. Ordinary prose keeps back two words, a text with digits up to `LONGEST_SECRET`
    characters. A find that reaches beyond this place has to be kept back as a whole."""
    start = max(0, len(text) - LONGEST_SECRET)
    while start > 0 and len(text) - start < 2 * LONGEST_SECRET and re.match(_RUN, text[start - 1]):
        start -= 1  # to where the word began that the place falls into
    tail = text[start:]
    words = [match.start() for match in _RUNS.finditer(tail)][-2:]
    beginning = _BEGINNING.search(tail)
    return start + min([len(tail), *words, *([beginning.start()] if beginning else [])])
