"""JSON that a model wrote almost right, put right without asking anybody: prose and fences around it, commas too many, line
ends inside of texts, brackets that were never closed.

Nothing is guessed: of an answer that was cut off, what is torn is taken out (half a number is another number); of one that
was not, nothing is. Time is linear. Knows nothing of schemas.
"""

import re
from collections.abc import Iterator
from typing import Final

_PAIRS: Final = {"{": "}", "[": "]"}
_CONTROL: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_SPACE: Final = " \t\r\n"
_ESCAPED: Final = frozenset('"\\/bfnrtu')
_FENCE: Final = re.compile(r"```[a-zA-Z0-9]*[ \t]*\n\s*+(?=[{\[])")


def mended(text: str, *, torn: bool) -> Iterator[str]:
    """What the JSON object or list in a text may be, likeliest first; whether it is JSON, its reader sees. `torn`: the
    answer was cut off by its limit."""
    fence = _FENCE.search(text)
    starts = [fence.end() if fence else -1, *sorted((text.find("{"), text.find("[")))]
    for start in dict.fromkeys(at for at in starts if at >= 0):
        found = _Mending(torn).run(text, start)
        if found is not None:
            yield found


class _Mending:
    """One pass over a text. `_whole`: how much of what was written stands whatever is missing after it."""

    def __init__(self, torn: bool) -> None:
        self._torn = torn
        self._written: list[str] = []
        self._open: list[str] = []
        self._whole = 0

    def run(self, text: str, start: int) -> str | None:
        """The JSON that begins at `start`; None where its brackets do not match."""
        at = start
        while at < len(text):
            char = text[at]
            if char == '"':
                at = self._string(text, at)
                continue
            at += 1
            if char in _PAIRS:
                self._open.append(_PAIRS[char])
                self._write(char, whole=True)
            elif char not in "}]":
                self._whole = len(self._written) if char == "," else self._whole
                self._write(char, whole=False)
            elif char != self._open.pop():
                return None
            else:
                self._drop_comma()
                self._write(char, whole=True)
                if not self._open:
                    return "".join(self._written)
        if self._torn:
            del self._written[self._whole :]
        self._drop_comma()
        return "".join([*self._written, *reversed(self._open)])

    def _string(self, text: str, at: int) -> int:
        """Writes the string that begins here; gives where it ends. A value that is complete stands; a key does not yet."""
        value = self._open[-1] == "]" or self._last() == ":"
        pieces = ['"']
        at += 1
        while at < len(text):
            char = text[at]
            if char == "\\":
                pieces.append(text[at : at + 2] if text[at + 1 : at + 2] in _ESCAPED else text[at + 1 : at + 2])
                at += 2
                continue
            pieces.append(_CONTROL.get(char) or (char if char >= " " else f"\\u{ord(char):04x}"))
            at += 1
            if char == '"':
                self._write("".join(pieces), whole=value)
                return at
        self._write("".join(pieces), whole=False)
        return at

    def _write(self, piece: str, *, whole: bool) -> None:
        self._written.append(piece)
        if whole:
            self._whole = len(self._written)

    def _last(self) -> str:
        """The last character written that is not space."""
        return next(piece[-1] for piece in reversed(self._written) if piece not in _SPACE)

    def _drop_comma(self) -> None:
        at = len(self._written) - 1
        while self._written[at] in _SPACE:
            at -= 1
        if self._written[at] == ",":
            del self._written[at]
