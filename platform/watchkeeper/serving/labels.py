"""What stands in a text where something was taken out: its category, `[EMAIL]`, or its category and a hash of what stood
there, `[EMAIL:kanbpdcemgohfijl]`, by which equal values are counted and joined and none is read.

The hash is HMAC-SHA256 under a key of the data folder's own, cut to 64 bits and written in letters: a label must hold
nothing that a pattern takes for a number. Knows nothing of how things are found.
"""

import contextlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from watchkeeper.settings import RedactionStyle, Settings

KEY_FILE: Final = "redaction.key"
LEAST_KEY: Final = 32
"""Characters of a key: half a SHA-256 in hex, which is what cannot be guessed."""

LABEL: Final = re.compile(r"\[[A-Z_]{2,16}(?::[a-p]{16})?\]")
_LETTERS: Final = str.maketrans("0123456789", "ghijklmnop")
_NUMBERS: Final = frozenset({"PHONE", "CARD", "IBAN", "SSN", "NATIONAL_ID", "PASSPORT", "LICENSE", "BANK_ACCOUNT"})
"""Categories in which spaces, dashes and case say nothing."""

Label = Callable[[str, str], str]
"""Category and what stood there → what stands there instead."""


class RedactionKeyBroken(Exception):
    """There is no key to hash with; the message is one line that says what to change."""


def mask(category: str, value: str) -> str:
    """The label that says nothing but what kind of thing stood there."""
    return f"[{category}]"


class Labels:
    """What becomes of each category. `keys`: the first one hashes; with the others it was done before. Without any, one
    that nobody else has."""

    def __init__(
        self,
        default: RedactionStyle = "mask",
        styles: Mapping[str, RedactionStyle] | None = None,
        keys: Sequence[bytes] = (),
    ) -> None:
        self._default: RedactionStyle = default
        self._styles = dict(styles or {})
        self.keys = tuple(keys) or (secrets.token_bytes(LEAST_KEY),)

    def style(self, category: str) -> RedactionStyle:
        return self._styles.get(category, self._default)

    def text(self, category: str, value: str) -> str:
        """The label within a text. What is kept has none; where somebody else takes it out all the same, it is masked."""
        return self.name(category, value) if self.style(category) == "hash" else mask(category, value)

    def name(self, category: str, value: str, key: bytes | None = None) -> str:
        """The label within a name of somebody or something, which has to stay apart from all other names: hashed."""
        message = f"{category}\0{_normal(category, value)}".encode("utf-8", "surrogatepass")
        digest = hmac.digest(key or self.keys[0], message, "sha256")
        return f"[{category}:{digest[:8].hex().translate(_LETTERS)}]"


def _normal(category: str, value: str) -> str:
    """One spelling for what is the same thing: an address in capitals, a number with its spaces."""
    if category in _NUMBERS:
        return "".join(filter(str.isalnum, value)).upper()
    return value.casefold() if category in ("EMAIL", "IP", "MAC") else value


def labels(settings: Settings) -> Labels:
    """The labels of a data folder; its key is made where there is none. Raises `RedactionKeyBroken`."""
    policy = settings.redaction
    return Labels(policy.default, policy.styles, _keys(settings.data, policy.key_env))


def _keys(data: Path, key_env: str | None) -> tuple[bytes, ...]:
    if key_env is not None:
        where, text = f"the environment variable {key_env} (redaction.key_env)", os.environ.get(key_env, "")
    else:
        file = data / KEY_FILE
        where = str(file)
        try:
            text = _read(file)
        except (OSError, UnicodeDecodeError) as error:
            raise RedactionKeyBroken(f"{where}: the key of redaction cannot be read or made: {error}") from None
    keys = tuple(line.encode() for line in text.split())
    if not keys or any(len(key) < LEAST_KEY for key in keys):
        raise RedactionKeyBroken(f"{where}: must hold a key of at least {LEAST_KEY} characters a line, the newest first")
    return keys


def _read(file: Path) -> str:
    """The file's text. It is made whole or not at all, by one of several processes that start together."""
    if not file.exists():
        draft = file.with_name(f"{KEY_FILE}.{secrets.token_hex(8)}")
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, stat.S_IRUSR | stat.S_IWUSR)
        try:
            os.write(descriptor, f"{secrets.token_hex(LEAST_KEY)}\n".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(draft, file)
        finally:
            draft.unlink()
    return file.read_text(encoding="ascii")
