"""The last touch on an answer: what a model leaves behind by accident is taken away, and nothing else.

Template marks, blank space, a code fence left open, the same sentences over and over at the end; of an answer that its
limit cut off, also Markdown left open, and the same words over and over. Code, numbers, quotations and wording stay as they
are. Grammar is nobody's business here: what corrects it offline is large or wrong. Knows nothing of what was asked.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from watchkeeper.serving.markdown import closed
from watchkeeper.serving.sentences import code_blocks, split

LOOP: Final = 3
"""So many times the same, and it is a loop."""
LOOP_CHARACTERS: Final = 20
"""Shorter sentences may be repeated on purpose."""
LOOP_SENTENCES: Final = 4
"""A loop goes round over this many sentences at the most."""
STUTTER: Final = 8
"""So often the same words in a row, and the model is stuck."""
MOST_PERIOD: Final = 12
"""Words of which a stutter is made, at the most."""
STUTTER_WORDS: Final = 400
"""Words at the end that are looked at."""

_OPENING: Final = r"<\|(?:im_start|start_header_id)\|>|<start_of_turn>(?:model\b)?|<\|assistant\|>"
_CLOSING: Final = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
    "<|return|>",
    "<|eot|>",
    "<｜end▁of▁sentence｜>",
    "<eos>",
)
_CLOSING_PATTERN: Final = "|".join(map(re.escape, _CLOSING))
_BEGIN: Final = re.compile(
    rf"(?:\s*+(?P<mark>{_OPENING}|<\|end_header_id\|>|\[/INST\]|{_CLOSING_PATTERN})|\s*+assistant[ \t]*(?:\n|(?=<\|))"
    r"|\s*+[Aa]ssistant[ \t]*:|\s*+ASSISTANT:)+\s*"
)
_OTHER_ROLE: Final = re.compile(r"^[ \t]*(?:user|human)[ \t]*:", re.I | re.M)
_NEXT_TURN: Final = re.compile(rf"(?:{_CLOSING_PATTERN})\s*+(?:{_OPENING}|<\|user\|>)")
_BLANK_LINES: Final = re.compile(r"\n(?:[ \t]*+\n){3,}")
_EMPTY_LINES: Final = re.compile(r"(?:[ \t\r]*+\n)+")
_FENCE: Final = re.compile(r"[ ]{0,3}(`{3,}|~{3,})")
_WORD: Final = re.compile(r"\S+")
_ENDED: Final = re.compile(r"[.!?…。！？:][\"'”’»)\]*_`]*\Z")
_GUARDED: Final = re.compile(r"[\d`\"“”„«»‘’|]")
"""What is not touched: numbers, code, quotations, tables."""
_QUOTING: Final = ('"', "“", "„", "«", "'", "‘", ">", "|", "`", "~")


def postprocess(text: str, *, torn: bool = False, drop: bool = False) -> tuple[str, tuple[str, ...]]:
    """(text, what was done, in this order: residue, space, torn, stutter, loop, blank_lines, fence, markdown). `torn`: its
    limit cut the answer off; `drop`: then the sentence that is not whole goes. Time is linear."""
    repairs = dict(_REPAIRS)
    if torn:
        repairs = {**_BEFORE_TORN, "torn": _without_torn_end, **_AFTER_TORN} if drop else {**_BEFORE_TORN, **_AFTER_TORN}
    changes: list[str] = []
    for name, repair in repairs.items():
        repaired = repair(text)
        if repaired != text:
            changes.append(name)
            text = repaired
    return text, tuple(changes)


def _without_residue(text: str) -> str:
    """Without the chat template's marks at both ends, and without a next turn that the model went on to invent."""
    if "<" in text:  # all marks that end a turn have one
        turns = (turn for start, end in _prose(text) for turn in _NEXT_TURN.finditer(text, start, end))
        turn = next((turn for turn in turns if text[turn.start() - 1 : turn.start()] != "`"), None)
        text = text[: turn.start()] if turn else text
    begin = _BEGIN.match(text)
    if begin is not None and (begin["mark"] or not _OTHER_ROLE.search(text)):
        text = text[begin.end() :]
    return _without_marks_at_end(_without_bare_fence(_without_marks_at_end(text)))


def _without_marks_at_end(text: str) -> str:
    end = text.rstrip()
    while end.endswith(_CLOSING) and not (end.endswith("</s>") and "<s>" in end):
        end = end[: end.rindex("<")].rstrip()
        text = end
    return text


def _without_bare_fence(text: str) -> str:
    """Without a fence at the end that opens a block of nothing."""
    code = code_blocks(text)
    bare = code and code[-1][1] == len(text) and "\n" not in text[code[-1][0] :].strip()
    return text[: code[-1][0]].rstrip() if bare else text


def _without_space(text: str) -> str:
    """Without empty lines before, and blank space after; four spaces at the beginning may be code."""
    empty = _EMPTY_LINES.match(text)
    text = text[empty.end() :] if empty else text
    return (text if text.startswith(("    ", "\t")) else text.lstrip(" ")).rstrip()


def _without_loop(text: str) -> str:
    """Sentences that come again and again at the end, once. Quotations, tables and code may repeat themselves."""
    last = text[-LOOP_CHARACTERS:].split()[-1:]
    if not last or text.count(last[0]) < LOOP:
        return text  # the last word of a loop stands in every round of it, if only as the beginning of a longer one
    pieces = split(text)
    keys = [piece.strip() for piece in pieces]
    for cut in (0, 1):  # the last round may have been cut off by the limit of tokens
        end = len(keys) - cut
        for length in range(1, LOOP_SENTENCES + 1):
            kept = _rounds(keys, end, length)
            if kept and (not cut or keys[kept - length].startswith(keys[-1])):
                return "".join(pieces[:kept]).rstrip()
    return text


def _rounds(keys: list[str], end: int, length: int) -> int:
    """How many sentences are left when the rounds of `length` sentences that end at `end` are one; 0 for no loop."""
    block = keys[max(end - length, 0) : end]
    if len(block) < length or sum(map(len, block)) < LOOP_CHARACTERS or any(key.startswith(_QUOTING) for key in block):
        return 0
    start = end - length
    while start >= length and keys[start - length : start] == block:
        start -= length
    return start + length if end - start >= LOOP * length else 0


def _without_blank_lines(text: str) -> str:
    """Three blank lines or more become one, outside code."""
    if "\n" not in text:
        return text
    parts: list[str] = []
    at = 0
    for start, end in _prose(text):
        parts += [text[at:start], _BLANK_LINES.sub("\n\n", text[start:end])]
        at = end
    return "".join([*parts, text[at:]])


def _prose(text: str) -> Iterator[tuple[int, int]]:
    """The spans between fenced code."""
    at = 0
    for start, end in [*code_blocks(text), (len(text), len(text))]:
        yield at, start
        at = end


def _with_fence_closed(text: str) -> str:
    """With the fence that ends a block left open."""
    code = code_blocks(text)
    block = text[code[-1][0] :] if code and code[-1][1] == len(text) else ""
    opening = _FENCE.match(block)
    if opening is None:
        return text
    closing = re.compile(rf"[ ]{{0,3}}{opening[1][0]}{{{len(opening[1])},}}")
    lines = block.rstrip().split("\n")
    return text if len(lines) > 1 and closing.fullmatch(lines[-1].rstrip()) else f"{text.rstrip()}\n{opening[1]}"


def _without_stutter(text: str) -> str:
    """The same few words again and again at the end, once: a model that got stuck, until its limit ended it."""
    code = code_blocks(text)
    words = list(_WORD.finditer(text, code[-1][1] if code else 0))[-STUTTER_WORDS:]
    backwards = [word[0] for word in reversed(words)]
    for cut in (0, 1):  # the last word may be half of one
        said = backwards[cut:]
        for period in range(1, MOST_PERIOD + 1):
            same = next((at for at in range(len(said) - period) if said[at] != said[at + period]), len(said) - period)
            if same < period * (STUTTER - 1) or _GUARDED.search(" ".join(said[:period])):
                continue
            if not cut or words[-1 - period][0].startswith(backwards[0]):
                kept = len(said) - same // period * period
                return text[: words[kept - 1].end()]
    return text


def _without_torn_end(text: str) -> str:
    """Without the sentence at the end that is not whole, where a whole one stands before it. Lists, tables, code and
    quotations stay as they are."""
    pieces = split(text)
    last = pieces[-1].strip() if pieces else ""
    if (
        len(pieces) < 2
        or not _ENDED.search(pieces[-2].rstrip())
        or _ENDED.search(last)
        or last.startswith((*_QUOTING, *"-*+#(["))
        or _GUARDED.search(last)
    ):
        return text
    return "".join(pieces[:-1]).rstrip()


_BEFORE_TORN: Final[dict[str, Callable[[str], str]]] = {"residue": _without_residue, "space": _without_space}
_AFTER_TORN: Final[dict[str, Callable[[str], str]]] = {
    "stutter": _without_stutter,
    "loop": _without_loop,
    "blank_lines": _without_blank_lines,
    "fence": _with_fence_closed,
    "markdown": closed,
}
_REPAIRS: Final = {
    name: repair for name, repair in (_BEFORE_TORN | _AFTER_TORN).items() if name not in ("stutter", "markdown")
}
