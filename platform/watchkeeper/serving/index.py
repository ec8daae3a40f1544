"""An index over passages: by keywords (BM25) and by meaning (embeddings). Frozen: what changed is indexed anew.

Scores are in [0, 1] and mean the same with and without embeddings: from 0.3 on a passage is about the question.
Keywords: the BM25 score as a share of the most that any passage could have, words that no passage knows included.
Meaning: the cosine, with what is common to all passages taken off where a language makes everything alike to the encoder
(it was trained on English: two unrelated Chinese texts have .55). Together: the cosine, raised by the keywords; the other
way round where the encoder hardly reads the script.
Measured against reciprocal rank fusion in the README. Knows nothing of files.
"""

import logging
import math
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from watchkeeper.record import Source
from watchkeeper.serving import words
from watchkeeper.serving.passages import Passage
from watchkeeper.serving.preprocess import detect
from watchkeeper.serving.spelling import Spelling

K1: Final = 0.3
B: Final = 0.2
"""BM25's own: a word's first occurrence nearly settles it, length hardly counts: passages are short and alike."""
RAISE: Final = 0.3
"""How far the other sign raises the one that counts: by this share of what is missing to 1."""
SAMPLED: Final = 16
"""Passages whose languages stand for those of the base."""
_COURTESY_LIST: Final = """
    lot hello hi hei hey thank thanks ok okai pleas bye goodby morn greet
"""
COURTESY: Final = frozenset(_COURTESY_LIST.split())

Vectors = NDArray[np.float32]


class Found(msgspec.Struct, frozen=True):
    """Passages, best first. `degraded`: searched by keywords only, or not yet at all. `spelling`: words of the question
    that were taken for misspelt, each with the stem that was looked for besides."""

    sources: tuple[Source, ...]
    degraded: bool
    spelling: tuple[tuple[str, str], ...] = ()


class Index:
    """`vectors`: (n, d) unit rows, one for each passage; None while there are none: then keywords alone decide. `terms`: of
    each passage, where they are known already."""

    def __init__(
        self, passages: Sequence[Passage], vectors: Vectors | None = None, terms: Sequence[Sequence[str]] | None = None
    ) -> None:
        self.passages = tuple(passages)
        self.vectors = vectors
        if terms is None:
            terms = [terms_of(passage) for passage in self.passages]
        self._rarity = _rarity(terms)
        self._unknown = math.log(1 + (len(terms) + 0.5) / 0.5)
        self._bm25 = _bm25(terms) if self._rarity else None
        self._spelling = Spelling(self._rarity.keys(), _languages(self.passages))

    def with_vectors(self, vectors: Vectors) -> "Index":
        """The same index, searched by meaning too."""
        other = object.__new__(Index)
        other.__dict__.update(self.__dict__, vectors=vectors)
        return other

    def search(self, query: str, embedding: Vectors | None, k: int, min_score: float) -> Found:
        """The `k` best passages of at least `min_score`; of passages with the same text, the first.

        `embedding`: of the query, (d,), unit length; None while the encoder is away.
        """
        fits = self.vectors is not None and embedding is not None and embedding.shape == self.vectors.shape[1:]
        terms = _asked(query)
        if not self.passages or not terms:
            return Found((), degraded=bool(self.passages) and not fits)
        spelling = self._spelling.meant(query) if not terms <= self._rarity.keys() else ()
        meant = {words.stem(word): stem for word, stem in spelling}
        scores = self._scores({meant.get(term, term) for term in terms}, embedding if fits else None, words.unspaced(query))
        sources: dict[str, Source] = {}
        for at in np.argsort(-scores, kind="stable"):
            if len(sources) >= k or scores[at] < min_score or scores[at] <= 0:
                break
            passage = self.passages[at]
            score = round(float(scores[at]), 4)
            sources.setdefault(passage.text, Source(passage.id, passage.title, score, passage.text))
        return Found(tuple(sources.values()), not fits, spelling)

    def _scores(self, terms: set[str], embedding: Vectors | None, unspaced: bool) -> Vectors:
        """(n,) scores in [0, 1]."""
        keywords = self._keywords(terms)
        if unspaced:  # half of the character pairs lie across two words, so that no passage has nearly all
            keywords = np.sqrt(keywords)
        if embedding is None or self.vectors is None:
            return keywords
        meaning = _without_background(self.vectors @ embedding)
        first, second = (keywords, meaning) if unspaced else (meaning, keywords)
        return np.asarray(first + (1 - first) * RAISE * second, dtype=np.float32)

    def _keywords(self, terms: set[str]) -> Vectors:
        known = [term for term in sorted(terms) if term in self._rarity]
        if self._bm25 is None or not known:
            return np.zeros(len(self.passages), dtype=np.float32)
        most = sum(self._rarity.get(term, self._unknown) for term in terms)
        scores: Vectors = self._bm25.get_scores(known) / most
        return np.clip(scores, 0.0, 1.0)


def text_of(passage: Passage) -> str:
    """What is indexed and embedded of a passage: its title counts as its text."""
    return f"{passage.title}\n{passage.text}"


def asks(query: str) -> bool:
    """Whether a text asks for anything: more than courtesies and function words."""
    return bool(_asked(query))


def _asked(query: str) -> set[str]:
    return set(words.terms(query)) - COURTESY


def terms_of(passage: Passage) -> list[str]:
    """The terms by which a passage is found, repeated ones too. Interned: a base repeats few words many times."""
    return [sys.intern(term) for term in words.terms(text_of(passage))]


def _languages(passages: Sequence[Passage]) -> set[str]:
    """The languages of some passages from all over the base."""
    some = passages[:: max(len(passages) // SAMPLED, 1)]
    return {language for passage in some if (language := detect(passage.text)[0])}


def _rarity(terms: Sequence[Sequence[str]]) -> dict[str, float]:
    """The inverse document frequency of each term, as Lucene and bm25s compute it."""
    frequencies = Counter(term for each in terms for term in set(each))
    return {term: math.log(1 + (len(terms) - n + 0.5) / (n + 0.5)) for term, n in frequencies.items()}


def _bm25(terms: Sequence[Sequence[str]]) -> Any:
    import bm25s  # 0.3 s, most of it scipy: paid by the thread that builds an index

    # It sets itself to DEBUG, and would write into the log of whoever has set one up.
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    index = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy", csc_backend="numpy")
    index.index(terms, show_progress=False)
    return index


def _without_background(cosines: Vectors) -> Vectors:
    """Cosines in [0, 1], the median taken off where it is high; English texts have about .1 and keep theirs whole.

    Between .15 and .25 the correction sets in, so that no score jumps. One passage has no background.
    """
    middle = (len(cosines) - 1) // 2
    background = float(np.partition(cosines, middle)[middle]) if len(cosines) > 1 else 0.0
    background *= min(max((background - 0.15) / 0.1, 0.0), 1.0)
    return np.asarray(np.clip((cosines - background) / (1 - background), 0.0, 1.0), dtype=np.float32)
