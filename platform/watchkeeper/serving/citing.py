"""Citations: which passages carry which sentence of an answer, as marks in its text (`[1]`) and as spans beside it.

A mark stands at the end of a sentence that was found supported, before its full stop; marks that the model made itself are
taken out, as it puts them anywhere. Code, headings and rows of tables get none. A growing answer is marked sentence by
sentence: a mark leaves together with what it marks. Knows nothing of how support is found.
"""

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

import msgspec

from watchkeeper.serving import words
from watchkeeper.serving.check import Checker
from watchkeeper.serving.sentences import split

LONG: Final = 600
"""Characters of a sentence that has no end yet, from which on it is not waited for; it gets no mark then."""

_END: Final = re.compile(r"[.!?…。！？｡]++\Z")
_NUMBERS: Final = r"\d{1,2}(?:,\s*\d{1,2})*"
_CODE_OR_MARK: Final = re.compile(
    rf"`+[^`]*`+|(?:\A\[(?P<first>{_NUMBERS})\][ \t]*|[ \t]*\[(?P<numbers>{_NUMBERS})\])(?![(:])"
)
_UNMARKED: Final = re.compile(r"\s*(?:```|~~~|\||#{1,6}\s)")


class Citation(msgspec.Struct, frozen=True):
    """A sentence of what was delivered, [start, end) in characters, and the ids of the passages that carry it."""

    start: int
    end: int
    sources: tuple[str, ...]


class Citing:
    """The citations of one answer, which comes piece by piece. `ids`: of the passages, as they were numbered for the model;
    `marked`: whether marks are put into the text, or the text stays as it is."""

    def __init__(self, checker: Checker, ids: tuple[str, ...], *, marked: bool) -> None:
        self.marked = marked
        self._checker = checker
        self._ids = ids
        self._found: list[Citation] = []
        self._length = 0
        self._line = ""
        self._torn = False

    @property
    def found(self) -> tuple[Citation, ...]:
        return tuple(self._found)

    def ready(self, answer: str, start: int, end: int) -> tuple[int, bool]:
        """How far answer[start:end] may leave so that only whole sentences do, and whether that is a sentence's end: a very
        long one does not wait."""
        if not self.marked:
            return end, False
        whole = max((at for at in accumulate(map(len, split(answer)[:-1])) if at <= end), default=0)
        if whole > start:
            return whole, True
        return (end, False) if end - start > LONG else (start, True)

    def add(self, text: str, *, whole: bool = True) -> str:
        """The next piece of the answer, marked. `whole`: it ends with a sentence's end."""
        pieces = self._pieces(text)
        for at, piece in enumerate(pieces):
            torn = (at == 0 and self._torn) or (at == len(pieces) - 1 and not whole)
            pieces[at] = piece if torn else self._add(piece)
            self._length += len(pieces[at])
        if pieces:
            self._torn = not whole
        return "".join(pieces)

    def _pieces(self, text: str) -> list[str]:
        """Its sentences, as they are where it stands: what begins a line (a list, code) begins none in its middle."""
        pieces: list[str] = []
        whole, at = self._line + text, 0
        for piece in split(whole):
            pieces += [piece[max(0, len(self._line) - at) :]] if at + len(piece) > len(self._line) else []
            at += len(piece)
        self._line = whole[whole.rfind("\n") + 1 :]
        return pieces

    def _add(self, piece: str) -> str:
        body = piece.rstrip()
        blank = piece[len(body) :]
        sentence = self._checker.sentence(body)
        if self.marked and not _UNMARKED.match(body):
            body = _without_marks(body, len(self._ids))
            if sentence.supported:
                body = _with_mark(body, "".join(f"[{at + 1}]" for at in sentence.sources))
        if sentence.supported:
            first = self._length + len(body) - len(body.lstrip())
            ids = tuple(self._ids[at] for at in sentence.sources)
            self._found.append(Citation(first, self._length + len(body), ids))
        return body + blank


def _with_mark(body: str, mark: str) -> str:
    end = _END.search(body)
    at = end.start() if end and body.count("`", 0, end.start()) % 2 == 0 else len(body)
    glued = words.unspaced(body[at - 1 : at])
    return f"{body[:at]}{'' if glued else ' '}{mark}{body[at:]}"


def _without_marks(body: str, count: int) -> str:
    """Without the model's own marks, where they can be numbers of passages."""

    def replaced(match: re.Match[str]) -> str:
        numbers = match["numbers"] or match["first"]
        own = numbers is not None and all(1 <= int(number) <= count for number in numbers.split(","))
        return "" if own else match[0]

    return _CODE_OR_MARK.sub(replaced, body) if "[" in body else body


def unmarked(text: str, count: int) -> str:
    """A marked text without its marks: what a later turn is told of it."""
    return "".join(_unmarked(text, count))


def _unmarked(text: str, count: int) -> Iterator[str]:
    for piece in split(text):
        yield piece if _UNMARKED.match(piece) else _without_marks(piece, count)
