"""The words of a text, in the form in which texts are compared: folded, lightly stemmed, without accents.

Scripts written without spaces (Chinese, Japanese, Thai and others; Korean too, whose particles stick to the noun) give
character pairs. The stemmer knows English endings only, and applies the same few rules to every Latin word: what matters
is that both sides of a comparison come out alike. Knows nothing of what is compared.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final

_UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3100-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f"
    "\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Vowel signs and other marks inside words, which `\w` leaves out; the two dandas (sentence ends) are left out here too.
_MARKS: Final = "\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u0f71-\u0f84"
_ASCII: Final = re.compile(r"\d+(?:[.,:]\d+)+|[a-z0-9]+(?:'[a-z]+)?")
_ANY: Final = re.compile(
    rf"\d+(?:[.,:]\d+)+|[{_UNSPACED}]+|(?:[^\W_{_UNSPACED}]|[{_MARKS}])+(?:'(?:[^\W_{_UNSPACED}]|[{_MARKS}])+)?"
)
_IDEOGRAPH: Final = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_HAS_UNSPACED: Final = re.compile(f"[{_UNSPACED}]")
_SPELLED: Final = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
_ACCENTS: Final = re.compile("[\u0300-\u036f]")
_GROUPED: Final = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_VOWEL: Final = re.compile("[aeiouy]")
_DOUBLED: Final = re.compile(r"([bcdfgklmnprstz])\1$")

_FUNCTION_WORDS: Final = """
    a about above after again all also am an and any are aren't as at be because been before being below between
    both but by can can't cannot could couldn't did didn't do does doesn't doing don't down during each either else
    ever few for from further get gets got had hadn't has hasn't have haven't having he he'd he'll he's her here
    here's hers herself him himself his how how's i i'd i'll i'm i've if in into is isn't it it's its itself just
    let let's like may me might more most must my myself neither no nor not now of off often on once one only onto
    or other others otherwise ought our ours ourselves out over own per please rather really same shall she she'd
    she'll she's should shouldn't since so some such than that that'll that's the their theirs them themselves then
    there there's therefore these they they'd they'll they're they've this those though through thus to too under
    until up upon us used very via was wasn't we we'd we'll we're we've well were weren't what what's when when's
    where where's whether which while who who's whom whose why will with within without won't would wouldn't yes yet
    you you'd you'll you're you've your yours yourself yourselves der das dem des ein eine einen einem einer und
    oder aber ist sind wird werden haben nicht auch auf aus bei mit nach von vom zu zum zur fur im wie wer wo wann
    warum ich du er sie es wir ihr mein kann wenn als dass sich le la les un une de et ou mais est sont etait ont
    avec dans sur que qui quoi ce cette ces il elle nous vous ils elles ne pas au aux se sa ses quand el los las una
    unos unas y o pero fue con en para por sobre quien como cuando donde este esta estos lo su sus del al mi tu yo
    ella nosotros gli uno e ma sono da di che chi quando questo questa si suo non della dei nel os um uma uns umas
    mas sao foi com em sem quem onde nao dos na het een niet ook op uit bij met naar voor te om wat waar hoe ik jij
    hij wij
"""
STOP: Final = frozenset(_FUNCTION_WORDS.split())
"""Function words of English, and of six neighbours those that are no English content word (not `die`), folded."""


def fold(text: str) -> str:
    """Compatibility forms, case and Latin accents resolved: what looks alike to a reader compares equal."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKD", text.replace("’", "'").replace("ʼ", "'")).casefold()
    return unicodedata.normalize("NFC", _ACCENTS.sub("", folded))


def tokens(text: str) -> list[str]:
    """All words in order, folded but not stemmed; numbers lose their thousands commas, unspaced scripts give pairs."""
    folded = fold(text)
    found = _ASCII.findall(folded) if folded.isascii() else _ANY.findall(folded)
    result: list[str] = []
    for token in found:
        if token[0].isdigit() and "," in token and _GROUPED.fullmatch(token):
            result.append(token.replace(",", ""))
        elif _HAS_UNSPACED.match(token):
            result.extend(_pairs(token))
        else:
            result.append(token)
    return result


def content(text: str) -> list[str]:
    """The stems of all words that are not stop words, in order, repeated ones too."""
    return [stem(token) for token in tokens(text) if token not in STOP]


def terms(text: str) -> list[str]:
    """`content`, and each ideograph for itself: it means something alone, and many pairs lie across two words."""
    return content(text) if text.isascii() else [*content(text), *_IDEOGRAPH.findall(fold(text))]


def size(text: str) -> int:
    """How many words long a text is; of an unspaced script two characters count as one word, where they are an alphabet's
    (Thai, Lao, Burmese, Khmer) five."""
    if text.isascii():
        return len(text.split())
    unspaced, spelled = len(_HAS_UNSPACED.findall(text)), len(_SPELLED.findall(text))
    return len(_HAS_UNSPACED.sub(" ", text).split()) + (unspaced - spelled + 1) // 2 + (spelled + 4) // 5


def unspaced(text: str) -> bool:
    """Whether the text holds characters of a script written without spaces."""
    return not text.isascii() and _HAS_UNSPACED.search(text) is not None


def _pairs(run: str) -> list[str]:
    return [run] if len(run) < 2 else [run[at : at + 2] for at in range(len(run) - 1)]


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """A word without its commonest English endings: `policies` and `policy`, `carried` and `carry` come out alike.

    Words of one or two letters, and words with digits or letters beyond ASCII, stay as they are.
    """
    word = word.partition("'")[0]
    if len(word) <= 2 or not word.isascii() or not word.isalpha():
        return word
    word = _without_verb_ending(_without_plural(word))
    for ending, least, rest in (("ment", 8, ""), ("ness", 8, ""), ("ly", 6, ""), ("val", 7, "v"), ("wal", 7, "w")):
        if word.endswith(ending) and len(word) >= least:
            word = word.removesuffix(ending) + rest
            break
    if word.endswith("e"):
        word = word[:-1]
    if _DOUBLED.search(word):
        word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") else word


def _without_plural(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes", "zes")):
        return word[:-2]
    if word.endswith("s") and len(word) > 3 and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _without_verb_ending(word: str) -> str:
    if word.endswith("ied") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("eed"):  # need, exceed; of the others only agree and guarantee are common
        return word[:-1] if word.endswith(("agreed", "guaranteed")) else word
    for ending, least in (("ing", 5), ("ed", 4)):
        rest = word.removesuffix(ending)
        if rest != word and len(word) >= least and _VOWEL.search(rest):
            return rest
    return word
