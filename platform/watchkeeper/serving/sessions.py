"""The last turns of each session, in one SQLite file that all workers of a gateway share.

Texts come here redacted. What is kept is bounded: the last turns of a session, for some days, and all of them together:
when the file is full, the oldest turns of the tenant that has most of it make room. A turn that a power cut takes is no
loss (the record has it); an answer is never kept waiting for a store that is locked, broken or on a full disk.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from watchkeeper.record import Message

KEPT_TURNS: Final = 50
KEPT_S: Final = 7 * 24 * 3600
KEPT_CHARACTERS: Final = 16_000
"""Of each text; a longer one is cut."""
KEPT_BYTES: Final = 256_000_000
"""Of the file."""
_MAKING_ROOM: Final = 20
"""So many turns go for one that comes into a full file: few enough that nobody waits."""
_COUNT_S: Final = 60.0
_SWEEP_S: Final = 600.0
_LOCK_WAIT_S: Final = 0.05

_ERASE_WAIT_S: Final = 20.0

_SCHEMA: Final = """
DROP TABLE IF EXISTS turns;
CREATE TABLE IF NOT EXISTS exchanges (
    number INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, session TEXT NOT NULL, request_id TEXT NOT NULL,
    at REAL NOT NULL, asked TEXT NOT NULL, answered TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS exchanges_of_session ON exchanges (tenant, session, number);
CREATE INDEX IF NOT EXISTS exchanges_of_request ON exchanges (request_id);
CREATE INDEX IF NOT EXISTS exchanges_by_age ON exchanges (at);
CREATE INDEX IF NOT EXISTS exchanges_of_tenant ON exchanges (tenant, number);
"""
"""`turns` is what came before: without the ids of requests, so that nobody could say whose they were."""
_OLDEST: Final = """
DELETE FROM exchanges WHERE number IN (SELECT number FROM exchanges WHERE tenant = ? ORDER BY number LIMIT ?)
"""


class SessionsUnavailable(Exception):
    """The store cannot be read or written now; the message is a short code, of `forget` one line."""


class Sessions:
    """Safe from several threads and processes. `clock`: seconds since the epoch. The file is opened at the first use;
    `most_bytes`: what it may grow to."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.time, most_bytes: int = KEPT_BYTES) -> None:
        self._file = file
        self._clock = clock
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._sweep_at = 0.0
        self._largest_tenant = ""
        self._count_at = 0.0

    def turns(self, tenant: str, session: str, limit: int) -> tuple[Message, ...]:
        """The last `limit` turns, oldest first, two messages each. Raises `SessionsUnavailable`."""
        with self._opened() as connection:
            rows = connection.execute(
                "SELECT asked, answered FROM exchanges WHERE tenant = ? AND session = ? AND at > ?"
                " ORDER BY number DESC LIMIT ?",
                (tenant, session, self._clock() - KEPT_S, max(limit, 0)),
            ).fetchall()
        return tuple(
            message
            for asked, answered in reversed(rows)
            for message in (Message("user", asked), Message("assistant", answered))
        )

    def add(self, tenant: str, session: str, user_text: str, answer_text: str, request_id: str) -> None:
        """Stores the turn of one request, and forgets what is beyond the bounds. Raises `SessionsUnavailable`."""
        now = self._clock()
        with self._opened() as connection, connection:
            if _bytes(connection) > self._most_bytes * 0.95:
                self._make_room(connection, now)
            connection.execute(
                "INSERT INTO exchanges (tenant, session, request_id, at, asked, answered) VALUES (?, ?, ?, ?, ?, ?)",
                (tenant, session, request_id, now, _stored(user_text), _stored(answer_text)),
            )
            connection.execute(
                "DELETE FROM exchanges WHERE tenant = :tenant AND session = :session AND number <= (SELECT number"
                " FROM exchanges WHERE tenant = :tenant AND session = :session ORDER BY number DESC LIMIT 1 OFFSET :kept)",
                {"tenant": tenant, "session": session, "kept": KEPT_TURNS},
            )
            if now >= self._sweep_at:
                connection.execute("DELETE FROM exchanges WHERE at <= ?", (now - KEPT_S,))
                self._sweep_at = now + _SWEEP_S

    def _make_room(self, connection: sqlite3.Connection, now: float) -> None:
        """Forgets the oldest turns of the tenant with the most. Who that is, is counted once a minute, as it takes some
        milliseconds, or when that tenant has none left."""
        if now < self._count_at and connection.execute(_OLDEST, (self._largest_tenant, _MAKING_ROOM)).rowcount:
            return
        counted = connection.execute(
            "SELECT tenant FROM exchanges GROUP BY tenant ORDER BY count(*) DESC LIMIT 1"
        ).fetchone()
        if counted is not None:
            self._largest_tenant, self._count_at = counted[0], now + _COUNT_S
            connection.execute(_OLDEST, (self._largest_tenant, _MAKING_ROOM))

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one caller at a time. What SQLite raises becomes `SessionsUnavailable`."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                yield self._connection
            except sqlite3.OperationalError as error:
                locked = "locked" in str(error) or "busy" in str(error)
                full = "full" in str(error)
                code = "sessions_locked" if locked else "sessions_full" if full else "sessions_unavailable"
                raise self._unavailable(code) from error
            except (sqlite3.Error, OSError) as error:
                raise self._unavailable("sessions_corrupt") from error

    def _connect(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        connection = _connected(self._file, _LOCK_WAIT_S)
        try:
            size = connection.execute("PRAGMA page_size").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {self._most_bytes // size}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _unavailable(self, code: str) -> SessionsUnavailable:
        """Lets the connection go: the next call opens a file that may be sound again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        return SessionsUnavailable(code)


def _bytes(connection: sqlite3.Connection) -> int:
    """What is in use of the file; pages that were deleted are used again."""
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def _stored(text: str) -> str:
    """As SQLite can keep it: cut, and without lone surrogates."""
    return text[:KEPT_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


def forget(file: Path, request_ids: Iterable[str], *, wait_s: float = _ERASE_WAIT_S) -> int:
    """Forgets every session of which one of these requests is a turn, and overwrites what was stored of it; how many turns
    that were. A session goes whole: its later turns answer the earlier ones. Waits for gateways at work on the file.

    Raises `SessionsUnavailable`; what was deleted by then may still stand in the log, until it is done again.
    """
    if not file.exists():
        return 0
    try:
        with closing(_connected(file, wait_s)) as connection:
            with connection:
                connection.execute("CREATE TEMP TABLE erased (request_id TEXT PRIMARY KEY)")
                connection.executemany("INSERT OR IGNORE INTO erased VALUES (?)", ((name,) for name in request_ids))
                gone = connection.execute(
                    "DELETE FROM exchanges WHERE (tenant, session) IN (SELECT tenant, session FROM exchanges"
                    " WHERE request_id IN (SELECT request_id FROM erased))"
                ).rowcount
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except (sqlite3.Error, OSError) as error:
        raise SessionsUnavailable(f"{file}: {error}") from error
    if busy:
        raise SessionsUnavailable(f"{file}: others were at work on it for {wait_s:g} s")
    return gone


def _connected(file: Path, wait_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=wait_s, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection
