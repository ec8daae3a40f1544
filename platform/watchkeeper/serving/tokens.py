"""How many tokens a conversation has for the upstream: counted with its tokenizer where that is here, else estimated.

Admission and the context window need a number before the upstream has answered; what is billed and recorded is the
upstream's own count. The estimate is on the safe side: how far, for which script and tokenizer, is in the README. Knows
nothing of prices or of windows.
"""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

EXACT_CHARACTERS: Final = 8_000
"""A longer text is counted by samples: reading 200 kB with a tokenizer takes a fifth of a second."""
_SAMPLE: Final = 2_000
MESSAGE_TOKENS: Final = 5
"""What the chat template adds to a message: begin mark, role, line end, end mark, line end (ChatML)."""
REPLY_TOKENS: Final = 4
"""What opens the reply: begin mark, `assistant`, line end."""
REMEMBERED: Final = 4_096
"""Counts that are kept: a system prompt comes with every request, a chat's turns with every later one."""


class TokenCounter:
    """`exact`: whether a tokenizer counts. Remembers counts under hashes of the texts, not the texts. (Python keeps a
    string's own, which is keyed: nobody can make two texts share one, and by chance a count would be wrong once in a
    million years.)"""

    def __init__(self, tokenizer: Any = None) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, int] = {}
        self.exact = tokenizer is not None

    @classmethod
    def open(cls, folder: Path | None) -> "TokenCounter":
        """With the `tokenizer.json` of a model's folder; an estimate where there is none, or none that can be read."""
        if folder is None or not (folder / "tokenizer.json").is_file():
            return cls()
        from tokenizers import Tokenizer

        try:
            return cls(Tokenizer.from_file(str(folder / "tokenizer.json")))
        except Exception:  # its Rust side raises plain Exception for a file that is no tokenizer
            return cls()

    def count(self, texts: Iterable[str]) -> int:
        """Tokens of a conversation of these messages, with what the template adds to each and to open the reply."""
        return sum(map(self.message, texts)) + REPLY_TOKENS

    def message(self, text: str) -> int:
        """Tokens of one message, with what the template adds to it."""
        return self.text(text) + MESSAGE_TOKENS

    def text(self, text: str) -> int:
        """Tokens of one text, without any template."""
        known = self._known.get(hash(text))
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            known = self._known[hash(text)] = self._count(text)
        return known

    def _count(self, text: str) -> int:
        if self._tokenizer is None:
            return estimate(text)
        if len(text) <= EXACT_CHARACTERS:
            return self._read(text)
        middle = (len(text) - _SAMPLE) // 2
        samples = (text[:_SAMPLE], text[middle : middle + _SAMPLE], text[-_SAMPLE:])
        return round(sum(map(self._read, samples)) / (3 * _SAMPLE) * len(text))

    def _read(self, text: str) -> int:
        sound = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates would make the tokenizer raise
        return len(self._tokenizer.encode(sound, add_special_tokens=False).ids)


def estimate(text: str) -> int:
    """Tokens of a text for a tokenizer that is not here: each character costs by its script, as its first byte tells."""
    raw = text.encode("utf-8", "surrogatepass")
    # numpy is slower for a short text: what it is made of is in no cache when a request comes.
    tokens = sum(map(_COST_OF, raw)) if len(raw) < SHORT else float(COSTS[np.frombuffer(raw, np.uint8)].sum())
    if _DENSE in raw.translate(_LETTER_LIKE):
        tokens += DENSE * sum(map(len, _RUN.findall(text)))
    return math.ceil(tokens)


def _costs() -> NDArray[np.float32]:
    costs = np.zeros(256, np.float32)
    for first, last, cost in _BY_BYTE:
        costs[first : last + 1] = cost
    return costs


_BY_BYTE: Final = (
    *(
        (0x00, 0x1F, 0.5),
        (0x20, 0x20, 0.05),
        (0x0A, 0x0A, 0.8),
        (0x21, 0x7E, 0.65),
        (0x30, 0x39, 1.1),
        (0x41, 0x5A, 0.45),
        (0x61, 0x7A, 0.29),
        (0x7F, 0x7F, 0.5),
    ),  # ASCII
    *((0xC2, 0xCB, 2.3), (0xCC, 0xCD, 1.0)),  # Latin letters with marks, marks
    *((0xCE, 0xCF, 1.2), (0xD0, 0xD3, 0.7), (0xD4, 0xD5, 2.2)),  # Greek, Cyrillic, Armenian
    *((0xD6, 0xDB, 1.15), (0xDC, 0xDF, 2.2)),  # Hebrew and Arabic, what is beside them
    *((0xE0, 0xE0, 1.5), (0xE1, 0xE1, 2.2), (0xE2, 0xE2, 1.5)),  # India's scripts and Thai, Georgian and others, signs
    *((0xE3, 0xE3, 1.2), (0xE4, 0xE9, 1.3), (0xEA, 0xED, 1.3), (0xEE, 0xEF, 1.3)),  # kana, Chinese, Korean, wide forms
    (0xF0, 0xF7, 2.8),  # emoji
)
"""(first, last, tokens) by the first byte of a character in UTF-8; those that follow it cost nothing."""
COSTS: Final = _costs()
_COST_OF: Final = COSTS.tolist().__getitem__
SHORT: Final = 400
DENSE: Final = 0.3
"""What a character costs besides in a long run without a space: base64, hashes, keys."""
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_DENSE: Final = b"w" * 32
_RUN: Final = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{32,}")
_LETTER_LIKE: Final = bytes(ord("w") if byte in _BASE64 else 0 for byte in range(256))
