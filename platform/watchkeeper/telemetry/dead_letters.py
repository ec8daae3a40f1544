"""Dead letters: what a sink refused for what is in it, kept whole with the reason in `dead_letters.sqlite`.

A letter is known by sink, segment and sequence, so that a batch which is tried again buries nobody twice. Its number only
grows: it is the order in which letters are sent again. What is deleted here leaves no byte in the file (erase needs that).
Knows no sink by name.
"""

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.telemetry.segment import RECORD, transaction

DEAD_LETTERS: Final = "dead_letters.sqlite"

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS letters (number INTEGER PRIMARY KEY AUTOINCREMENT, sink TEXT NOT NULL, segment TEXT NOT NULL,
    sequence INTEGER NOT NULL, request_id TEXT NOT NULL, kind TEXT NOT NULL, at INTEGER NOT NULL, reason TEXT NOT NULL,
    body BLOB NOT NULL, UNIQUE (sink, segment, sequence));
CREATE INDEX IF NOT EXISTS letters_by_request ON letters (request_id, sink, kind);
"""
BURY: Final = """
INSERT INTO letters (at, sink, reason, segment, sequence, request_id, kind, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (sink, segment, sequence) DO NOTHING
"""
PAGE: Final = 200
AT_ONCE: Final = 500
"""Request ids of one statement."""


class DeadLetter(msgspec.Struct, frozen=True):
    """A row that a sink refused. `body`: as it was spooled; `at`: µs. `segment` (its uid) and `sequence`: where it stood.
    `number`: its place among the letters; 0 while it has none."""

    at: int
    sink: str
    reason: str
    segment: str
    sequence: int
    request_id: str
    kind: str
    body: bytes
    number: int = 0


class DeadLetters:
    """The dead letters of one data folder; may be used by many threads, and by several processes. With `writable` false
    nothing is made where there is none."""

    def __init__(self, data: Path, *, writable: bool = True) -> None:
        file = data / DEAD_LETTERS
        self._lock = threading.Lock()
        self._counted: tuple[int, int, int] | None = None
        if writable:
            # It holds what people wrote: nobody else's to read.
            os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        place = file if file.exists() else ":memory:"
        # A rollback journal and full synchronisation, SQLite's own defaults: a letter is on the disk when it is buried, and
        # one that is deleted is nowhere, neither in free pages (secure_delete) nor in a log that lives on.
        self._database = sqlite3.connect(place, isolation_level=None, check_same_thread=False, timeout=20)
        self._database.execute("PRAGMA secure_delete = ON")
        self._database.executescript(SCHEMA)

    def close(self) -> None:
        self._database.close()

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keeps letters, each once; they are on the disk when it returns."""
        if letters:
            rows = [
                (one.at, one.sink, one.reason, one.segment, one.sequence, one.request_id, one.kind, one.body)
                for one in letters
            ]
            with self._lock, transaction(self._database):
                self._database.executemany(BURY, rows)

    def count(self) -> int:
        """How many rows of the spool some sink refused. Costs next to nothing while nothing changes."""
        with self._lock:
            version = self._database.execute("PRAGMA data_version").fetchone()[0]
            seen = (version, self._database.total_changes)
            if self._counted is None or self._counted[:2] != seen:
                sql = "SELECT count(*) FROM (SELECT DISTINCT segment, sequence FROM letters)"
                self._counted = (*seen, int(self._database.execute(sql).fetchone()[0]))
            return self._counted[2]

    def __iter__(self) -> Iterator[DeadLetter]:
        """Every letter, in the order of their numbers; a few of them in memory at a time."""
        after = 0
        while page := self._page(after):
            yield from page
            after = page[-1].number

    def records(self) -> dict[str, set[str]]:
        """For each sink the ids of the requests whose record it refused. Feedback that was refused says nothing of its
        request."""
        found: dict[str, set[str]] = {}
        with self._lock:
            rows = self._database.execute("SELECT sink, request_id FROM letters WHERE kind = ?", (RECORD,)).fetchall()
        for sink, request_id in rows:
            found.setdefault(sink, set()).add(request_id)
        return found

    def remove(self, request_ids: Iterable[str]) -> int:
        """Deletes all letters of these requests, records and feedback, and returns how many there were."""
        names = list(request_ids)
        gone = 0
        with self._lock, transaction(self._database):
            for start in range(0, len(names), AT_ONCE):
                some = names[start : start + AT_ONCE]
                sql = f"DELETE FROM letters WHERE request_id IN ({', '.join('?' * len(some))})"
                gone += self._database.execute(sql, some).rowcount
        return gone

    def _page(self, after: int) -> list[DeadLetter]:
        sql = """SELECT at, sink, reason, segment, sequence, request_id, kind, body, number FROM letters
            WHERE number > ? ORDER BY number LIMIT ?"""
        with self._lock:
            return [DeadLetter(*row) for row in self._database.execute(sql, (after, PAGE))]
