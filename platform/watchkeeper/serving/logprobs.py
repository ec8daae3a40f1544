"""Log-probabilities of tokens, as the upstream gave them, beside the text that leaves.

A token's goes out when all of its text has; once the text is no longer what the model said, none goes out any more: they
would lie. Knows nothing of why a text was changed.
"""

from collections import deque
from typing import Any


class Logprobs:
    """The tokens of one answer, in order. `lost`: the text was changed, so some are left out."""

    def __init__(self) -> None:
        self._tokens: deque[dict[str, Any]] = deque()
        self._owed = b""
        self.given = False
        self.lost = False

    def add(self, tokens: list[dict[str, Any]]) -> None:
        """More tokens have come."""
        self._tokens.extend(tokens)
        self.given = self.given or bool(tokens)

    def beside(self, text: str) -> list[dict[str, Any]]:
        """The tokens whose text has left, now that `text` leaves too."""
        if self.lost or not self.given:
            return []
        left, at = self._owed + text.encode("utf-8", "surrogatepass"), 0
        taken: list[dict[str, Any]] = []
        while at < len(left):
            token = _bytes(self._tokens[0]) if self._tokens else None
            if token is not None and left.startswith(token, at):
                taken.append(self._tokens.popleft())
                at += len(token)
            elif token is not None and token.startswith(left[at:]):
                break
            else:
                self.lost = True
                self._tokens.clear()
                break
        self._owed = left[at:]
        return taken


def _bytes(token: dict[str, Any]) -> bytes | None:
    """A token's text: its bytes, where it may be half a character, else its string."""
    given = token.get("bytes")
    if isinstance(given, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in given):
        return bytes(given)
    text = token.get("token")
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else None
