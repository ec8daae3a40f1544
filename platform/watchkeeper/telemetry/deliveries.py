"""What has been delivered, and what is meant not to be: `ledger.sqlite` in the data folder.

The lake keeps its own cursors, in its transactions; here are those of sinks that cannot, the ids of segments that every
sink has (the segments themselves are gone by then), of requests that MLflow was spared, of those that were erased, and of
those that retention dropped.
Ids and times only, nothing that anybody wrote. Knows no sink by name.
"""

import sqlite3
import threading
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.telemetry.accounts import Account
from watchkeeper.telemetry.transaction import Transaction

LEDGER: Final = "ledger.sqlite"

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS cursors (sink TEXT, segment TEXT, sequence INTEGER NOT NULL, PRIMARY KEY (sink, segment));
CREATE TABLE IF NOT EXISTS accounts (segment TEXT PRIMARY KEY, retired_at INTEGER NOT NULL, account BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS sampled_out (request_id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS erased (request_id BLOB PRIMARY KEY, erased_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS expired (sink TEXT, request_id BLOB, PRIMARY KEY (sink, request_id)) WITHOUT ROWID;
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

    def advance(self, sink: str, segment: str, sequence: int, sampled_out: Iterable[str] = ()) -> None:
        """Moves a cursor, and in the same step notes what the sink was spared on the way there."""
        with self._lock, Transaction(self._database):
            self._database.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (sink, segment, sequence))
            self._add_sampled_out(sampled_out)

    def note_sampled_out(self, request_ids: Iterable[str]) -> None:
        """Notes requests of which MLflow gets no trace, by policy. Once more does no harm."""
        with self._lock, Transaction(self._database):
            self._add_sampled_out(request_ids)

    def spared(self, request_ids: Iterable[str]) -> set[str]:
        """Those of some ids that are noted as sampled out."""
        sql = "SELECT 1 FROM sampled_out WHERE request_id = ?"
        with self._lock:
            return {name for name in request_ids if self._database.execute(sql, (bytes.fromhex(name),)).fetchone()}

    def sampled_out(self) -> set[str]:
        """The ids noted by `note_sampled_out` and `advance`."""
        with self._lock:
            return {name.hex() for (name,) in self._database.execute("SELECT request_id FROM sampled_out")}

    def note_erased(self, request_ids: Iterable[str], at: int) -> None:
        """Notes requests that are erased everywhere (`at`: µs); the first time stays."""
        with self._lock, Transaction(self._database):
            sql = "INSERT OR IGNORE INTO erased VALUES (?, ?)"
            self._database.executemany(sql, ((bytes.fromhex(name), at) for name in request_ids))

    def erased(self) -> set[str]:
        """The ids noted by `note_erased`."""
        with self._lock:
            return {name.hex() for (name,) in self._database.execute("SELECT request_id FROM erased")}

    def note_expired(self, sink: str, request_ids: Iterable[str]) -> None:
        """Notes requests that retention drops from a sink. Once more does no harm."""
        with self._lock, Transaction(self._database):
            sql = "INSERT OR IGNORE INTO expired VALUES (?, ?)"
            self._database.executemany(sql, ((sink, bytes.fromhex(name)) for name in request_ids))

    def expired(self, sink: str) -> set[str]:
        """The ids noted by `note_expired`."""
        with self._lock:
            sql = "SELECT request_id FROM expired WHERE sink = ?"
            return {name.hex() for (name,) in self._database.execute(sql, (sink,))}

    def retire(self, account: Account, at: int) -> None:
        """Keeps the account of a segment that every sink has; once it is kept, the segment may go. `at`: µs."""
        row = (account.segment, at, _pack(account))
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)", row)

    def retired(self) -> Iterator[Account]:
        """The account of each retired segment, in the order in which they were retired."""
        with self._lock:
            names = [
                name for (name,) in self._database.execute("SELECT segment FROM accounts ORDER BY retired_at, segment")
            ]
        for name in names:
            with self._lock:
                row = self._database.execute("SELECT account FROM accounts WHERE segment = ?", (name,)).fetchone()
            yield _unpack(row[0])

    def among_retired(self, request_ids: Iterable[str]) -> set[str]:
        """Those of the ids that a retired segment holds. Reads 36 bytes for every request there ever was."""
        wanted = {name: bytes.fromhex(name) for name in request_ids}
        found: set[str] = set()
        with self._lock:
            for (body,) in self._database.execute("SELECT account FROM accounts") if wanted else ():
                packed = msgspec.msgpack.decode(body, type=_Packed)
                both = (packed.accepted, packed.spooled)
                found.update(name for name, raw in wanted.items() if any(_stands_in(raw, ids) for ids in both))
        return found

    def _add_sampled_out(self, request_ids: Iterable[str]) -> None:
        sql = "INSERT OR IGNORE INTO sampled_out VALUES (?)"
        self._database.executemany(sql, ((bytes.fromhex(name),) for name in request_ids))


def _stands_in(name: bytes, packed: bytes) -> bool:
    """Whether the id is one of those packed, and not merely bytes of two neighbours."""
    at = packed.find(name)
    while at > 0 and at % ID_BYTES:
        at = packed.find(name, at + 1)
    return at >= 0


class _Packed(msgspec.Struct, array_like=True):
    """An account in few bytes: sixteen for an id, four for an hour."""

    segment: str
    worker: str
    number: int
    accepted: bytes
    hours: bytes
    spooled: bytes
    accepts: tuple[int, int]
    rows: tuple[int, int]
    gaps: tuple[str, ...]


def _pack(account: Account) -> bytes:
    accepted, spooled = (bytes.fromhex("".join(names)) for names in (account.accepted, account.spooled))
    hours = array("I", account.hours).tobytes()
    packed = _Packed(
        account.segment,
        account.worker,
        account.number,
        accepted,
        hours,
        spooled,
        account.accepts,
        account.rows,
        account.gaps,
    )
    return msgspec.msgpack.encode(packed)


def _unpack(body: bytes) -> Account:
    packed = msgspec.msgpack.decode(body, type=_Packed)
    return Account(
        segment=packed.segment,
        worker=packed.worker,
        number=packed.number,
        accepted=_ids(packed.accepted),
        hours=array("I", packed.hours),
        spooled=_ids(packed.spooled),
        accepts=packed.accepts,
        rows=packed.rows,
        gaps=packed.gaps,
    )


def _ids(packed: bytes) -> list[str]:
    plain = packed.hex()
    return [plain[start : start + 2 * ID_BYTES] for start in range(0, len(plain), 2 * ID_BYTES)]
