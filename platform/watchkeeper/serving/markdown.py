"""Markdown that an answer's limit cut off in the middle, closed: what was opened in the last paragraph and needs an end.

Only ever adds marks at the end. Knows nothing of why an answer ended.
"""

import re
from typing import Final

from watchkeeper.serving.sentences import code_blocks

_PARAGRAPH: Final = re.compile(r"\n[ \t]*\n|\n(?=[ \t]*(?:[-*+]|\d{1,3}[.)]|#{1,6})[ \t])")
"""Where inline marks end at the latest: an empty line, the next item or heading."""
_TICKS: Final = re.compile(r"(?<!\\)`+")
_STRONG: Final = re.compile(r"(?<![\w*\\])\*\*(?=[^\s*])|(?<=[^\s*\\])\*\*(?![\w*])")
_RULE: Final = re.compile(r"[ \t]*\|?[ \t]*:?-+[ \t:|-]*")
_PIPE: Final = re.compile(r"(?<!\\)\|")


def closed(text: str) -> str:
    """The text with inline code, strong emphasis and the last row of a table closed. Doing it twice changes nothing more.
    Inside of fenced code nothing is changed."""
    code = code_blocks(text)
    start = code[-1][1] if code else 0
    if start == len(text):
        return text
    last = max((match.end() for match in _PARAGRAPH.finditer(text, start)), default=start)
    return text + _row_end(text[start:]) if _in_table(text[start:]) else text + _inline_end(text[last:])


def _inline_end(paragraph: str) -> str:
    """The marks that end what is open in a paragraph: code first, as marks inside of it are none."""
    opened, at = "", 0
    plain: list[str] = []
    for match in _TICKS.finditer(paragraph):
        if not opened:
            plain.append(paragraph[at : match.start()])
            opened = match[0]
        elif match[0] == opened:
            opened, at = "", match.end()
    if paragraph.endswith(("`", "\\") if opened else "\\"):  # more marks would make another one of the last
        return ""
    plain.append("" if opened else paragraph[at:])
    strong = len(_STRONG.findall("x".join([*plain, ""]) if opened else "x".join(plain)))
    end = opened or paragraph[-1:]
    return opened + ("**" if strong % 2 and end not in ("*", " ", "\n", "\\", "") else "")


def _in_table(text: str) -> bool:
    """Whether the last line is a row of a table: a rule stands under the first."""
    lines = _table(text)
    return len(lines) > 1 and (_RULE.fullmatch(lines[1]) is not None)


def _table(text: str) -> list[str]:
    """The lines at the end that begin with a bar."""
    lines = text.split("\n")
    first = next((at for at in range(len(lines), 0, -1) if not lines[at - 1].lstrip().startswith("|")), 0)
    return lines[first:]


def _row_end(text: str) -> str:
    """What the last row lacks of as many cells as the first has."""
    lines = _table(text)
    missing = len(_PIPE.findall(lines[0].rstrip())) - len(_PIPE.findall(lines[-1]))
    if missing <= 0 or text.endswith("\\"):
        return ""
    return "---|" * missing if len(lines) == 2 else " |" * missing
