"""Where parts of traces wait for one another: one SQLite file that all workers of a gateway share.

Spans of a trace come in several exports and in any order, the root last or never. What was added is durable (as durable as
the spool) when `add` returns, once for each trace id and span id, however often it is sent. A trace is ready when its root
is there and nothing came for a moment; without a root when nothing came for long. Its way into the spool has two commits
here, so that it takes it once: `take` marks it as on its way, `finish` forgets its content and keeps its ids for a while.
What is marked and not finished after a crash is for its taker to look up in the spool.

Texts come here redacted; their bytes are overwritten when they go. Knows nothing of the spool, nor of what a part says.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from watchkeeper.telemetry.segment import Durability
from watchkeeper.telemetry.spans.part import Part, decode, encode

FILE_NAME: Final = "traces.sqlite"
SECOND: Final = 1_000_000

ENTRY_FACTOR: Final = 6
"""So much longer than a root's trace one waits whose first span here has a parent in another process: its root may come."""

MOST_SPANS: Final = 2_000
"""Of one trace."""

KEPT_S: Final = 24 * 3600
"""For so long the ids of a finished trace are kept, for spans that are sent again."""

TAKEN: Final = 200
"""Most traces that `take` gives at once."""

_LOCK_WAIT_S: Final = 5.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS traces (
    trace TEXT PRIMARY KEY, due_at INTEGER NOT NULL, last_at INTEGER NOT NULL, first_at INTEGER NOT NULL,
    place INTEGER NOT NULL, spans INTEGER NOT NULL, taken INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS traces_by_due ON traces (due_at);
CREATE TABLE IF NOT EXISTS spans (
    trace TEXT NOT NULL, span TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (trace, span)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS finished (trace TEXT PRIMARY KEY, at INTEGER NOT NULL, spans BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS finished_by_age ON finished (at);
"""
_PLACES: Final = {"inside": 0, "entry": 1, "root": 2}
_SPAN_BYTES: Final = 8


class StagingUnavailable(Exception):
    """The file cannot be read or written now, or is full; the message is one line."""


class Added(NamedTuple):
    """What became of spans: kept; known already; too late (their trace is recorded); too many (of one trace)."""

    kept: int
    again: int
    late: int
    beyond: int


class Ready(NamedTuple):
    """A trace that is ready. `before`: it was taken before and not finished: it may be in the spool already."""

    trace_id: str
    parts: list[Part]
    last_at: int
    before: bool


class Staging:
    """Safe from several threads and processes. Times in µs; `settle_s`, `idle_s`: how long a trace waits with and without
    its root; `most_bytes`: of the file, of which as much again may lie in its log."""

    def __init__(
        self,
        data: Path,
        *,
        settle_s: float = 0.0,
        idle_s: float = 0.0,
        most_bytes: int = 0,
        durability: Durability = "process",
    ) -> None:
        self._file = data / FILE_NAME
        self._waits = {0: idle_s, 1: min(settle_s * ENTRY_FACTOR, idle_s), 2: settle_s}
        self._most_bytes = most_bytes
        self._durability = durability
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    @property
    def exists(self) -> bool:
        """Whether anything was ever added."""
        return self._connection is not None or self._file.exists()

    def add(self, parts: Mapping[str, Sequence[Part]], at: int) -> Added:
        """Keeps parts by trace id. Raises `StagingUnavailable`; nothing of them is kept then."""
        counts = Added(0, 0, 0, 0)
        with self._writing() as database:
            if self._size(database) > self._most_bytes:
                raise StagingUnavailable(f"{self._file}: {self._most_bytes} bytes of traces wait to be recorded")
            for trace_id, group in parts.items():
                counts = Added(*(a + b for a, b in zip(counts, self._add(database, trace_id, group, at), strict=True)))
        return counts

    def take(self, now: int) -> list[Ready]:
        """The traces that are ready, those that were taken before first, at most `TAKEN`. Each comes again until it is
        finished. Raises `StagingUnavailable`."""
        with self._writing() as database:
            found = database.execute(
                "SELECT trace, last_at, taken FROM traces WHERE taken OR due_at <= ? ORDER BY taken DESC, due_at LIMIT ?",
                (now, TAKEN),
            ).fetchall()
            database.executemany("UPDATE traces SET taken = 1 WHERE trace = ?", ((trace,) for trace, _, _ in found))
            return [Ready(trace, self._parts(database, trace), last, bool(taken)) for trace, last, taken in found]

    def finish(self, trace_ids: Iterable[str], at: int) -> None:
        """Forgets what these traces say, and keeps their ids. Raises `StagingUnavailable`."""
        with self._writing() as database:
            for trace_id in trace_ids:
                names = database.execute("SELECT span FROM spans WHERE trace = ?", (trace_id,)).fetchall()
                packed = b"".join(bytes.fromhex(name) for (name,) in names)
                database.execute("INSERT OR REPLACE INTO finished VALUES (?, ?, ?)", (trace_id, at, packed))
                self._drop(database, trace_id)
            database.execute("DELETE FROM finished WHERE at < ?", (at - KEPT_S * SECOND,))

    def drop(self, trace_ids: Iterable[str]) -> None:
        """Forgets traces that are no requests, ids and all. Raises `StagingUnavailable`."""
        with self._writing() as database:
            for trace_id in trace_ids:
                self._drop(database, trace_id)

    def erase(self, request_ids: Iterable[str], at: int, user: str | None = None) -> int:
        """Forgets these traces and those of a user, overwrites what was kept of them, and lets no span of them in again
        for a while; returns how many there were. Raises `StagingUnavailable`."""
        if not self.exists:
            return 0
        names = {*request_ids, *(() if user is None else self.of_user(user))}
        with self._writing() as database:
            gone = [name for name in names if database.execute("SELECT 1 FROM traces WHERE trace = ?", (name,)).fetchone()]
            for name in gone:
                database.execute("INSERT OR REPLACE INTO finished VALUES (?, ?, x'')", (name, at))
                self._drop(database, name)
        with self._opened() as database:
            busy = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise StagingUnavailable(f"{self._file}: others were at work on it for {_LOCK_WAIT_S:g} s")
        return len(gone)

    def of_user(self, user: str) -> list[str]:
        """The traces that wait and are of a user. Raises `StagingUnavailable`."""
        if not self.exists:
            return []
        with self._opened() as database:
            names = [trace for (trace,) in database.execute("SELECT trace FROM traces ORDER BY trace")]
            return [name for name in names if any(part.user == user for part in self._parts(database, name))]

    def oldest_whole(self) -> int | None:
        """When (µs) the first span came of the trace that waits longest of those whose root is there; None: none waits.
        Raises `StagingUnavailable`."""
        if not self.exists:
            return None
        with self._opened() as database:
            sql = "SELECT min(first_at) FROM traces WHERE taken OR place = ?"
            found: int | None = database.execute(sql, (_PLACES["root"],)).fetchone()[0]
            return found

    def waiting(self) -> int:
        """How many traces wait. Raises `StagingUnavailable`."""
        if not self.exists:
            return 0
        with self._opened() as database:
            return int(database.execute("SELECT count(*) FROM traces").fetchone()[0])

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _add(self, database: sqlite3.Connection, trace_id: str, group: Sequence[Part], at: int) -> Added:
        known = self._finished(database, trace_id)
        if known is not None:
            again = sum(bytes.fromhex(part.span_id) in known for part in group)
            return Added(0, again, len(group) - again, 0)
        sql = "SELECT first_at, place, spans FROM traces WHERE trace = ?"
        first, place, spans = database.execute(sql, (trace_id,)).fetchone() or (at, 0, 0)
        fitting = group[: max(0, MOST_SPANS - spans)]
        kept = 0
        for part in fitting:
            body = encode(part)
            kept += database.execute(
                "INSERT OR IGNORE INTO spans VALUES (?, ?, ?)", (trace_id, part.span_id, body)
            ).rowcount
            place = max(place, _PLACES[part.place])
        if kept:
            due = at + int(self._waits[place] * SECOND)
            database.execute(
                "INSERT OR REPLACE INTO traces VALUES (?, ?, ?, ?, ?, ?, 0)",
                (trace_id, due, at, first, place, spans + kept),
            )
        return Added(kept, len(fitting) - kept, 0, len(group) - len(fitting))

    def _finished(self, database: sqlite3.Connection, trace_id: str) -> set[bytes] | None:
        """The spans of a trace that is recorded or on its way; None: it is open."""
        row = database.execute("SELECT spans FROM finished WHERE trace = ?", (trace_id,)).fetchone()
        if row is not None:
            return {row[0][start : start + _SPAN_BYTES] for start in range(0, len(row[0]), _SPAN_BYTES)}
        if not database.execute("SELECT 1 FROM traces WHERE trace = ? AND taken", (trace_id,)).fetchone():
            return None
        names = database.execute("SELECT span FROM spans WHERE trace = ?", (trace_id,))
        return {bytes.fromhex(name) for (name,) in names}

    def _parts(self, database: sqlite3.Connection, trace_id: str) -> list[Part]:
        parts: list[Part] = []
        for (body,) in database.execute("SELECT body FROM spans WHERE trace = ?", (trace_id,)):
            with contextlib.suppress(msgspec.DecodeError):  # of another version: the others are worth their record
                parts.append(decode(body))
        return parts

    def _drop(self, database: sqlite3.Connection, trace_id: str) -> None:
        for table in ("spans", "traces"):
            database.execute(f"DELETE FROM {table} WHERE trace = ?", (trace_id,))

    def _size(self, database: sqlite3.Connection) -> int:
        pages, free, size = (
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        with self._opened() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one caller at a time. What SQLite raises becomes `StagingUnavailable`, and lets it go."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                yield self._connection
            except (sqlite3.Error, OSError) as error:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                raise StagingUnavailable(f"{self._file}: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._file, isolation_level=None, timeout=_LOCK_WAIT_S, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(f"PRAGMA synchronous = {'FULL' if self._durability == 'power' else 'NORMAL'}")
            database.execute("PRAGMA secure_delete = ON")
            database.executescript(_SCHEMA)
        except BaseException:
            database.close()
            raise
        return database
