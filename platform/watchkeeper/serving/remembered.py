"""What the redactor said of a text before: most of what a record holds has been read already.

A system prompt comes with every request, a chat's turns with every later one, a prompt more than once within its own
request, the names of a stage's attributes always. Keeps short texts in which nothing was found, of others digests, and
the redacted form where something was found: nothing that was taken out. Knows nothing of what is looked for.
"""

import hashlib
from collections.abc import Callable
from typing import Final

TEXTS: Final = 2_048
CHARACTERS: Final = 8_000
"""Longer texts are read each time: what is remembered must stay small beside the process."""

SHORT: Final = 64
"""Characters of a text that is its own key: a digest costs more than all else."""

Read = Callable[[str], tuple[str, dict[str, int]]]


class Remembered:
    """A redactor that reads the same text once, for as long as it remembers it."""

    def __init__(self, redact: Read) -> None:
        self._redact = redact
        self._clean: set[str] = set()
        self._known: dict[bytes, tuple[str | None, dict[str, int]]] = {}

    def __call__(self, text: str) -> tuple[str, dict[str, int]]:
        """The counts are the caller's to read, not to change."""
        if text in self._clean:
            return text, {}
        if len(text) > CHARACTERS:
            return self._redact(text)
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        known = self._known.get(digest)
        if known is None:
            known = self._read(text, digest)
        redacted, counts = known
        return (text if redacted is None else redacted), counts

    def _read(self, text: str, digest: bytes) -> tuple[str | None, dict[str, int]]:
        redacted, counts = self._redact(text)
        known = (None if redacted == text else redacted), counts
        if len(self._known) + len(self._clean) >= TEXTS:
            self._known.clear()
            self._clean.clear()
        if redacted == text and len(text) <= SHORT:
            self._clean.add(text)
        else:
            self._known[digest] = known
        return known
