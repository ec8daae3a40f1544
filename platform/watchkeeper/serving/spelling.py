"""Misspelt words of a question, and the words that a knowledge base has for them.

Only the base's own words count: a correction to any other word could find nothing. A word is taken for misspelt only where
neither the base nor a dictionary of the base's languages has it, where it is no name (no capital inside a sentence) and no
code, and where exactly one word of the base with the same beginning is one letter away (from nine letters on two).
Questions in other languages are left alone. Knows nothing of scores.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import OSA

from watchkeeper.serving import words
from watchkeeper.serving.preprocess import detect

LANGUAGES: Final = frozenset({"en", "de", "es", "fr", "it", "nl", "pt"})
"""Those for which there is a dictionary."""
LEAST: Final = 5
"""Letters; shorter words have too many neighbours."""
TWO_EDITS: Final = 9
MOST: Final = 8
"""Words of one question that are looked at: who writes more than that wrongly writes another language."""
READ: Final = 2_000
"""Characters of a question."""
_CODE: Final = re.compile(r"`[^`]*`")
_BESIDE: Final = ".,;:!?…'\"“”‘’«»()¿¡"
_SENTENCE_END: Final = ".!?…。！？:"


class Spelling:
    """The words of one base, as stems. `languages`: those of its texts; dictionaries of theirs are loaded here (0.3 s each,
    once in a process)."""

    def __init__(self, stems: Collection[str], languages: Iterable[str]) -> None:
        self._known = frozenset(stems)
        self._dictionaries = {language: dictionary(language) for language in languages if language in LANGUAGES}
        self._by_beginning: dict[tuple[str, int], list[str]] = {}
        for stem in sorted(self._known) if self._dictionaries else ():
            if len(stem) >= LEAST - 1 and stem.isalpha() and not words.unspaced(stem):
                self._by_beginning.setdefault((stem[0], len(stem)), []).append(stem)

    def meant(self, query: str) -> tuple[tuple[str, str], ...]:
        """Misspelt words, folded, each with the base's stem for it."""
        doubtful = [
            word
            for word in dict.fromkeys(self._doubtful(query) if self._dictionaries else ())
            if not any(_holds(known, word) for known in self._dictionaries.values())
        ]
        if not doubtful or len(doubtful) > MOST:
            return ()
        language = detect(query)[0]
        if language is not None and language not in self._dictionaries:
            return ()
        found: list[tuple[str, str]] = []
        for word in doubtful:
            near = self._neighbours(words.stem(word))
            if len(near) == 1:
                found.append((word, near[0]))
        return tuple(found)

    def _doubtful(self, query: str) -> Iterator[str]:
        """The words that the base does not know and that are no names and no code, folded."""
        prose = _CODE.sub(" ` ", query[:READ])
        shouted, begins = prose.isupper(), True
        for token in prose.split():
            word = token.strip(_BESIDE)
            plain = word.islower() or shouted or (begins and word[1:].islower())
            begins = token[-1] in _SENTENCE_END
            if len(word) < LEAST or not plain or not word.isalpha() or words.unspaced(word):
                continue
            folded = words.fold(word)
            if words.stem(folded) not in self._known and folded not in words.STOP:
                yield folded

    def _neighbours(self, stem: str) -> list[str]:
        edits = 2 if len(stem) >= TWO_EDITS else 1
        near: list[str] = []
        for length in range(len(stem) - edits, len(stem) + edits + 1):
            for known in self._by_beginning.get((stem[0], length), ()):
                if OSA.distance(stem, known, score_cutoff=edits) <= edits:
                    near.append(known)
        return near


@cache
def dictionary(language: str) -> NDArray[np.int64]:
    """The words of a language, folded, as sorted hashes of this process: 1.3 MB for 160,000, where strings take 20."""
    from spellchecker import SpellChecker

    known = SpellChecker(language=language).word_frequency.words()
    return np.sort(np.fromiter((hash(words.fold(word)) for word in known), np.int64))


def _holds(known: NDArray[np.int64], word: str) -> bool:
    at = int(np.searchsorted(known, hash(word)))
    return at < len(known) and int(known[at]) == hash(word)
