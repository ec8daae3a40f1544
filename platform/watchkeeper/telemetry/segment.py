"""Segments: the SQLite files of which a spool is made, and who may write them.

    <spool>/<worker>/lock             locked (flock) for as long as the worker lives
    <spool>/<worker>/<number>.sqlite  WAL; only the newest is written, by the worker alone

An accept that has no record yet is carried into the next segment in the transaction that makes it. So the newest segment
holds every open accept of its worker, an accept and its record are always found together in one segment, and what a dead
worker left open is known from one file. An id may therefore stand among the accepts of several segments; its record stands
in one. Feedback stands in the same rows and the same sequence, told apart by its kind: it is never the record of the
request that it speaks of. Knows nothing of where rows go. Standard library and msgspec only: the gateway loads this.
"""

import contextlib
import re
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

import msgspec

from watchkeeper.record import Record, encode

Durability = Literal["process", "power"]

LOCK: Final = "lock"

BUSY_S: Final = 5.0
"""How long it is waited for somebody else's transaction."""

RECORD: Final = "record"
"""The kind of row whose body is a `Record`."""

FEEDBACK: Final = "feedback"
"""The kind of row whose body is a `Feedback`; its request id is that of the answer it speaks of."""

ERASED: Final = "erased"
"""What is left of an erased record: an empty body. It is still the record of its request, and no sink takes it."""

UNSAID: Final = "unsaid"
"""What is left of erased feedback, likewise. Rows are never deleted: their sequence has no gaps."""

IS_RECORD: Final = f"kind IN ('{RECORD}', '{ERASED}')"
"""SQL: the row is its request's record."""

ID: Final = re.compile(r"[0-9a-f]{32}")
"""Of a request, and of a segment."""

# PRAGMA user_version says how far a file has come; SQLite sets it to 0.
UNBORN: Final = 0
OPEN: Final = 1
SEALED: Final = 2
MENDED: Final = 3
"""Sealed, and made of what was whole in a torn file: sinks may have its rows, under the uid of that one."""

SCHEMA: Final = (
    "CREATE TABLE segment (uid TEXT NOT NULL, accepted INTEGER NOT NULL, records INTEGER NOT NULL)",
    "CREATE TABLE accepted (sequence INTEGER PRIMARY KEY, request_id TEXT NOT NULL, received_at INTEGER NOT NULL)",
    """CREATE TABLE records (sequence INTEGER PRIMARY KEY, request_id TEXT NOT NULL, received_at INTEGER NOT NULL,
        kind TEXT NOT NULL, body BLOB NOT NULL)""",
)
ADD_ACCEPT: Final = "INSERT INTO accepted VALUES (?, ?, ?)"
ADD_RECORD: Final = "INSERT INTO records VALUES (?, ?, ?, ?, ?)"
UNANSWERED: Final = (
    "SELECT request_id, received_at FROM accepted "
    f"WHERE request_id NOT IN (SELECT request_id FROM records WHERE {IS_RECORD})"
)


TORN_CODES: Final = frozenset(
    {
        *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR),
        *(sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG),
    }
)
"""What SQLite says of a file that is no (whole) database: also that a table is not there, or holds what it cannot hold. All
else may pass."""


class SegmentUnreadable(Exception):
    """The file cannot be read, now or ever: the message is one line."""


class SegmentTorn(SegmentUnreadable):
    """What stands in the file is not whole, and never will be. `why`: the message without the path."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.why = why


class Tail(msgspec.Struct, frozen=True):
    """The last sequence numbers that a worker has used. Those of its rows have no gaps, whatever kind they are."""

    accepted: int = 0
    records: int = 0


class Row(msgspec.Struct, frozen=True):
    """One record or feedback as it was spooled. `received_at`: µs since the epoch."""

    sequence: int
    request_id: str
    received_at: int
    kind: str
    body: bytes


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """One file as it was found. `uid`: never given twice, anywhere. `first`, `last`: the sequence numbers of its rows,
    where `last` is `first - 1` while it has none. `sealed`: nothing is written to it any more, and `last` is final.
    `mended`: some of its rows may have been delivered already, under another uid."""

    path: Path
    worker: str
    number: int
    uid: str
    first: int
    last: int
    sealed: bool
    mended: bool = False

    @property
    def spool(self) -> Path:
        """The spool folder that it is part of."""
        return self.path.parent.parent

    def rows(self, after: int, *, limit: int = -1, upto: int | None = None) -> list[Row]:
        """Rows with `after` < sequence <= `upto`, in order, at most `limit`; of a torn file those before the tear.

        Raises `SegmentUnreadable`, and `FileNotFoundError` once the segment is retired.
        """
        found: list[Row] = []
        last = after  # of a damaged tree SQLite may give anything, also the same rows for ever
        sql = "SELECT * FROM records WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?"
        with reading(self.path) as database:
            try:
                for row in database.execute(sql, (after, self.last if upto is None else upto, limit)):
                    if not (row[0] > last and _is_row(row)):
                        raise SegmentTorn(self.path, "its rows are no rows, or out of order")
                    found.append(Row(*row))
                    last = row[0]
            except (sqlite3.DatabaseError, UnicodeDecodeError, SegmentTorn):
                if not found:
                    raise
        return found

    def ids(self) -> tuple[list[str], list[tuple[int, str]]]:
        """The ids of its accepts, and sequence and id of its records, at one moment. Raises as `rows` does."""
        with reading(self.path) as database:
            accepted = [name for (name,) in database.execute("SELECT request_id FROM accepted ORDER BY sequence")]
            sql = f"SELECT sequence, request_id FROM records WHERE {IS_RECORD} ORDER BY sequence"
            records = database.execute(sql).fetchall()
        if not all(map(_is_id, (*accepted, *(name for _, name in records)))):
            raise SegmentTorn(self.path, "its ids are no ids")
        return accepted, records

    def count(self, after: int) -> int:
        """How many records come after `after`. Raises as `rows` does."""
        with reading(self.path) as database:
            sql = f"SELECT count(*) FROM records WHERE sequence > ? AND {IS_RECORD}"
            return int(database.execute(sql, (after,)).fetchone()[0])

    def records_of(self, request_ids: Iterable[str], after: int) -> list[Row]:
        """The records of these requests that come after `after`, in order. Raises as `rows` does."""
        names = list(request_ids)
        marks = ", ".join("?" * len(names))
        sql = f"SELECT * FROM records WHERE sequence > ? AND kind = ? AND request_id IN ({marks}) ORDER BY sequence"
        with reading(self.path) as database:
            return [Row(*row) for row in database.execute(sql, (after, RECORD, *names))]

    def oldest(self, after: int) -> int | None:
        """When the oldest request was received whose record comes after `after`, or, unless sealed, is still to come."""
        queries = [f"SELECT min(received_at) FROM records WHERE {IS_RECORD} AND sequence > {int(after)}"]
        if not self.sealed:  # else it was carried on, and is seen there
            queries.append(f"SELECT min(received_at) FROM ({UNANSWERED})")
        with reading(self.path) as database:
            times = [database.execute(query).fetchone()[0] for query in queries]
        return min((found for found in times if found is not None), default=None)

    def remove(self) -> None:
        """Deletes a sealed segment. The file that names it goes in one step, after it has taken in what its log holds."""
        with contextlib.suppress(sqlite3.Error, OSError), contextlib.closing(_connect(self.path)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.path.unlink(missing_ok=True)
        _remove_logs(self.path)


class Found(msgspec.Struct, frozen=True):
    """What stands in a spool folder. `unreadable`: path → why, also of files that were torn, and mended, until somebody
    takes them away. `torn`: those yet to be mended, and why."""

    segments: tuple[Segment, ...]
    unreadable: dict[str, str]
    torn: dict[Path, str] = {}


def segments(folder: Path) -> Found:
    """All segments under a spool folder, by worker and number."""
    found: list[Segment] = []
    unreadable: dict[str, str] = {}
    torn: dict[Path, str] = {}
    for worker in workers(folder):
        unreadable |= {str(path): note(path) for path in worker.glob("*.torn")}
        superseded = False
        # Newest first: once a newer segment is there nothing is added to an older one, so what is read of it now is all.
        for path in reversed(paths(worker)):
            try:
                segment = _look(path, superseded)
            except FileNotFoundError:
                continue  # retired since the folder was listed
            except SegmentUnreadable as error:
                unreadable[str(path)] = str(error)
                if isinstance(error, SegmentTorn):
                    torn[path] = error.why
                superseded = True
                continue
            if segment is not None:
                found.append(segment)
                superseded = True
    return Found(tuple(sorted(found, key=lambda segment: (segment.worker, segment.number))), unreadable, torn)


def note(torn: Path) -> str:
    """What is told of a file that was torn and is mended."""
    try:
        return torn.with_suffix(".torn.txt").read_text(encoding="utf-8")
    except OSError:
        return "torn; what was whole in it goes on"


def unfinished(folder: Path) -> set[str]:
    """The ids of all requests under a spool folder that were accepted and whose record is still to come."""
    found: set[str] = set()
    for segment in segments(folder).segments:
        if not segment.sealed:  # what an older one left open was carried into the newest
            with contextlib.suppress(SegmentUnreadable, FileNotFoundError), reading(segment.path) as database:
                found.update(name for name, _ in database.execute(UNANSWERED))
    return found


def workers(folder: Path) -> list[Path]:
    """The folders of all workers under a spool folder."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def paths(worker: Path) -> list[Path]:
    """The files of a worker's segments, oldest first."""
    return sorted((path for path in worker.glob("*.sqlite") if path.stem.isdigit()), key=lambda path: int(path.stem))


def _look(path: Path, superseded: bool) -> Segment | None:
    """The segment at `path`; None while it is being made."""
    with reading(path) as database:
        state = _state(database)
        if state == UNBORN:
            return None
        row = database.execute("SELECT * FROM segment").fetchone()
        if row is None:
            raise SegmentTorn(path, "it does not say which it is")
        uid, _, before = row
        return Segment(
            path=path,
            worker=path.parent.name,
            number=int(path.stem),
            uid=uid,
            first=before + 1,
            last=_tail(database).records,
            sealed=superseded or state != OPEN,
            mended=state == MENDED,
        )


def _is_id(name: object) -> bool:
    return isinstance(name, str) and ID.fullmatch(name) is not None


def _is_row(row: Sequence[object]) -> bool:
    _, name, at, kind, body = row
    return _is_id(name) and isinstance(at, int) and isinstance(kind, str) and isinstance(body, bytes)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """One moment of a segment, read only. Raises `SegmentUnreadable`, `FileNotFoundError`."""
    _look_at_size(path)
    try:
        with contextlib.closing(_connect(path)) as database:
            database.execute("PRAGMA query_only = 1")
            database.execute("BEGIN")
            yield database
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if not path.exists():
            raise FileNotFoundError(str(path)) from error
        raise _unreadable(path, error) from error


def _look_at_size(path: Path) -> None:
    """An empty file with a log was cut off, and SQLite would delete the log; one whose log is put aside was being mended.
    Raises `SegmentTorn`, `FileNotFoundError`."""
    if path.stat().st_size == 0:
        for log in (path.with_name(f"{path.name}-wal"), path.with_name(f"{path.stem}.torn-wal")):
            with contextlib.suppress(FileNotFoundError):
                if log.stat().st_size:
                    raise SegmentTorn(path, "the file is empty")


def _unreadable(path: Path, error: sqlite3.Error | UnicodeDecodeError) -> SegmentUnreadable:
    if isinstance(error, UnicodeDecodeError):
        return SegmentTorn(path, "a text in it is none")
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in TORN_CODES:
        return SegmentTorn(path, str(error))
    return SegmentUnreadable(f"{path}: {error}")


def span(path: Path) -> tuple[Tail, Tail]:
    """What a segment followed on, and its last numbers. Raises as `reading` does."""
    with reading(path) as database:
        row = database.execute("SELECT accepted, records FROM segment").fetchone()
        if row is None:
            raise SegmentTorn(path, "it does not say which it is")
        return Tail(*row), _tail(database)


def accepted_in(path: Path) -> set[str]:
    """The ids of a segment's accepts. Raises as `reading` does."""
    with reading(path) as database:
        return {name for (name,) in database.execute("SELECT request_id FROM accepted")}


def create(
    path: Path, durability: Durability, tail: Tail, carried: Iterable[tuple[int, str, int]] = ()
) -> sqlite3.Connection:
    """Makes the segment that follows on `tail`, with the accepts carried into it. Leaves no file when it fails."""
    _remove_logs(path)  # a log that outlived its file would be read into the new one
    try:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA secure_delete = ON")  # else what is erased may live on in a page's free bytes
            # NORMAL: a commit is in the system's hands and survives us. FULL: it is on the disk.
            database.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
            with Transaction(database):
                for statement in SCHEMA:
                    database.execute(statement)
                database.execute("INSERT INTO segment VALUES (?, ?, ?)", (uuid.uuid4().hex, tail.accepted, tail.records))
                database.executemany(ADD_ACCEPT, carried)
                database.execute(f"PRAGMA user_version = {OPEN}")
        except BaseException:
            database.close()
            raise
    except (sqlite3.Error, OSError):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            _remove_logs(path)
        raise
    return database


class Transaction:
    """All or nothing. (A generator of contextlib's would take as long as a row does.)"""

    __slots__ = ("_database",)

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            try:
                self._database.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        else:
            self._roll_back()

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._database.execute("ROLLBACK")


def write(
    database: sqlite3.Connection,
    accepts: Sequence[tuple[int, str, int]],
    records: Sequence[tuple[int, str, int, str, bytes]],
) -> bool:
    """Adds rows in one transaction, and returns True; False where the segment may not be written any more."""
    with Transaction(database):
        if not is_open(database):  # asked in here, as alone it would be a transaction more
            return False
        database.executemany(ADD_ACCEPT, accepts)
        database.executemany(ADD_RECORD, records)
    return True


def seal(database: sqlite3.Connection, worker: str) -> int:
    """Ends a worker's newest segment: each open accept gets its record, `interrupted`, and no more is written.

    One transaction, so that it happens once however often it is tried. Returns how many requests were interrupted.
    """
    with Transaction(database):
        if _state(database) != OPEN:
            return 0
        opened = database.execute(UNANSWERED).fetchall()
        sequence = _tail(database).records
        for request_id, received_at in opened:
            sequence += 1
            body = encode(unanswered(request_id, received_at, "interrupted", 500, replica=worker))
            database.execute(ADD_RECORD, (sequence, request_id, received_at, RECORD, body))
        database.execute(f"PRAGMA user_version = {SEALED}")
    return len(opened)


def supersede(database: sqlite3.Connection) -> None:
    """Ends a segment whose open accepts the next one carries."""
    database.execute(f"PRAGMA user_version = {SEALED}")


def unanswered(request_id: str, received_at: int, error: str, status: int, *, replica: str = "") -> Record:
    """The record of a request of which nothing but its acceptance is known."""
    return Record(request_id=request_id, received_at=received_at, release="", replica=replica, error=error, status=status)


def end(path: Path) -> int | None:
    """Seals a segment, for who holds its worker's lock; returns how many requests were interrupted. None: it was never
    born, and is gone. Raises `SegmentTorn`, and `sqlite3.Error` when it cannot be done now."""
    try:
        _look_at_size(path)
        with contextlib.closing(_connect(path)) as database:
            if _state(database) != UNBORN:
                return seal(database, path.parent.name)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        unreadable = _unreadable(path, error)
        if isinstance(unreadable, SegmentTorn):
            raise unreadable from error
        raise
    path.unlink()
    _remove_logs(path)
    return None


def newest(worker: Path) -> tuple[int, Tail]:
    """Number and tail of a worker's newest segment. An unreadable one counts, but the tail is then an older one's."""
    files = paths(worker)
    for path in reversed(files):
        try:
            with reading(path) as database:
                return int(files[-1].stem), _tail(database)
        except SegmentUnreadable:
            continue
    return (int(files[-1].stem) if files else 0), Tail()


def _connect(path: Path) -> sqlite3.Connection:
    """A connection to a file that is there (none is made), readable whoever wrote it last and however that ended."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=BUSY_S)


def is_open(database: sqlite3.Connection) -> bool:
    """Whether the segment may still be written."""
    return _state(database) == OPEN


def _state(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _tail(database: sqlite3.Connection) -> Tail:
    return Tail(
        *database.execute(
            "SELECT max(accepted, ifnull((SELECT max(sequence) FROM accepted), 0)), "
            "ifnull((SELECT max(sequence) FROM records), records) FROM segment"
        ).fetchone()
    )


def _remove_logs(path: Path) -> None:
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
