"""What the redactor said of a text before: most of what a record holds has been read already.

A system prompt comes with every request, a chat's turns with every later one, a prompt more than once within its own
request. Keeps digests, and of texts in which something was found the redacted form: nothing that was taken out. Knows
nothing of what is looked for.
"""

import hashlib
from collections.abc import Callable
from typing import Final

TEXTS: Final = 2_048
CHARACTERS: Final = 8_000
"""Longer texts are read each time: what is remembered must stay small beside the process."""

Read = Callable[[str], tuple[str, dict[str, int]]]


class Remembered:
    """A redactor that reads the same text once, for as long as it remembers it."""

    def __init__(self, redact: Read) -> None:
        self._redact = redact
        self._known: dict[bytes, tuple[str | None, dict[str, int]]] = {}

    def __call__(self, text: str) -> tuple[str, dict[str, int]]:
        """The counts are the caller's to read, not to change."""
        if len(text) > CHARACTERS:
            return self._redact(text)
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        known = self._known.get(digest)
        if known is None:
            redacted, counts = self._redact(text)
            if len(self._known) >= TEXTS:
                self._known.clear()
            self._known[digest] = known = (None if redacted == text else redacted, counts)
        redacted_before, counts = known
        return (text if redacted_before is None else redacted_before), counts
