"""readability: how easy is the answer to read? Flesch's reading ease of English prose, divided by 100 and kept in [0, 1].

0.3 reads like a scientific paper, 0.6 like a newspaper, 0.9 like a children's book. It is style: neither end is better.
Syllables are counted by rule: right for 97% of the words in 4,507 public answers (HaluEval, against CMUdict), 0.8% too few
in all, which is 0.01 of the score. Half of those answers lie above 0.52, a tenth below 0.22.
What it cannot see: whether the words are known to the reader, or the text makes sense. English only.
"""

import re
from typing import Final

import pyarrow as pa

from watchkeeper.serving.preprocess import detect
from watchkeeper.serving.sentences import code_blocks, split
from watchkeeper_evaluations.scorer import Score, Scores
from watchkeeper_evaluations.scorers.answer import COLUMNS, answers

NAME: Final = "readability"
LEAST_WORDS: Final = 20
"""Of a shorter text the formula says little: it was made for passages of 100 words."""

_WORD: Final = re.compile(r"[a-z]+(?:['’][a-z]+)?", re.I)
_VOWELS: Final = re.compile(r"[aeiouy]+")
_SILENT: Final = re.compile(
    r"[^aeiouyl]e$|[aeiouy]le$|[^aeiouylcsxzg]es$|[aeiouy]les$|[^sc]hes$|[^aeiouytdl]ed$|[aeiouyl]led$"
)
"""Endings whose e is not spoken."""
_SILENT_INSIDE: Final = re.compile(r"[^aeiouyl]e(?=ly|less|ness|ful|ment)|(?<=som)e(?=thing|times|one)")
_APART: Final = re.compile(
    r"(?<!gn)(?<![ct])i(?:a(?!ge)|ou(?!s)|um|us$|et)|ying|(?<![gq])u(?:a|ou|el)|(?<!p)eo(?!us)|ism$|ithm|creat"
    r"|being|doing|going"
)
"""Vowels side by side that are spoken apart, and syllables without a vowel."""


class Readability:
    """None where there is no answer, a short one, or one that is not certainly English."""

    name = NAME
    version = "1"
    source = "Flesch reading ease / 100, syllables by rule"
    columns = COLUMNS
    scores = (Score(NAME),)

    def score(self, batch: pa.Table) -> list[Scores]:
        return [{NAME: None if answer is None else readability(answer)} for answer in answers(batch)]


def readability(text: str) -> float | None:
    """In [0, 1]; None for a text that is short or not English. Code blocks are left out."""
    for start, end in reversed(code_blocks(text)):
        text = f"{text[:start]}\n{text[end:]}"
    sentences = [words for piece in split(text) if (words := _WORD.findall(piece.lower()))]
    words = [word for sentence in sentences for word in sentence]
    if len(words) < LEAST_WORDS or detect(text)[0] != "en":
        return None
    ease = 206.835 - 1.015 * len(words) / len(sentences) - 84.6 * sum(map(syllables, words)) / len(words)
    return min(max(ease / 100, 0.0), 1.0)


def syllables(word: str) -> int:
    """Of an English word in small letters, at least 1."""
    count = len(_VOWELS.findall(word)) + len(_APART.findall(word)) - len(_SILENT_INSIDE.findall(word))
    return max(count - (_SILENT.search(word) is not None), 1)
