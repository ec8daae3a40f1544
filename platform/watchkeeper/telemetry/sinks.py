"""What a sink is, and the lake's, which gets rows. Each sink takes a segment on batch by batch; MLflow's: mlflow_sink.py.

The lake gets every record at least once and keeps it once: it refuses a batch that it has. Feedback travels in the same
batches, into a table of its own. What a sink cannot take for what is in it becomes a dead letter and does not hold up the
others. Knows nothing of threads, of waiting or of when a segment may go.
"""

import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec
import pyarrow as pa

from watchkeeper import feedback
from watchkeeper.lake.feedback import feedback_rows
from watchkeeper.lake.interactions import to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import roll_up_rows
from watchkeeper.record import Record, decode
from watchkeeper.telemetry.dead_letters import DeadLetter, DeadLetters
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.opinions import Said
from watchkeeper.telemetry.segment import ERASED, FEEDBACK, RECORD, UNSAID, Row, unanswered

MLFLOW: Final = "mlflow"
LAKE: Final = "lake"

TABLES: Final = ("interactions", "rollups")
"""In the order in which a batch is appended to them; it is there when it is in all of them."""

SAID: Final = "feedback"
"""The table that a batch is appended to before them, if it holds feedback: most hold none, and no commit is made then."""


class SinkUnavailable(Exception):
    """The sink is away, or takes nothing at all: try again later. The message is one line."""


class Tray(Protocol):
    """Rows in a fixed order, for a sink to take: a segment of the spool, or a sink's dead letters."""

    @property
    def uid(self) -> str:
        """Never given twice, anywhere: cursors stand under it."""
        ...

    @property
    def first(self) -> int:
        """The lowest sequence number that it may hold."""
        ...

    @property
    def last(self) -> int: ...

    @property
    def mended(self) -> bool:
        """Whether the sink may have some of its rows already, under another uid."""
        ...

    def rows(self, after: int, *, limit: int = -1, upto: int | None = None) -> list[Row]:
        """Those with `after` < sequence <= `upto`, in order, at most `limit`."""
        ...


class Progress:
    """How far a sink has come in each tray, where the ledger keeps it for a sink that cannot."""

    def __init__(self, deliveries: Deliveries, sink: str) -> None:
        self._deliveries = deliveries
        self._sink = sink
        self._positions: dict[str, int] = {}

    def position(self, tray: Tray) -> int:
        if tray.uid not in self._positions:
            found = self._deliveries.cursor(self._sink, tray.uid)
            self._positions[tray.uid] = max(found, tray.first - 1)
        return self._positions[tray.uid]

    def advance(self, tray: Tray, sequence: int, sampled_out: Iterable[str] = ()) -> None:
        """In one step with what the sink was spared on the way there."""
        self._deliveries.advance(self._sink, tray.uid, sequence, sampled_out)
        self._positions[tray.uid] = sequence


class Sink(Protocol):
    """`limit`: most rows of a batch. `linger_s`: how long it is worth waiting for a batch to fill."""

    name: str
    limit: int
    linger_s: float

    def position(self, tray: Tray) -> int:
        """The sequence number up to which the sink has the tray's rows, or they are dead letters."""
        ...

    def step(self, tray: Tray) -> int:
        """Delivers the next batch and returns the number of its rows; 0: there is none. Raises anything when it could not,
        and may then be called again."""
        ...

    def tend(self) -> None:
        """Does what is due besides. Raises as `step` does."""
        ...


Made = tuple[Row, Record]


class Decoded(NamedTuple):
    """The rows of a batch by what they are; `refused`: those that are nothing known here."""

    records: list[Made]
    said: list[Said]
    refused: list[tuple[Row, str]]


class Dropped:
    """Where a sink puts what it cannot take, or not yet."""

    def __init__(self, store: DeadLetters, sink: str, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self._sink = sink
        self._clock = clock

    def __call__(self, tray: Tray, refused: Sequence[tuple[Row, str]]) -> None:
        """Keeps rows and why they were refused; on the disk when it returns."""
        self.store.bury([self._letter(tray, row, reason) for row, reason in refused])

    def wait(self, tray: Tray, rows: Sequence[Row], reason: str, due: int) -> None:
        """Keeps rows that are looked at again (µs). On the disk when it returns."""
        letters = [self._letter(tray, row, reason) for row in rows]
        self.store.bury([msgspec.structs.replace(letter, due=due) for letter in letters])

    def _letter(self, tray: Tray, row: Row, reason: str) -> DeadLetter:
        at = int(self._clock() * 1e6)
        return DeadLetter(at, self._sink, reason, tray.uid, row.sequence, row.request_id, row.kind, row.body)


class RefusedAgain(Dropped):
    """The same for letters that are sent again: they are there already. `letters`: those that stay, and why."""

    def __init__(self, store: DeadLetters, sink: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(store, sink, clock)
        self.letters: list[tuple[Row, str]] = []

    def __call__(self, tray: Tray, refused: Sequence[tuple[Row, str]]) -> None:
        at = int(self._clock() * 1e6)
        self.store.refused_again([(row.sequence, reason) for row, reason in refused], at)
        self.letters.extend(refused)


def decoded(rows: Sequence[Row]) -> Decoded:
    """Rows → what is in them."""
    batch = Decoded([], [], [])
    for row in rows:
        try:
            if row.kind == RECORD:
                batch.records.append((row, decode(row.body)))
            elif row.kind == FEEDBACK:
                batch.said.append((row, feedback.decode(row.body)))
            elif row.kind not in (ERASED, UNSAID):
                batch.refused.append((row, f"not a kind that is known here: {row.kind}"))
        except (msgspec.DecodeError, ValueError) as error:
            batch.refused.append((row, f"not a {row.kind}: {error}"))
    return batch


class LakeSink:
    """The lake. Its cursors are in it: each table notes, in the commit that appends a batch, up to which row of the segment
    it has come. After a crash between two tables, the second gets the very batch that the first has."""

    name = LAKE
    linger_s = 2.0
    """Every batch is a file in each table, and a commit costs 20 ms however small it is."""

    def __init__(self, lake: Lake, dropped: Dropped, *, limit: int = 4000) -> None:
        self.limit = limit
        self._lake = lake
        self._dropped = dropped
        self._done: dict[str, dict[str, int]] = {}

    def position(self, tray: Tray) -> int:
        if tray.uid not in self._done:
            said = self._lake.transaction_version(SAID, tray.uid) or 0
            self._done[tray.uid] = {SAID: said, **lake_positions(self._lake, tray)}
        return min(self._done[tray.uid][table] for table in TABLES)

    def step(self, tray: Tray) -> int:
        begun = self.position(tray)
        done = self._done[tray.uid]
        half = max(done.values())
        # Of a batch that some tables have, the others get what is left of it: letters may have been removed since.
        rows = tray.rows(begun, upto=half) if half > begun else tray.rows(begun, limit=self.limit)
        if not rows and half == begun:
            return 0
        version = half if half > begun else rows[-1].sequence
        batch = decoded(rows)
        if tray.mended and half == begun:
            batch = self._without_known(batch)
        tables = self._tables(batch.records, batch.refused)
        if batch.said:
            tables = {SAID: feedback_rows([said for _, said in batch.said]), **tables}
        self._dropped(tray, batch.refused)
        try:
            for table in tables:
                if done[table] < version:
                    self._lake.append(table, tables[table], app_id=tray.uid, version=version)
                    done[table] = version
        except BaseException:
            del self._done[tray.uid]  # it may have been appended all the same: ask the lake
            raise
        return max(1, len(rows))

    def _without_known(self, batch: Decoded) -> Decoded:
        """The batch without what the lake has already."""
        sql = "SELECT request_id FROM interactions WHERE request_id IN (SELECT unnest(?))"
        there = self._known(sql, [record.request_id for _, record in batch.records])
        said = "SELECT feedback_id FROM feedback WHERE feedback_id IN (SELECT unnest(?))"
        told = self._known(said, [one.feedback_id for _, one in batch.said])
        records = [made for made in batch.records if made[1].request_id not in there]
        return Decoded(records, [one for one in batch.said if one[1].feedback_id not in told], batch.refused)

    def _known(self, sql: str, names: list[str]) -> set[str]:
        return set(self._lake.query(sql, [names]).column(0).to_pylist()) if names else set()

    def tend(self) -> None:
        """Nothing waits here."""

    def _tables(self, made: list[Made], refused: list[tuple[Row, str]]) -> dict[str, pa.Table]:
        """The batch as rows of each table. Records of which no rows can be made go to `refused`, from all tables alike."""
        try:
            return _rows_of(made)
        except Exception as error:
            if len(made) == 1:
                refused.append((made[0][0], f"no rows can be made of it: {defect(error)}"))
                return _rows_of([])
        good: list[Made] = []
        for one in made:
            before = len(refused)
            self._tables([one], refused)
            if len(refused) == before:
                good.append(one)
        return _rows_of(good)


def _rows_of(made: Sequence[Made]) -> dict[str, pa.Table]:
    rows = to_arrow([record for _, record in made])
    return {"interactions": rows, "rollups": roll_up_rows(rows)}


def lake_positions(lake: Lake, tray: Tray) -> dict[str, int]:
    """For each of `TABLES` the sequence number up to which it has the tray's rows."""
    return {table: max(lake.transaction_version(table, tray.uid) or 0, tray.first - 1) for table in TABLES}


def refused_record(record: Record) -> Record:
    """What stands for a record that was refused: how its request went, and nothing that anybody wrote."""
    failed = record.error is not None or record.status >= 500
    bare = unanswered(record.request_id, record.received_at, "refused", record.status)
    return msgspec.structs.replace(bare, error=bare.error if failed else None, tags={"refused_by_mlflow": "true"})


def defect(error: Exception) -> str:
    """An error that is not ours, by its place: its message may hold what somebody wrote."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {place.name}, line {place.lineno} of {Path(place.filename).name}"
