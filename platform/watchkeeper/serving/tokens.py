"""How many tokens a conversation has for the upstream: counted with its tokenizer where that is here, else estimated.

Admission and the context window need a number before the upstream has answered; what is billed and recorded is the
upstream's own count. Knows nothing of prices or of windows.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

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
    """`exact`: whether a tokenizer counts. Remembers counts under digests of the texts, not the texts."""

    def __init__(self, tokenizer: Any = None) -> None:
        self._tokenizer = tokenizer
        self._known: dict[bytes, int] = {}
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
        if self._tokenizer is None:
            return _estimate(text)
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        known = self._known.get(digest)
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            known = self._known[digest] = self._count(text)
        return known

    def _count(self, text: str) -> int:
        if len(text) <= EXACT_CHARACTERS:
            return self._read(text)
        middle = (len(text) - _SAMPLE) // 2
        samples = (text[:_SAMPLE], text[middle : middle + _SAMPLE], text[-_SAMPLE:])
        return round(sum(map(self._read, samples)) / (3 * _SAMPLE) * len(text))

    def _read(self, text: str) -> int:
        sound = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates would make the tokenizer raise
        return len(self._tokenizer.encode(sound, add_special_tokens=False).ids)


def _estimate(text: str) -> int:
    """Within a third of what today's tokenizers count, for prose and code."""
    plain = len(text.encode("ascii", "ignore"))
    other = len(text.encode("utf-8", "surrogatepass")) - plain
    return -(-plain // 4) + -(-other // 3)
