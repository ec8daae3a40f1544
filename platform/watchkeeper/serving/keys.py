"""API keys: who a caller is. A file of hashes, written by `watchkeeper keys`, followed by every gateway worker.

A key is `wk_<id>_<secret>`. Its id is no secret: it names the key in lists and records. The secret has 256 random bits, so
nobody can try them all, and one SHA-256 is as good as a slow hash (bcrypt, argon2), which is for passwords that people
choose and would cost each request more than all else. Keys are looked up by id and compared in constant time.

Without the file everybody is the tenant `default`. Once there are keys, a file that vanishes or breaks leaves the last good
ones: nobody gets in by removing it from under a running gateway.
"""

import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from watchkeeper.following import Followed
from watchkeeper.serving.request import Refused
from watchkeeper.settings import Settings
from watchkeeper.settings.tenants import TENANT_NAME
from watchkeeper.telemetry.locks import lock

ID_BYTES: Final = 6
SECRET_BYTES: Final = 32
DEFAULT_TENANT: Final = "default"
PATIENCE_S: Final = 10.0
"""How long whoever writes the file waits for another one who does."""

_KEY: Final = re.compile(rb"wk_([a-p]{12})_[A-Za-z0-9_-]{43}")
_LETTERS: Final = str.maketrans("0123456789", "ghijklmnop")
"""An id is kept in records, where nothing may look like a number of somebody's."""
_BEARER: Final = re.compile(rb"(?i:bearer) +(\S+) *")
_NOBODY: Final = "0" * 64
"""What the hash of a key that is not there is compared with."""

Role = Literal["client", "operator"]
"""An operator also reads `/metrics`, where all tenants are."""


class KeysBroken(Exception):
    """The file of keys cannot be read or written, or holds none; the message is one line that names it."""


class KeyUnknown(Exception):
    """There is no key of this id; the message is one line."""


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key as the file has it. `sha256`: of the whole key, in hex. Times: seconds since the epoch; None: never."""

    id: str
    sha256: str
    tenant: str
    role: Role = "client"
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    note: str = ""

    def good(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: tuple[Key, ...] = ()


class Caller(msgspec.Struct, frozen=True):
    """Who asks. `key`: the id of the key; empty where none is needed."""

    tenant: str = DEFAULT_TENANT
    key: str = ""
    operator: bool = True


ANYBODY: Final = Caller()


def read(file: Path) -> tuple[Key, ...] | None:
    """The keys of a file; None: there is no such file. Raises `KeysBroken`."""
    try:
        keys = msgspec.json.decode(file.read_bytes(), type=_File).keys
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KeysBroken(f"{file}: is no file of API keys: {error}") from None
    if any(re.fullmatch(TENANT_NAME, key.tenant) is None for key in keys):
        raise KeysBroken(f"{file}: a tenant's name has letters, digits, `_ . -`, and at most 64 of them")
    return keys


def add(
    file: Path,
    tenant: str,
    *,
    role: Role = "client",
    expires_at: float | None = None,
    note: str = "",
    now: float | None = None,
) -> tuple[Key, str]:
    """Makes a key; the key itself is nowhere but in what is returned. Raises `KeysBroken`, and `ValueError` for a tenant
    that cannot be one."""
    if re.fullmatch(TENANT_NAME, tenant) is None:
        raise ValueError(f"a tenant's name has letters, digits, `_ . -`, and at most 64 of them, not {tenant!r}")
    key_id = secrets.token_hex(ID_BYTES).translate(_LETTERS)
    text = f"wk_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    key = Key(
        id=key_id,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        tenant=tenant,
        role=role,
        created_at=time.time() if now is None else now,
        expires_at=expires_at,
        note=note,
    )
    _change(file, lambda keys: (*keys, key))
    return key, text


def revoke(file: Path, key_id: str, now: float) -> Key:
    """Ends a key, and returns it; of one that has ended nothing changes. Raises `KeyUnknown`, `KeysBroken`."""
    gone: list[Key] = []

    def ended(keys: Sequence[Key]) -> tuple[Key, ...]:
        found = next((key for key in keys if key.id == key_id), None)
        if found is None:
            raise KeyUnknown(f"{file}: there is no key {key_id!r}; see watchkeeper keys list")
        gone.append(found if found.revoked_at is not None else msgspec.structs.replace(found, revoked_at=now))
        return tuple(gone[0] if key.id == key_id else key for key in keys)

    _change(file, ended)
    return gone[0]


def _change(file: Path, change: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> None:
    """Writes the file anew, whole, readable for its owner only, by one at a time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        held = lock(file.with_name(f"{file.name}.lock"), patience_s=PATIENCE_S)
        if held is None:
            raise KeysBroken(f"{file}: another process is writing it; try again")
        try:
            body = msgspec.json.format(msgspec.json.encode(_File(change(read(file) or ()))), indent=2)
            draft = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
            try:
                with open(descriptor, "wb") as out:
                    out.write(body + b"\n")
                    out.flush()
                    os.fsync(descriptor)
                draft.replace(file)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
        finally:
            os.close(held)
    except OSError as error:
        raise KeysBroken(f"{file}: cannot be written: {error.strerror}") from None


class Keys:
    """The keys as the file has them now. `clock`: monotonic seconds; `wall`: seconds since the epoch. `wanted`: the
    settings name the file, so it must be there. Raises `KeysBroken` when it cannot be read at the start."""

    def __init__(
        self,
        file: Path,
        *,
        wanted: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._file = file
        self._clock = clock
        self._wall = wall
        self._wanted = False
        self._followed = Followed(file, clock(), self._read, (KeysBroken,))
        if wanted and self._followed.held is None:
            raise KeysBroken(f"gateway.keys_file: {file}: there is no such file; watchkeeper keys add makes it")

    def caller(self, authorization: bytes | None) -> Caller:
        """Who holds the key of an `Authorization` header. Raises `Refused` with 401."""
        keys = self._followed.look(self._clock())
        if keys is None:
            return ANYBODY
        if authorization is None:
            raise _unauthorized("missing_api_key", "this gateway wants an API key: Authorization: Bearer wk_…")
        bearer = _BEARER.fullmatch(authorization)
        form = _KEY.fullmatch(bearer[1]) if bearer else None
        if form is None:
            raise _unauthorized("invalid_api_key", "Authorization must be `Bearer` and a key of this gateway's (wk_…)")
        found = keys.get(form[1].decode())
        same = hmac.compare_digest(hashlib.sha256(form[0]).hexdigest(), found.sha256 if found else _NOBODY)
        # One answer for all three: it tells nobody which ids there are.
        if found is None or not same or not found.good(self._wall()):
            raise _unauthorized("invalid_api_key", "this API key is not known here, or has ended")
        return Caller(found.tenant, found.id, found.role == "operator")

    def _read(self) -> dict[str, Key] | None:
        keys = read(self._file)
        if keys is None:
            if self._wanted:
                raise KeysBroken(f"{self._file}: it was there, and has gone")  # the last good ones stay
            return None
        self._wanted = True
        return {key.id: key for key in keys}


def _unauthorized(code: str, message: str) -> Refused:
    return Refused(401, code, message)


def keys_of(settings: Settings, clock: Callable[[], float] = time.monotonic) -> Keys:
    """The keys of a gateway. Raises `KeysBroken`."""
    return Keys(settings.keys_file, wanted=settings.gateway.keys_file is not None, clock=clock)
