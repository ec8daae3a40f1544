"""The copy of a text that guards match on: what a reader sees, spelled in the plainest characters.

Invisible and bidirectional characters go, tag characters become the ASCII they hide, the rest is NFKC with plain digits,
dashes and quotes, small capitals and letters in signs become letters, strokes and heaps of marks through Latin letters go,
and Cyrillic, Greek or Armenian look-alikes inside otherwise Latin words become Latin. `Scan` keeps
where each character came from, so that a span found in the copy redacts the right characters of the original.
Printable ASCII stays as it is. Linear in the length of the text. The model never sees this copy.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from string import ascii_uppercase
from typing import Final

import msgspec

MARKS: Final = 30
"""Combining marks kept on a character whose marks must be sorted (Unicode's stream-safe limit): sorting is quadratic."""

# Deleted: controls but tab and line ends, format characters, fillers that show nothing, variation selectors. Those beyond
# 16 bits are looked for apart: a class that holds both kinds is searched twenty times more slowly.
_CONTROLS = "\x00-\x08\x0e-\x1f\x7f"
_INVISIBLE = (
    f"{_CONTROLS}\x80-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
)
_FAR_INVISIBLE = "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e001f\U000e007f-\U000e0fff"
_TAGS = "\U000e0020-\U000e007e"  # invisible twins of ASCII, used to hide instructions
_HIDDEN = re.compile(f"[{_INVISIBLE}{_FAR_INVISIBLE}{_TAGS}]")
_HIDDEN_ASCII = re.compile(f"[{_CONTROLS}]")
_HIDDEN_NEAR = re.compile(f"[{_INVISIBLE}]")
_HIDDEN_FAR = re.compile(f"[{_FAR_INVISIBLE}{_TAGS}]")
_FAR = re.compile("[\U00010000-\U0010ffff]")
_NON_ASCII = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")  # with the ASCII character that a combining mark may sit on
_WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|[\u0300-\u036f])*")

_DASHES = "\u058a\u05be\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\ufe58\ufe63\uff0d"
_QUOTES = {"'": "\u2018\u2019\u201a\u201b\u02bc\u2032\u00b4\uff07", '"': "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\uff02"}
_SMALL_CAPITALS = dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnoprstuvwyz", strict=True))
_IN_SIGNS = {  # letters in black circles and squares, and those that flags are made of: NFKC leaves them
    chr(first + number): letter for first in (0x1F150, 0x1F170, 0x1F1E6) for number, letter in enumerate(ascii_uppercase)
}
_DIGIT_ZEROS = "٠۰߀०০੦૦୦௦౦೦൦๐໐༠၀០᠐"  # the first of ten decimal digits each; others are folded by NFKC
_PLAIN: Final = (
    dict.fromkeys(map(ord, _DASHES), "-")
    | {ord(fancy): plain for plain, fancies in _QUOTES.items() for fancy in fancies}
    | {ord(zero) + digit: str(digit) for zero in _DIGIT_ZEROS for digit in range(10)}
    | {ord(small): letter for small, letter in _SMALL_CAPITALS.items()}
)
_FANCY = re.compile(f"[{''.join(map(chr, _PLAIN))}]")
_SIGN = re.compile(f"[{''.join(_IN_SIGNS)}]")
_STRUCK = re.compile("(?<=[A-Za-zÀ-ɏ])[\u0300-\u036f\u0488\u0489\u20d0-\u20f0]+")  # what is left once all was composed

_FOREIGN = "аАвВеЕкКмМнНоОрРсСтТуУхХіІјЈѕЅԁԛԜԝһҺӏԍүѵΑαΒΕΖΗΙικΚΜΝοΟΡρΤτΥυνηΧχγωօոսցզհյտքɡɑıꓐꓚꓢ"
_LATIN = "aABBeEkKMMHHoOpPcCtTyYxXiIjJsSdqWwhHlGyvAaBEZHIikKMNoOPpTtYuvnXxywonugqhjuqgaiBCS"
_LOOK_ALIKES: Final = str.maketrans(_FOREIGN, _LATIN)
_MASK = re.compile(f"[A-Za-zÀ-ɏ][\u0300-\u036f]*[{_FOREIGN}]|[{_FOREIGN}][\u0300-\u036f]*[A-Za-zÀ-ɏ]")  # in a mixed word


class Scan(msgspec.Struct, frozen=True):
    """`text`: the copy. `origins[i]`: where in the original the character `text[i]` begins, with the original's length at
    the end; None where the copy equals the original."""

    text: str
    origins: Sequence[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A half-open, non-empty span of the copy → the characters of the original that it came from, each whole."""
        if self.origins is None:
            return start, end
        last = self.origins[end - 1]
        while self.origins[end] == last:  # one original character may have become several
            end += 1
        return self.origins[start], self.origins[end]


def scan(text: str) -> Scan:
    """The copy for matching, with its way back to the original."""
    if _is_plain(text):
        return Scan(text)
    flat = _FANCY.sub(_flat, text)
    if flat != text and _is_plain(flat):  # quotes and dashes as typographers set them: each has become one character
        return Scan(flat, range(len(text) + 1))
    copy, origins = _uncover(_SIGN.sub(lambda sign: _IN_SIGNS[sign[0]], text))
    copy, origins = _bare(*_normalise(copy.translate(_PLAIN), origins))
    unmasked = _unmask(copy)
    if unmasked != copy:  # a Latin letter may now compose with a mark that its look-alike did not take
        copy, origins = _bare(*_normalise(unmasked, origins))
    return Scan(copy) if copy == text else Scan(copy, origins)


def _flat(match: re.Match[str]) -> str:
    return _PLAIN[ord(match[0])]


def scan_copy(text: str) -> str:
    """The copy alone."""
    return scan(text).text


def _is_plain(text: str) -> bool:
    """Whether the copy would equal the text; it does for most texts, so this is what has to be quick."""
    if text.isascii():
        return _HIDDEN_ASCII.search(text) is None
    if _HIDDEN_NEAR.search(text) or _FANCY.search(text) or _STRUCK.search(text):
        return False
    if _FAR.search(text) and (_HIDDEN_FAR.search(text) or _SIGN.search(text)):
        return False
    return unicodedata.is_normalized("NFKC", text) and _unmask(text) == text


def _uncover(text: str) -> tuple[str, list[int]]:
    """Deletes what is invisible and shows what tag characters hide."""
    pieces: list[str] = []
    origins: list[int] = []
    done = 0
    for match in _HIDDEN.finditer(text):
        at = match.start()
        pieces.append(text[done:at])
        origins.extend(range(done, at))
        if 0xE0020 <= (code := ord(match[0])) <= 0xE007E:
            pieces.append(chr(code - 0xE0000))
            origins.append(at)
        done = at + 1
    pieces.append(text[done:])
    origins.extend(range(done, len(text) + 1))
    return "".join(pieces), origins


def _normalise(text: str, origins: list[int]) -> tuple[str, list[int]]:
    """NFKC by clusters, then plain digits, dashes and quotes."""
    pieces: list[str] = []
    moved: list[int] = []
    done = 0
    for chunk in _NON_ASCII.finditer(text):
        if unicodedata.is_normalized("NFKC", chunk[0]):
            continue
        pieces.append(text[done : chunk.start()])
        moved.extend(origins[done : chunk.start()])
        for start, end in _clusters(text, chunk.start(), chunk.end()):
            piece = unicodedata.normalize("NFKC", text[start : min(end, start + 1 + MARKS)])
            pieces.append(piece)
            # A cluster that keeps its length is taken to keep its characters in place: true of all but reordered marks.
            same = len(piece) == end - start
            moved.extend(origins[start:end] if same else [origins[start]] * len(piece))
        done = chunk.end()
    pieces.append(text[done:])
    moved.extend(origins[done:])
    return "".join(pieces).translate(_PLAIN), moved


def _bare(text: str, origins: list[int]) -> tuple[str, list[int]]:
    """Without the strokes and marks on Latin letters that no language composes with them."""
    pieces: list[str] = []
    moved: list[int] = []
    done = 0
    for struck in _STRUCK.finditer(text):
        pieces.append(text[done : struck.start()])
        moved.extend(origins[done : struck.start()])
        done = struck.end()
    pieces.append(text[done:])
    moved.extend(origins[done:])
    return "".join(pieces), moved


def _clusters(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Spans of a character with the marks that follow it (and of the parts of one Hangul syllable)."""
    while start < end:
        stop = start + 1
        while stop < end and (unicodedata.combining(text[stop]) or "\u1160" <= text[stop] <= "\u11ff"):
            stop += 1
        yield start, stop
        start = stop


def _unmask(text: str) -> str:
    """Look-alikes → Latin in words that have a Latin letter and no other foreign one. Keeps the length."""
    return _WORD.sub(_unmask_word, text) if _MASK.search(text) else text


def _unmask_word(match: re.Match[str]) -> str:
    word = match[0]
    if word.isascii():
        return word
    mapped = word.translate(_LOOK_ALIKES)
    if mapped == word or not any(letter.isascii() for letter in word):
        return word
    return mapped if all(_is_latin(letter) for letter in mapped) else word


def _is_latin(letter: str) -> bool:
    return letter < "\u0250" or "\u0300" <= letter < "\u0370" or "\u1e00" <= letter < "\u1f00"
