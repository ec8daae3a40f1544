"""When two questions are the same but for their dress: equal numbers, negations and content words, in the same order.

A likeness of embeddings does not tell: a question and its reversal are .83 to .9997 alike. So near questions are those with
one canonical form: all their words in order, without articles and courtesy; signs and capitals that carry meaning
are part of it. Made so that it rather misses than errs. Knows nothing of where answers are kept.
"""

import re
from typing import Final

from watchkeeper.serving import words

LONGEST: Final = 500
"""Characters; a longer text is more than a question."""
_DRESS_LIST: Final = """
    a an the please pls kindly hi hello hey thanks thank thx cheers
"""
DRESS: Final = frozenset(_DRESS_LIST.split())
_OPENINGS: Final = (
    *("can you tell me", "could you tell me", "would you tell me", "can you please tell me", "could you please tell me"),
    *(
        "please tell me",
        "tell me",
        "i would like to know",
        "i'd like to know",
        "i want to know",
        "do you know",
        "good morning",
    ),
    *("good afternoon", "good evening", "thank you", "many thanks"),
)
_OPENING: Final = re.compile(rf"^(?:{'|'.join(_OPENINGS)})\b|\b(?:thank you|many thanks)[.!\s]*$")
_CONTRACTION: Final = re.compile(r"\b(can|won|shan)['’]t\b|n['’]t\b")
_WHOLE: Final = {"can": "can not", "won": "will not", "shan": "shall not"}
_CANNOT: Final = re.compile(r"\bcannot\b")
_SIGNS: Final = re.compile(r"[^\w\s.,;:!?'’\"“”]")
_CAPITALS: Final = re.compile(r"\b[A-Z]{2,}\b|(?<=[^.!?\s]\s)[A-HJ-Z]\b")
"""Abbreviations, and what is called by a letter (a plan A is not any plan)."""
_ASKING: Final = frozenset(
    {
        "who", "what", "when", "where", "why", "which", "whose", "how", "is", "are", "was", "were", "do", "does", "did",
        "can", "could", "will", "would", "should", "may", "has", "have", "had", "am",
    }
)  # fmt: skip


def canonical(text: str) -> str | None:
    """The form that like questions share; None for a text that is none to be liked: code, several lines, quotations, more
    than a question, or nothing but dress."""
    if len(text) > LONGEST or "\n" in text.strip() or any(mark in text for mark in '`"“”„«»'):
        return None
    plain = words.fold(text.strip())
    for _ in range(2):  # "hello, can you tell me"
        plain = _OPENING.sub(" ", plain).strip(" ,.!;:")
        plain = re.sub(rf"^(?:{'|'.join(sorted(DRESS - {'a', 'an', 'the'}))})\b[ ,.!]*", "", plain)
    plain = _CANNOT.sub("can not", plain)
    plain = _CONTRACTION.sub(lambda short: _WHOLE.get(short[1] or "", " not"), plain)
    kept = [token for token in words.tokens(plain) if token not in DRESS]
    if not kept:
        return None
    asks = "?" in text or "？" in text or kept[0] in _ASKING
    signs = "".join(_SIGNS.findall(plain))
    capitals = "" if text.isupper() else " ".join(_CAPITALS.findall(text))
    return "\n".join([" ".join(kept), signs, capitals, "asks" if asks else "says"])
