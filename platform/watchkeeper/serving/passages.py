"""Documents cut into passages: about 120 words each, at headings and paragraphs, with the headings above them as title.

Markdown and plain text. Code blocks and tables stay whole where they fit; the rows of a long table take its head along.
Knows nothing of files, nor of how passages are found again.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.serving import words
from watchkeeper.serving.sentences import code_blocks, split

TARGET: Final = 120
"""Words. A passage that has reached half of this is closed rather than made longer than half as much again."""
MAX_CHARACTERS: Final = 1200

_FRONT_MATTER: Final = re.compile(r"\A---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*$\n?", re.S | re.M)
_FRONT_TITLE: Final = re.compile(r"^title:[ \t]*[\"']?(.+?)[\"']?[ \t]*$", re.M | re.I)
_COMMENT: Final = re.compile(r"<!--.*?-->", re.S)
_HEADING: Final = re.compile(r"^[ ]{0,3}(#{1,6})[ \t]+(.+?)[ \t#]*$")
_UNDERLINE: Final = re.compile(r"^[ ]{0,3}(=+|-{2,})[ \t]*$")
_TABLE_RULE: Final = re.compile(r"^[ ]{0,3}\|?[ \t:|-]*-[ \t:|-]*\|[ \t:|-]*$")
_DRESS: Final = re.compile(r"[*`]{1,3}|(?<!\w)_{1,3}|_{1,3}(?!\w)|!?\[([^\]]*)\]\([^)]*\)|\s*\{#[^}]*\}$")


class Unreadable(Exception):
    """The file is left out; the message says why, in words for its owner."""


class Passage(msgspec.Struct, frozen=True):
    """`id`: `<document path>#<number from 1>`; `title`: the headings above it, `Leave > Parental leave`."""

    id: str
    title: str
    text: str


def cut(name: str, text: str) -> list[Passage]:
    """The passages of one document, in order. `name`: its path in the base; it is the title where there is no heading."""
    front = _FRONT_MATTER.match(text)
    stem = Path(name).stem.replace("-", " ").replace("_", " ")
    title = stem
    if front is not None:
        given = _FRONT_TITLE.search(front[1])
        title = given[1] if given else stem
        text = text[front.end() :]
    passages: list[Passage] = []
    for path, body in _sections(_COMMENT.sub("", text), title):
        for part in _pack(body):
            passages.append(Passage(f"{name}#{len(passages) + 1}", " > ".join(path), part))
    return passages


def _sections(text: str, title: str) -> Iterator[tuple[list[str], list[str]]]:
    """(headings above, blocks) of each section with a body; a heading with nothing below it is a body of its own."""
    path: list[tuple[int, str]] = []
    body: list[str] = []
    for block in _blocks(text):
        level, heading = _heading(block)
        if not level:
            body.append(block)
            continue
        if body or (path and path[-1][0] >= level):
            yield [each for _, each in path] or [title], body or [path[-1][1]]
        body = []
        path = [(depth, each) for depth, each in path if depth < level]
        path.append((level, heading))
    if body or path:
        yield [each for _, each in path] or [title], body or [path[-1][1]]


def _blocks(text: str) -> Iterator[str]:
    """Headings, fenced code, and what blank lines separate, in order, none of them empty."""
    at = 0
    for start, end in [*code_blocks(text), (len(text), len(text))]:
        lines: list[str] = []
        for line in text[at:start].split("\n"):
            if _UNDERLINE.match(line) and len(lines) == 1 and not lines[0].lstrip().startswith(("|", "-", "*", ">")):
                yield f"{'#' if '=' in line else '##'} {lines[0].strip()}"
                lines = []
            elif _HEADING.match(line):
                yield from ["\n".join(lines)] if lines else []
                yield line
                lines = []
            elif line.strip():
                lines.append(line.rstrip())
            else:
                yield from ["\n".join(lines)] if lines else []
                lines = []
        yield from ["\n".join(lines)] if lines else []
        yield from [text[start:end].rstrip()] if start < end else []
        at = end


def _heading(block: str) -> tuple[int, str]:
    """Level and plain text of a heading; level 0 for any other block."""
    match = _HEADING.match(block) if "\n" not in block else None
    if match is None:
        return 0, ""
    return len(match[1]), plain(match[2]) or match[2]


def plain(marked: str) -> str:
    """Markdown of one line without its dress: emphasis, code marks, link targets, anchors."""
    return _DRESS.sub(lambda match: match[1] or "", marked).strip()


def _pack(blocks: list[str]) -> Iterator[str]:
    """Blocks joined, or cut, into texts of about `TARGET` words and at most `MAX_CHARACTERS`."""
    held = ""
    for block in blocks:
        for part in _parts(block):
            joined = f"{held}\n\n{part}" if held else part
            if held and (
                len(joined) > MAX_CHARACTERS or words.size(joined) > TARGET * 3 // 2 or words.size(held) >= TARGET
            ):
                yield held
                joined = part
            held = joined
    if held:
        yield held


def _parts(block: str) -> Iterator[str]:
    """A block as it is where it fits; else cut: code and tables between lines, prose between sentences."""
    if len(block) <= MAX_CHARACTERS and words.size(block) <= TARGET * 3 // 2:
        yield block
        return
    lines = block.split("\n")
    head = "\n".join(lines[:2]) + "\n" if len(lines) > 2 and _TABLE_RULE.match(lines[1]) else ""
    if 0 < len(head) < MAX_CHARACTERS // 2:
        pieces = [line + "\n" for line in lines[2:]]
    elif block.startswith(("```", "~~~", "|")):
        pieces = [line + "\n" for line in lines]
    else:
        pieces = split(block)
    head = head if len(head) < MAX_CHARACTERS // 2 else ""
    held = ""
    for piece in pieces:
        if held and (len(head + held + piece) > MAX_CHARACTERS or words.size(held) + words.size(piece) > TARGET):
            yield (head + held).strip()
            held = ""
        held += piece
        while len(head + held) > MAX_CHARACTERS:  # a sentence or a line without end
            at = _cut_at(held, MAX_CHARACTERS - len(head))
            yield (head + held[:at]).strip()
            held = held[at:]
    if held.strip():
        yield (head + held).strip()


def _cut_at(text: str, limit: int) -> int:
    """The last white space before `limit`, or `limit` where there is none in its second half."""
    space = text.rfind(" ", limit // 2, limit)
    return limit if space < 0 else space + 1
