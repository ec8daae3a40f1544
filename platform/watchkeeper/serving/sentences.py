"""Where sentences end: a small splitter that keeps every character, for whole texts and for texts still growing.

A fenced code block is one piece; list items, headings and table rows end with their line; abbreviations, initials, list
numbers, decimals and `inline code` end nothing. A place, once it is known to begin a sentence, begins one whatever text
follows: that is what lets a stream be cut as the whole text would be. Knows grammar of no language, only marks.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

_NEVER_LAST_LIST: Final = """
    mr mrs ms mx dr prof rev hon gen col maj capt lt sgt sen rep gov st vs cf eg e.g ie i.e viz al eq approx
    incl excl dept tel bzw z.b d.h u.a sog ggf mme mlle sr sra dra n.b
"""
_NEVER_LAST: Final = frozenset(_NEVER_LAST_LIST.split())
_SOMETIMES_LAST_LIST: Final = """
    etc inc ltd co corp llc jr bros ed eds ph.d b.sc m.sc usw ave blvd rd
"""
_SOMETIMES_LAST: Final = frozenset(_SOMETIMES_LAST_LIST.split())
_BEFORE_NUMBERS_LIST: Final = """
    no nos nr fig figs sec ch vol pp p art par ref min max est ca resp ver jan feb mar apr jun jul aug sep sept
    oct nov dec mon tue wed thu fri sat sun
"""
_BEFORE_NUMBERS: Final = frozenset(_BEFORE_NUMBERS_LIST.split())
_DOTTED: Final = re.compile(r"(?:[a-z]\.)+[a-z]")
_STARTER: Final = re.compile(
    r"(?:The|This|That|These|It|In|On|At|If|He|She|They|We|You|But|And|So|For|When|Then|There|As|To|Its|All|Not|Yes|No)\s"
)
_CLOSERS: Final = "\"'”’»)\\]}*_`）】〉》」』"
_CANDIDATE: Final = re.compile(
    # an end mark, closing quotes, marks of sources ([1]), then white space
    rf"(?<![.!?…])(?P<mark>[.!?…؟۔։።]++)[{_CLOSERS}]*+(?:\[\d{{1,2}}\])*+(?=\s)"
    rf"|[。！？｡।॥]++[{_CLOSERS}]*+(?![。！？｡।॥])"  # in these scripts no space need follow
    r"|(?P<line>\n\s*+)"
)
_FENCE: Final = re.compile(r"^[ ]{0,3}(?:(`{3,})[^`\n]*|(~{3,})[^\n]*)$", re.M)
_BLOCK_START: Final = re.compile(r"[-*+•‣–—]\s|#{1,6}\s|[>|]|\d{1,3}[.)]\s|`{3}|~{3}")
_BLOCK_LINE: Final = re.compile(r"[ \t]*(?:[-*+•‣–—]\s|#{1,6}\s|[>|]|\d{1,3}[.)]\s)")
_LIST_NUMBER: Final = re.compile(r"[ \t]*(?:\d{1,3}|[A-Za-z]|[ivx]{1,4})\.")
_OPENERS: Final = "([{\"'“‘«*_-–—/"
_SHORT_LINE: Final = 50
"""Characters. Lines broken by a text's width are longer; a shorter one before a capital letter ended on purpose."""


def split(text: str) -> list[str]:
    """The sentences of a text, each with the white space after it: joined, they are the text again. Time is linear."""
    starts = [0, *_beginnings(text), len(text)]
    return [text[start:end] for start, end in pairwise(starts) if start < end]


def settled(text: str) -> int:
    """How much of a growing text is whole sentences whatever follows: where its last one begins, 0 while it is the first.

    At this place `split` also cuts every text that begins with this one.
    """
    return max(_beginnings(text), default=0)


def code_blocks(text: str) -> list[tuple[int, int]]:
    """The half-open spans of fenced code, both fences' lines included; one left open runs to the end of the text."""
    spans: list[tuple[int, int]] = []
    if "```" not in text and "~~~" not in text:
        return spans
    at = 0
    while (opening := _FENCE.search(text, at)) is not None:
        mark = opening[1] or opening[2]
        closing = re.compile(rf"^[ ]{{0,3}}{mark[0]}{{{len(mark)},}}[ \t\r]*$", re.M).search(text, opening.end())
        at = len(text) if closing is None else min(closing.end() + 1, len(text))
        spans.append((opening.start(), at))
    return spans


def _beginnings(text: str) -> Iterator[int]:
    """Where the sentences after the first begin, in order; never at the end of the text, never at white space."""
    last = at = 0
    for start, end in [*code_blocks(text), (len(text), len(text))]:
        for place in (*_in_prose(text, at, start), _next_word(text, start), _next_word(text, end)):
            if last < place < len(text):
                yield (last := place)
        at = end


def _in_prose(text: str, start: int, end: int) -> Iterator[int]:
    """The beginnings in text[start:end], which holds no fenced code."""
    line = sentence = counted = start
    ticks = 0
    for match in _CANDIDATE.finditer(text, start, end):
        following = _next_word(text, match.end())
        if match["line"] is not None:
            begins = match["line"].count("\n") > 1 or _line_ends(text, line, match.start(), following)
            line, ticks, counted = match.end(), 0, match.end()
        else:
            ticks += text.count("`", counted, match.start())
            counted = match.start()
            begins = ticks % 2 == 0 and (match["mark"] is None or _mark_ends(text, line, sentence, match, following))
        if begins and following < end:
            sentence = following
            yield following


def _line_ends(text: str, line: int, end: int, following: int) -> bool:
    """Whether the line text[line:end], before a single line break, ends a sentence without a mark."""
    if _BLOCK_START.match(text, following):
        return True
    first = text[following : following + 1]
    if _BLOCK_LINE.match(text, line, end):
        return not first.islower()
    return end - line < _SHORT_LINE and first.isupper()


def _mark_ends(text: str, line: int, sentence: int, match: re.Match[str], following: int) -> bool:
    """Whether the end mark that was matched ends a sentence, seen from the words on both sides."""
    first = text[following : following + 1]
    mark = match["mark"]
    if first.islower():  # only where sentences are written so, and "..." is a pause in any case
        began = next((char for char in text[sentence : sentence + 4] if char.isalpha()), "")
        if not began.islower() or mark[0] == "…" or mark.startswith(".."):
            return False
    if mark != ".":
        return True
    if match.start() - line < 8 and _LIST_NUMBER.fullmatch(text, line, match.start() + 1):
        return False
    return _word_ends(text[max(line, match.start() - 12) : match.start()], text, following)


def _word_ends(before: str, text: str, following: int) -> bool:
    """Whether a full stop after these characters ends a sentence, and not just an abbreviation."""
    words = before.split()
    word = words[-1].lstrip(_OPENERS) if words and not before[-1].isspace() else ""
    low = word.lower()
    if low in _NEVER_LAST:
        return False
    if low in _BEFORE_NUMBERS:
        return not text[following : following + 1].isdigit()
    initial = len(word) == 1 and word.isupper()
    if initial or low in _SOMETIMES_LAST or _DOTTED.fullmatch(low):
        return _STARTER.match(text, following) is not None
    return True


_WORD: Final = re.compile(r"\S")


def _next_word(text: str, at: int) -> int:
    match = _WORD.search(text, at)
    return len(text) if match is None else match.start()
