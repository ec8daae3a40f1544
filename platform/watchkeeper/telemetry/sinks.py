"""The sinks: MLflow, which gets records as OTLP, and the lake, which gets rows. Each takes a segment on batch by batch.

Both get every record at least once and keep it once: MLflow overwrites a trace with itself, the lake refuses a batch that
it has. Feedback travels in the same batches: into the lake as rows, into MLflow as assessments (opinions.py). What a sink
cannot take for what is in it becomes a dead letter and does not hold up the others. Knows nothing of threads, of waiting or
of when a segment may go.
"""

import contextlib
import time
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec
import pyarrow as pa
import requests

from watchkeeper import feedback
from watchkeeper.lake.feedback import feedback_rows
from watchkeeper.lake.interactions import to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import roll_up_rows
from watchkeeper.record import Record, decode
from watchkeeper.telemetry.dead_letters import DeadLetter, DeadLetters
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.opinions import Opinions, Said
from watchkeeper.telemetry.otlp import export_request
from watchkeeper.telemetry.segment import (
    FEEDBACK,
    RECORD,
    Row,
    Segment,
    SegmentUnreadable,
    segments,
    unanswered,
    unfinished,
)
from watchkeeper.tracking import Tracking

MLFLOW: Final = "mlflow"
LAKE: Final = "lake"

TABLES: Final = ("interactions", "rollups")
"""In the order in which a batch is appended to them; it is there when it is in all of them."""

SAID: Final = "feedback"
"""The table that a batch is appended to before them, if it holds feedback: most hold none, and no commit is made then."""

AWAY: Final = frozenset({401, 403, 404, 407, 408, 425, 429, 502, 503, 504})
"""HTTP answers that say something of the server or of our set-up, and nothing of what we sent."""

TIMEOUT_S: Final = (5.0, 120.0)
"""To connect, and between two bytes of the answer: MLflow on SQLite may wait 20 s for its lock."""


class SinkUnavailable(Exception):
    """The sink is away, or takes nothing at all: try again later. The message is one line."""


class Sink(Protocol):
    """`limit`: most records of a batch. `linger_s`: how long it is worth waiting for a batch to fill."""

    name: str
    limit: int
    linger_s: float

    def position(self, segment: Segment) -> int:
        """The sequence number up to which the sink has the segment's rows, or they are dead letters."""
        ...

    def step(self, segment: Segment) -> int:
        """Delivers the next batch and returns the number of its rows; 0: there is none, or not yet. Raises anything when
        it could not, and may then be called again."""
        ...


Made = tuple[Row, Record]


class Decoded(NamedTuple):
    """The rows of a batch by what they are; `refused`: those that are nothing known here."""

    records: list[Made]
    said: list[Said]
    refused: list[tuple[Row, str]]


class Dropped:
    """Where a sink puts what it cannot take."""

    def __init__(self, dead: DeadLetters, sink: str, clock: Callable[[], float] = time.time) -> None:
        self._dead = dead
        self._sink = sink
        self._clock = clock

    def __call__(self, segment: Segment, refused: Sequence[tuple[Row, str]]) -> None:
        """Keeps rows and why they were refused; on the disk when it returns."""
        at = int(self._clock() * 1e6)
        letters = [
            DeadLetter(at, self._sink, reason, segment.uid, row.sequence, row.request_id, row.kind, row.body)
            for row, reason in refused
        ]
        self._dead.bury(letters)


def _decoded(rows: Sequence[Row]) -> Decoded:
    batch = Decoded([], [], [])
    for row in rows:
        try:
            if row.kind == RECORD:
                batch.records.append((row, decode(row.body)))
            elif row.kind == FEEDBACK:
                batch.said.append((row, feedback.decode(row.body)))
            else:
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

    def position(self, segment: Segment) -> int:
        if segment.uid not in self._done:
            said = self._lake.transaction_version(SAID, segment.uid) or 0
            self._done[segment.uid] = {SAID: said, **lake_positions(self._lake, segment)}
        return min(self._done[segment.uid][table] for table in TABLES)

    def step(self, segment: Segment) -> int:
        begun = self.position(segment)
        done = self._done[segment.uid]
        half = max(done.values())
        rows = segment.rows(begun, upto=half) if half > begun else segment.rows(begun, limit=self.limit)
        if not rows:
            return 0
        batch = _decoded(rows)
        tables = self._tables(batch.records, batch.refused)
        if batch.said:
            tables = {SAID: feedback_rows([said for _, said in batch.said]), **tables}
        self._dropped(segment, batch.refused)
        version = rows[-1].sequence
        try:
            for table in tables:
                if done[table] < version:
                    self._lake.append(table, tables[table], app_id=segment.uid, version=version)
                    done[table] = version
        except BaseException:
            del self._done[segment.uid]  # it may have been appended all the same: ask the lake
            raise
        return len(rows)

    def _tables(self, made: list[Made], refused: list[tuple[Row, str]]) -> dict[str, pa.Table]:
        """The batch as rows of each table. Records of which no rows can be made go to `refused`, from all tables alike."""
        try:
            return _rows_of(made)
        except Exception as error:
            if len(made) == 1:
                refused.append((made[0][0], f"no rows can be made of it: {error}"))
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


def lake_positions(lake: Lake, segment: Segment) -> dict[str, int]:
    """For each of `TABLES` the sequence number up to which it has the segment's rows."""
    return {table: max(lake.transaction_version(table, segment.uid) or 0, segment.first - 1) for table in TABLES}


class _Refused(Exception):
    """The batch was refused. `ours`: before it was sent."""

    def __init__(self, reason: str, *, ours: bool) -> None:
        super().__init__(reason)
        self.ours = ours


class MlflowSink:
    """MLflow, by OTLP over HTTP. `experiment_id` looks the experiment up, and raises while it cannot."""

    name = MLFLOW
    linger_s = 0.25

    def __init__(
        self,
        uri: str,
        experiment_id: Callable[[], str],
        deliveries: Deliveries,
        dropped: Dropped,
        *,
        limit: int = 200,
    ) -> None:
        self.limit = limit
        self._batch = limit
        self._url = f"{uri}/v1/traces"
        self._find_experiment = experiment_id
        self._experiment: str | None = None
        self._deliveries = deliveries
        self._dropped = dropped
        self._session = requests.Session()
        self._positions: dict[str, int] = {}
        self._opinions = Opinions(Tracking(uri))

    def position(self, segment: Segment) -> int:
        if segment.uid not in self._positions:
            found = self._deliveries.cursor(self.name, segment.uid)
            self._positions[segment.uid] = max(found, segment.first - 1)
        return self._positions[segment.uid]

    def step(self, segment: Segment) -> int:
        rows = _finished(segment, segment.rows(self.position(segment), limit=self._batch))
        if not rows:
            return 0
        batch = _decoded(rows)
        self._deliver(batch.records, batch.refused)
        if batch.said:
            missing = self._opinions.without_trace(batch.said)
            if missing and self._deliver_early(segment.spool, missing):
                self._opinions.without_trace(batch.said)
            batch.refused.extend(self._opinions.attach(batch.said))
        self._dropped(segment, batch.refused)
        self._deliveries.advance(self.name, segment.uid, rows[-1].sequence)
        self._positions[segment.uid] = rows[-1].sequence
        return len(rows)

    def _deliver(self, made: Sequence[Made], refused: list[tuple[Row, str]]) -> None:
        """Sends a batch; of one that is refused its halves, down to the records that are the cause."""
        if not made:
            return
        try:
            self._send([record for _, record in made])
        except _Refused as refusal:
            if len(made) > 1:
                half = len(made) // 2
                self._deliver(made[:half], refused)
                self._deliver(made[half:], refused)
            else:
                self._make_sure(made[0][1], refusal)
                refused.append((made[0][0], str(refusal)))

    def _deliver_early(self, spool: Path, request_ids: Set[str]) -> bool:
        """Sends records whose turn has not come, in whatever segment they are, so that no segment waits for another. They
        come once more in their turn, and what is refused is put aside then. What had its turn and is not there is not sent
        again: it was refused, or deleted since. Whether there were any."""
        early: list[Row] = []
        for segment in segments(spool).segments:
            with contextlib.suppress(SegmentUnreadable, FileNotFoundError):
                early += segment.records_of(request_ids, self.position(segment))
        for start in range(0, len(early), self._batch):
            self._deliver(_decoded(early[start : start + self._batch]).records, [])
        return bool(early)

    def _make_sure(self, record: Record, refusal: _Refused) -> None:
        """A server that is out of order may refuse everything (MLflow answers 422 to failures of its own), and then no
        record is to blame. So the same trace is sent with nothing in it: only if that is taken was it the content. It
        stays, to say in the UI what became of the request."""
        if refusal.ours:
            return
        try:
            self._send([unanswered(record.request_id, record.received_at, "refused_by_mlflow", record.status)])
        except _Refused as again:
            raise self._away(f"takes no trace at all: {again}") from refusal

    def _send(self, records: Sequence[Record]) -> None:
        try:
            body = export_request(records)
        except Exception as error:
            raise _Refused(f"cannot be written as OTLP: {error}", ours=True) from error
        if self._experiment is None:
            self._experiment = self._find_experiment()
        headers = {"content-type": "application/x-protobuf", "x-mlflow-experiment-id": self._experiment}
        try:
            response = self._session.post(self._url, data=body, headers=headers, timeout=TIMEOUT_S)
        except requests.Timeout as error:
            self._batch = max(1, self._batch // 2)  # it may just be too much at a time
            raise self._away(f"did not answer in time: {error}") from error
        except requests.RequestException as error:
            raise self._away(f"cannot be reached: {error}") from error
        if response.status_code in AWAY:
            raise self._away(f"HTTP {response.status_code} {_line(response)}")
        if response.status_code >= 300:
            raise _Refused(f"HTTP {response.status_code} {_line(response)}", ours=False)
        self._batch = min(self.limit, self._batch * 2)

    def _away(self, what: str) -> SinkUnavailable:
        """The experiment may be another when the server is back."""
        self._experiment = None
        return SinkUnavailable(f"{self._url}: {what}")


def _finished(segment: Segment, rows: list[Row]) -> list[Row]:
    """The rows before the first feedback on a request that is still being answered: its record will come, wherever, and
    then so does the feedback. Only one segment waits, and only for a gateway."""
    if all(row.kind != FEEDBACK for row in rows):
        return rows
    waiting = unfinished(segment.spool)
    until = (at for at, row in enumerate(rows) if row.kind == FEEDBACK and row.request_id in waiting)
    return rows[: next(until, len(rows))]


def _line(response: requests.Response) -> str:
    return " ".join(response.text.split())[:300]
