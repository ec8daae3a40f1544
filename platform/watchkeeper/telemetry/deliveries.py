"""What has been delivered, and what never can be: `ledger.sqlite` and `dead_letters.jsonl` in the data folder.

The lake keeps its own cursors, in its transactions; here are those of sinks that cannot, the ids of segments that every
sink has (the segments themselves are gone by then), and the records that a sink refused, whole. Knows no sink by name.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.telemetry.segment import Segment

LEDGER: Final = "ledger.sqlite"
DEAD_LETTERS: Final = "dead_letters.jsonl"

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS cursors (sink TEXT, segment TEXT, sequence INTEGER NOT NULL, PRIMARY KEY (sink, segment));
CREATE TABLE IF NOT EXISTS retired (segment TEXT PRIMARY KEY, worker TEXT NOT NULL, number INTEGER NOT NULL,
    retired_at INTEGER NOT NULL, accepted BLOB NOT NULL, spooled BLOB NOT NULL);
"""
ID_BYTES: Final = 16


class Deliveries:
    """One data folder's ledger; may be used by many threads. With `writable` false nothing is made where there is none."""

    def __init__(self, data: Path, *, writable: bool = True) -> None:
        file = data / LEDGER
        self._lock = threading.Lock()
        self._database = sqlite3.connect(
            file if writable or file.exists() else ":memory:", isolation_level=None, check_same_thread=False, timeout=20
        )
        if writable:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.executescript(SCHEMA)

    def close(self) -> None:
        self._database.close()

    def cursor(self, sink: str, segment: str) -> int:
        """The last sequence number of a segment (its uid) that the sink has; 0: none."""
        with self._lock:
            sql = "SELECT sequence FROM cursors WHERE sink = ? AND segment = ?"
            row = self._database.execute(sql, (sink, segment)).fetchone()
        return int(row[0]) if row else 0

    def advance(self, sink: str, segment: str, sequence: int) -> None:
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (sink, segment, sequence))

    def retire(self, segment: Segment, accepted: Iterable[str], spooled: Iterable[str], at: int) -> None:
        """Keeps the ids of a segment that every sink has; once it is kept, the segment may go. `at`: µs."""
        row = (segment.uid, segment.worker, segment.number, at, _pack(accepted), _pack(spooled))
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO retired VALUES (?, ?, ?, ?, ?, ?)", row)

    def retired(self) -> Iterator[tuple[str, list[str], list[str]]]:
        """For each retired segment its uid, the ids of its accepts, and those of its records."""
        with self._lock:
            names = [name for (name,) in self._database.execute("SELECT segment FROM retired")]
        for name in names:
            with self._lock:
                sql = "SELECT accepted, spooled FROM retired WHERE segment = ?"
                accepted, spooled = self._database.execute(sql, (name,)).fetchone()
            yield name, _unpack(accepted), _unpack(spooled)


class DeadLetter(msgspec.Struct, frozen=True):
    """A record that a sink refused for what is in it. `body`: as it was spooled (base64 in the file); `at`: µs."""

    at: int
    sink: str
    reason: str
    segment: str
    sequence: int
    request_id: str
    kind: str
    body: bytes


def bury(data: Path, letters: Sequence[DeadLetter]) -> None:
    """Appends letters to the file; they are on the disk when it returns."""
    if not letters:
        return
    text = b"".join(msgspec.json.encode(letter) + b"\n" for letter in letters)
    descriptor = os.open(data / DEAD_LETTERS, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            text = b"\n" + text  # a crash tore the last line: it must not spoil this one
        while text:
            text = text[os.write(descriptor, text) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def dead_letters(data: Path) -> Iterator[DeadLetter]:
    """Every letter once, though a crash may have had it written twice. Torn lines are left out: they were written again."""
    seen: set[tuple[str, str, int]] = set()
    with contextlib.suppress(FileNotFoundError), (data / DEAD_LETTERS).open("rb") as lines:
        for line in lines:
            try:
                letter = msgspec.json.decode(line, type=DeadLetter)
            except msgspec.DecodeError:
                continue
            key = (letter.sink, letter.segment, letter.sequence)
            if key not in seen:
                seen.add(key)
                yield letter


def _pack(names: Iterable[str]) -> bytes:
    return b"".join(bytes.fromhex(name) for name in names)


def _unpack(packed: bytes) -> list[str]:
    return [packed[start : start + ID_BYTES].hex() for start in range(0, len(packed), ID_BYTES)]
