"""Dead letters: what a sink refused for what is in it, kept whole with the reason in `dead_letters.sqlite`; and beside
them what only waits: feedback on an answer of which the sink knows nothing yet.

A letter is known by sink, segment and sequence, so that a batch which is tried again buries nobody twice. Its number only
grows: it is the order in which letters are sent again. What is deleted here leaves no byte in the file (erase needs that).
Knows no sink by name.
"""

import os
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.telemetry.segment import RECORD, Row
from watchkeeper.telemetry.transaction import Transaction

DEAD_LETTERS: Final = "dead_letters.sqlite"

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS letters (number INTEGER PRIMARY KEY AUTOINCREMENT, sink TEXT NOT NULL, segment TEXT NOT NULL,
    sequence INTEGER NOT NULL, request_id TEXT NOT NULL, kind TEXT NOT NULL, at INTEGER NOT NULL, reason TEXT NOT NULL,
    due INTEGER, tries INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (sink, segment, sequence));
CREATE INDEX IF NOT EXISTS letters_by_request ON letters (request_id, sink, kind, due);
CREATE INDEX IF NOT EXISTS letters_that_wait ON letters (sink, due) WHERE due IS NOT NULL;
CREATE TABLE IF NOT EXISTS store (uid TEXT NOT NULL);
"""
COLUMNS: Final = "at, sink, reason, segment, sequence, request_id, kind, body, due, tries"
BURY: Final = f"""
INSERT INTO letters ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (sink, segment, sequence) DO NOTHING
"""
OUTLIVED: Final = "DELETE FROM letters WHERE sink = ? AND segment = ? AND sequence = ? AND due IS NOT NULL"
AGAIN: Final = """
UPDATE letters SET number = (SELECT seq + 1 FROM sqlite_sequence WHERE name = 'letters'), at = ?, reason = ?
WHERE number = ?
"""
COUNT_ON: Final = "UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'letters'"
"""An update counts no further by itself, and a number must never come twice."""
PAGE: Final = 200
AT_ONCE: Final = 500
"""Request ids of one statement."""


class DeadLetter(msgspec.Struct, frozen=True):
    """A row that a sink refused. `body`: as it was spooled; `at`: µs. `segment` (its uid) and `sequence`: where it stood.
    `due`: not dead, but waits, and is looked at again at this time (µs), for the `tries`th time. `number`: its place among
    the letters; 0 while it has none."""

    at: int
    sink: str
    reason: str
    segment: str
    sequence: int
    request_id: str
    kind: str
    body: bytes
    due: int | None = None
    tries: int = 0
    number: int = 0


class DeadLetters:
    """The dead letters of one data folder; may be used by many threads, and by several processes. With `writable` false
    nothing is made where there is none."""

    def __init__(self, data: Path, *, writable: bool = True) -> None:
        file = data / DEAD_LETTERS
        self._lock = threading.Lock()
        self._counted: tuple[int, int] | None = None
        self._counts = (0, 0)
        if writable:
            # It holds what people wrote: nobody else's to read.
            os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        place = file if file.exists() else ":memory:"
        # A rollback journal and full synchronisation, SQLite's own defaults: a letter is on the disk when it is buried, and
        # one that is deleted is nowhere, neither in free pages (secure_delete) nor in a log that lives on.
        self._database = sqlite3.connect(place, isolation_level=None, check_same_thread=False, timeout=20)
        self._database.execute("PRAGMA secure_delete = ON")
        with Transaction(self._database):
            for statement in SCHEMA.split(";"):
                self._database.execute(statement)
            self._database.execute("INSERT INTO store SELECT ? WHERE NOT EXISTS (SELECT 1 FROM store)", (uuid.uuid4().hex,))

    def close(self) -> None:
        self._database.close()

    @property
    def uid(self) -> str:
        """Of this store; never given twice, anywhere."""
        with self._lock:
            return str(self._database.execute("SELECT uid FROM store").fetchone()[0])

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keeps letters, each once; they are on the disk when it returns. One that waits may become a dead one, which is
        then behind all others: those before it may have been sent again already, and their sender goes by the number."""
        if letters:
            rows = [
                (
                    one.at,
                    one.sink,
                    one.reason,
                    one.segment,
                    one.sequence,
                    one.request_id,
                    one.kind,
                    one.body,
                    one.due,
                    one.tries,
                )
                for one in letters
            ]
            with self._lock, Transaction(self._database):
                self._database.executemany(OUTLIVED, [(one.sink, one.segment, one.sequence) for one in letters])
                self._database.executemany(BURY, rows)

    def refused_again(self, refused: Iterable[tuple[int, str]], at: int) -> None:
        """Puts letters (number and reason, `at` in µs) behind all others."""
        with self._lock, Transaction(self._database):
            for number, reason in refused:
                self._database.execute(AGAIN, (at, reason, number))
                self._database.execute(COUNT_ON)

    def count(self) -> int:
        """How many rows of the spool some sink refused. Costs next to nothing while nothing changes."""
        return self._count()[0]

    def waiting(self) -> int:
        """How many letters wait. Costs as little."""
        return self._count()[1]

    def __iter__(self) -> Iterator[DeadLetter]:
        """Every letter, also those that wait, in the order of their numbers; a few of them in memory at a time."""
        after = 0
        while page := self._letters("number > ? ORDER BY number LIMIT ?", (after, PAGE)):
            yield from page
            after = page[-1].number

    def of(self, sink: str, after: int, *, upto: int, limit: int) -> list[DeadLetter]:
        """A sink's dead letters with `after` < number <= `upto`, in order, at most `limit`."""
        condition = "sink = ? AND number > ? AND number <= ? AND due IS NULL ORDER BY number LIMIT ?"
        return self._letters(condition, (sink, after, upto, limit))

    def last(self, sink: str) -> int:
        """The number of a sink's last dead letter; 0: it has none."""
        sql = "SELECT ifnull(max(number), 0) FROM letters WHERE sink = ? AND due IS NULL"
        with self._lock:
            return int(self._database.execute(sql, (sink,)).fetchone()[0])

    def due(self, sink: str, now: int, limit: int) -> list[DeadLetter]:
        """What waits and is to be looked at by now (µs), the longest due first."""
        return self._letters("sink = ? AND due <= ? ORDER BY due LIMIT ?", (sink, now, limit))

    def postpone(self, until: Mapping[int, int]) -> None:
        """Lets letters wait (number → µs). All at once: each commit waits for the disk, and with it the sink's thread."""
        with self._lock, Transaction(self._database):
            sql = "UPDATE letters SET due = ?, tries = tries + 1 WHERE number = ? AND due IS NOT NULL"
            self._database.executemany(sql, [(due, number) for number, due in until.items()])

    def hasten(self, sink: str, request_ids: Sequence[str], due: int) -> None:
        """What waits for one of these requests is looked at already at `due` (µs)."""
        with self._lock, Transaction(self._database):
            for some in _some(request_ids):
                sql = f"UPDATE letters SET due = min(due, ?) WHERE due IS NOT NULL AND sink = ? AND {_among(some)}"
                self._database.execute(sql, (due, sink, *some))

    def records(self) -> dict[str, set[str]]:
        """For each sink the ids of the requests whose record it refused. Feedback that was refused says nothing of its
        request."""
        found: dict[str, set[str]] = {}
        sql = "SELECT sink, request_id FROM letters WHERE kind = ? AND due IS NULL"
        with self._lock:
            rows = self._database.execute(sql, (RECORD,)).fetchall()
        for sink, request_id in rows:
            found.setdefault(sink, set()).add(request_id)
        return found

    def remove(self, request_ids: Iterable[str]) -> int:
        """Deletes all letters of these requests, records and feedback, and returns how many there were."""
        gone = 0
        with self._lock, Transaction(self._database):
            for some in _some(list(request_ids)):
                gone += self._database.execute(f"DELETE FROM letters WHERE {_among(some)}", some).rowcount
        return gone

    def remove_numbers(self, numbers: Iterable[int]) -> int:
        """Deletes the letters of these numbers, and returns how many there were."""
        gone = 0
        with self._lock, Transaction(self._database):
            for number in numbers:
                gone += self._database.execute("DELETE FROM letters WHERE number = ?", (number,)).rowcount
        return gone

    def remove_upto(self, sink: str, number: int) -> int:
        """Deletes a sink's dead letters up to a number, and returns how many there were."""
        with self._lock, Transaction(self._database):
            sql = "DELETE FROM letters WHERE sink = ? AND number <= ? AND due IS NULL"
            return self._database.execute(sql, (sink, number)).rowcount

    def _count(self) -> tuple[int, int]:
        with self._lock:
            seen = (self._database.execute("PRAGMA data_version").fetchone()[0], self._database.total_changes)
            if self._counted != seen:
                dead = "SELECT count(*) FROM (SELECT DISTINCT segment, sequence FROM letters WHERE due IS NULL)"
                waiting = "SELECT count(*) FROM letters WHERE due IS NOT NULL"
                self._counts = (self._number(dead), self._number(waiting))
                self._counted = seen
            return self._counts

    def _number(self, sql: str) -> int:
        return int(self._database.execute(sql).fetchone()[0])

    def _letters(self, condition: str, parameters: Sequence[int | str]) -> list[DeadLetter]:
        sql = f"SELECT {COLUMNS}, number FROM letters WHERE {condition}"
        with self._lock:
            return [DeadLetter(*row) for row in self._database.execute(sql, parameters)]


class Letterbox:
    """A sink's dead letters as rows in the order of their numbers, so that it takes them as it takes a segment's, with a
    cursor of their own. Those there are when it is made: what is refused again is not tried for ever."""

    first = 1
    mended = False

    def __init__(self, dead: DeadLetters, sink: str) -> None:
        self.uid = f"dead-letters/{dead.uid}"
        self.last = dead.last(sink)
        self._dead = dead
        self._sink = sink

    def rows(self, after: int, *, limit: int = -1, upto: int | None = None) -> list[Row]:
        """As a segment's; a row's sequence is the letter's number, its time when it was buried."""
        upto = self.last if upto is None else min(upto, self.last)
        letters = self._dead.of(self._sink, after, upto=upto, limit=limit)
        return [Row(one.number, one.request_id, one.at, one.kind, one.body) for one in letters]


def _some(names: Sequence[str]) -> Iterator[Sequence[str]]:
    yield from (names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE))


def _among(names: Sequence[str]) -> str:
    return f"request_id IN ({', '.join('?' * len(names))})"
