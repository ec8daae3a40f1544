"""What was asked for: a user, as the stores know them, or some requests. Knows nothing of where anything is."""

import hashlib
import hmac
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from watchkeeper.lake.erasure import MASKED
from watchkeeper.serving.redact import Redactor
from watchkeeper.tracking import TRACE_PREFIX

KEY: Final = "erasures.key"
"""The file under the data folder with the key of the users' hashes in the audit."""

_ID: Final = re.compile(r"[0-9a-f]{32}")


class NotErasable(Exception):
    """What was asked for cannot be told from what others left; the message is one line that says what to ask for."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A `user`, of one `tenant` or (None) of any, or `requests`; never both. `names`: those under which the user is
    stored."""

    user: str | None = None
    names: frozenset[str] = frozenset()
    tenant: str | None = None
    requests: frozenset[str] = frozenset()

    def named(self, data: Path) -> dict[str, Any]:
        """What the audit says of it: the ids of requests, a user's keyed hash."""
        if self.user is None:
            return {"kind": "requests", "requests": sorted(self.requests)}
        hashed = hmac.new(_key(data), f"{self.tenant or ''}\0{self.user}".encode(), hashlib.sha256).hexdigest()
        return {"kind": "user", "hash": hashed, "tenant": self.tenant}


def of_user(user: str, tenant: str | None = None, *, redact: Redactor | None = None) -> Asked:
    """Everything of a user, whose name is looked for as it may have been stored. `redact`: the data folder's, with its
    keys; None: names have nothing in them to redact. Raises `NotErasable`."""
    if not user.strip():
        raise NotErasable("give a user's name")
    if MASKED.fullmatch(user.strip()):
        raise NotErasable(f"{user} is everybody's who had such a thing in the name: give the ids of the requests")
    return Asked(user=user, names=frozenset(redact.names(user) if redact else (user,)), tenant=tenant)


def of_requests(names: Iterable[str]) -> Asked:
    """Everything of these requests (with or without `tr-`). Raises `NotErasable` where one is no id."""
    ids = [name.strip().removeprefix(TRACE_PREFIX).lower() for name in names if name.strip()]
    wrong = next((name for name in ids if not _ID.fullmatch(name)), None)
    if wrong is not None:
        raise NotErasable(f"a request's id is 32 hex digits, not {wrong[:40]!r}")
    if not ids:
        raise NotErasable("give the id of a request")
    return Asked(requests=frozenset(ids))


def _key(data: Path) -> bytes:
    """Made at the first need; nobody else's to read."""
    file = data / KEY
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_bytes()
    with os.fdopen(descriptor, "wb") as made:
        made.write(os.urandom(32))
    return file.read_bytes()
