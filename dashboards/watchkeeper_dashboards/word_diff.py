"""Two texts side by side, with the words that differ marked. Plain text in plain elements: nothing in it is interpreted."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Final

from dash import html
from dash.development.base_component import Component

MOST: Final = 1_500
"""Words of a text that are compared; of longer ones the rest is shown unmarked."""

Runs = list[tuple[bool, str]]
"""Pieces of a text in its order, each with whether it differs."""


def differing(base: str, candidate: str) -> tuple[Runs, Runs]:
    """Both texts cut into pieces that are in the other one too, and pieces that are not. Joined they are the texts."""
    words = [re.findall(r"\s*\S+\s*", text) or [text] for text in (base, candidate)]
    ours, theirs = (found[:MOST] for found in words)
    left, right = _Runs(), _Runs()
    # Blanks around a word are no difference. autojunk keeps texts that repeat themselves from taking seconds.
    matcher = SequenceMatcher(None, [word.strip() for word in ours], [word.strip() for word in theirs])
    for kind, a, b, c, d in matcher.get_opcodes():
        left.add(kind != "equal", "".join(ours[a:b]))
        right.add(kind != "equal", "".join(theirs[c:d]))
    left.add(False, "".join(words[0][MOST:]))
    right.add(False, "".join(words[1][MOST:]))
    return left.runs, right.runs


def marked(runs: Runs, missing_there: bool) -> Component:
    """One side as text. `missing_there`: what differs here is what the other side lost (else what it did not have)."""
    mark = html.Del if missing_there else html.Ins
    pieces: Sequence[Component | str] = [mark(text) if differs else text for differs, text in runs]
    return html.Pre(list(pieces), className="wk-text wk-diff", tabIndex=0)


class _Runs:
    """Pieces, joined with the one before where they are of the same sort."""

    def __init__(self) -> None:
        self.runs: Runs = []

    def add(self, differs: bool, text: str) -> None:
        if not text:
            return
        if self.runs and self.runs[-1][0] == differs:
            self.runs[-1] = (differs, self.runs[-1][1] + text)
        else:
            self.runs.append((differs, text))
