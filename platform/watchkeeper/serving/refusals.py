"""Does an answer decline, or say that it does not know, instead of answering?

Its first sentence (after courtesies) says so in one of the languages of refusals.toml, and little follows that could be an
answer. A "no" that answers the question ("no, employees cannot carry leave over") is none. How good it is: see the scorer
`refusal`. Knows nothing of what was asked.
"""

import re
import tomllib
from pathlib import Path
from typing import Final

from watchkeeper.serving.sentences import split
from watchkeeper.serving.words import size

REST: Final = 60
"""Words: an answer that says more beside its refusal has answered after all."""
REST_TURNED: Final = 25
"""The same where the refusal is followed by a turn ("however, …")."""

_PHRASES: Final = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_DECLINES: Final = re.compile("|".join(pattern for found in _PHRASES["declines"].values() for pattern in found), re.I)
_APOLOGY, _TURN, _ANSWERS = (re.compile(_PHRASES["around"][name], re.I) for name in ("apology", "turn", "answer"))
_QUOTED: Final = re.compile(r"[\s\d.*-]*[\"“„«]|\w+:")


def refuses(answer: str) -> bool:
    """Whether the answer as a whole declines."""
    pieces = [piece for piece in split(answer) if piece.strip()]
    spoken = next((at for at, piece in enumerate(pieces) if not _APOLOGY.fullmatch(piece) or declines(piece)), None)
    if spoken is None or _QUOTED.match(pieces[spoken]):  # somebody else's words
        return False
    first = _straight(pieces[spoken])
    said = _DECLINES.search(first)
    if said is None:
        return False
    # What follows a turn in the same sentence; the one in "sorry, but I cannot" comes before.
    turn = _TURN.search(first, said.end())
    rest = [first[turn.start() :]] if turn else []
    rest += [piece for piece in pieces[spoken + 1 :] if not piece.rstrip().endswith("?") and not declines(piece)]
    if any(_ANSWERS.search(_straight(piece)) for piece in rest):
        return False
    return sum(map(size, rest)) <= (REST_TURNED if any(map(_TURN.search, rest)) else REST)


def declines(sentence: str) -> bool:
    """Whether a sentence says that its speaker cannot, will not or does not know."""
    return _DECLINES.search(_straight(sentence)) is not None


def _straight(text: str) -> str:
    return text.replace("’", "'")
