"""The sink MLflow: gets records as OTLP and feedback as assessments, each at least once, and keeps it once.

A trace overwrites itself, an assessment is looked for first. What is refused for what is in it is found by halving its
batch. Everything else that goes wrong is an outage: an answer that is none of MLflow's, a refusal of everything, a silence.
Feedback on an answer of which MLflow knows nothing yet waits beside the spool and holds up nothing: its record may be under
way, in another segment, or on another host. Knows nothing of threads, of pauses or of when a segment may go.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import Final

import msgspec
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from watchkeeper.record import Record
from watchkeeper.telemetry.adoption import TORN
from watchkeeper.telemetry.dead_letters import DeadLetter
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.opinions import UNKNOWN, Opinions, Said
from watchkeeper.telemetry.otlp import export_request
from watchkeeper.telemetry.segment import Row, SegmentUnreadable, segments
from watchkeeper.telemetry.sinks import MLFLOW, Dropped, Made, SinkUnavailable, Tray, decoded, defect, refused_record
from watchkeeper.tracking import Tracking

AWAY: Final = frozenset({401, 403, 404, 407, 408, 425, 429, 502, 503, 504})
"""HTTP answers that say something of the server or of our set-up, and nothing of what we sent."""

TIMEOUT_S: Final = (5.0, 120.0)
"""To connect, and between two bytes of the answer: MLflow on SQLite may wait 20 s for its lock."""

FRESH_S: Final = 2.0
"""So long the experiment's id is believed. A server that comes back with another database takes longer to start."""

FIRST_WAIT_S: Final = 2.0
LONGEST_WAIT_S: Final = 600.0
PATIENCE_S: Final = 86_400.0
"""How long feedback waits for its trace, before it is a dead letter: another host may have been away for a night."""

LOOKED_AT: Final = 100
"""Waiting feedback that is looked at in one go."""

_log = logging.getLogger(__name__)


class _Refused(Exception):
    """The batch was refused. `ours`: before it was sent."""

    def __init__(self, reason: str, *, ours: bool) -> None:
        super().__init__(reason)
        self.ours = ours


class MlflowSink:
    """MLflow, by OTLP over HTTP. `experiment_id` looks the experiment up, and raises while it cannot. `keeps`: whether
    MLflow gets a record of which nobody said anything. `spool`: where records of spared requests are looked for; None:
    nothing waits, feedback on what MLflow does not know is refused, and what was refused is tried again. `clock`:
    seconds since the epoch."""

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
        keeps: Callable[[Record], bool] = lambda record: True,
        spool: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limit = limit
        self._batch = limit
        self._url = f"{uri}/v1/traces"
        self._find_experiment = experiment_id
        self._experiment = ""
        self._found_at: float | None = None
        self._deliveries = deliveries
        self._dropped = dropped
        self._keeps = keeps
        self._spool = spool
        self._clock = clock
        self._session = requests.Session()
        self._positions: dict[str, int] = {}
        self._opinions = Opinions(Tracking(uri), again=spool is None)

    def position(self, tray: Tray) -> int:
        if tray.uid not in self._positions:
            found = self._deliveries.cursor(self.name, tray.uid)
            self._positions[tray.uid] = max(found, tray.first - 1)
        return self._positions[tray.uid]

    def step(self, tray: Tray) -> int:
        rows = tray.rows(self.position(tray), limit=self._batch)
        if not rows:
            return 0
        batch = decoded(rows)
        if tray.mended:  # a trace overwrites itself, but one that says no more than that it is lost must not
            lost = self._opinions.known(record.request_id for _, record in batch.records if record.error == TORN)
            batch = batch._replace(records=[made for made in batch.records if made[1].request_id not in lost])
        spoken_of = {feedback.request_id for _, feedback in batch.said}
        wanted = [made for made in batch.records if made[1].request_id in spoken_of or self._keeps(made[1])]
        spared = {made[1].request_id for made in batch.records} - {made[1].request_id for made in wanted}
        self._deliver(wanted, batch.refused)
        if batch.said:
            missing = self._opinions.without_trace(batch.said)
            waits = [row for row, feedback in batch.said if self._spool and feedback.request_id in missing]
            batch.refused.extend(self._opinions.attach([said for said in batch.said if said[0] not in waits]))
            now = self._clock()
            self._dropped.wait(tray, waits, UNKNOWN, int((now + FIRST_WAIT_S) * 1e6))
        self._dropped(tray, batch.refused)
        self._deliveries.advance(self.name, tray.uid, rows[-1].sequence, spared)
        self._positions[tray.uid] = rows[-1].sequence
        if self._dropped.store.waiting():
            arrived = [made[1].request_id for made in batch.records]
            self._dropped.store.hasten(self.name, arrived, int(self._clock() * 1e6))
        return len(rows)

    def tend(self) -> None:
        """Attaches waiting feedback whose trace has come, and gives up on what has waited too long."""
        if self._spool is None or not self._dropped.store.waiting():
            return
        now = self._clock()
        letters = self._dropped.store.due(self.name, int(now * 1e6), LOOKED_AT)
        if not letters:
            return
        # A row of its own for each, by the letter's number: letters of several segments stand side by side here.
        rows = [Row(one.number, one.request_id, one.at, one.kind, one.body) for one in letters]
        batch = decoded(rows)
        missing = self._opinions.without_trace(batch.said)
        spared = self._deliveries.spared(missing)
        if spared and self._recall(self._spool, spared):
            missing = self._opinions.without_trace(batch.said)
        batch.refused.extend(self._opinions.attach([one for one in batch.said if one[1].request_id not in missing]))
        refused = {row.sequence: reason for row, reason in batch.refused}
        self._settle({one.number: one for one in letters}, batch.said, missing, refused, now)

    def _settle(
        self, letters: dict[int, DeadLetter], said: Sequence[Said], missing: Set[str], refused: dict[int, str], now: float
    ) -> None:
        """What was refused is dead; what has no trace waits on, ever longer, or is dead too; all else is done. So is
        feedback on a request of which MLflow is spared the trace (it stands in the lake), and on one that was erased."""
        nowhere = self._deliveries.spared(missing) | (self._deliveries.erased() & missing)
        at = int(now * 1e6)
        waits = [
            letters[row.sequence]
            for row, feedback in said
            if feedback.request_id in missing and feedback.request_id not in nowhere
        ]
        refused |= {one.number: UNKNOWN for one in waits if at - one.at > PATIENCE_S * 1e6}
        store = self._dropped.store
        store.bury([msgspec.structs.replace(letters[n], reason=why, at=at, due=None) for n, why in refused.items()])
        kept = [one for one in waits if one.number not in refused]
        pauses = {one.number: min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(one.tries, 20)) for one in kept}
        store.postpone({number: int((now + pause_s) * 1e6) for number, pause_s in pauses.items()})
        store.remove_numbers(letters.keys() - refused.keys() - {one.number for one in kept})

    def _recall(self, spool: Path, request_ids: Set[str]) -> bool:
        """Sends records after all that MLflow was spared, where the spool has them still. Whether there were any."""
        rows: list[Row] = []
        for segment in segments(spool).segments:
            with contextlib.suppress(SegmentUnreadable, FileNotFoundError):
                rows += segment.records_of(request_ids, segment.first - 1)
        self._deliver(decoded(rows).records, [])
        return bool(rows)

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
            elif (reason := self._blame(made[0][1], refusal)) is not None:
                refused.append((made[0][0], reason))

    def _blame(self, record: Record, refusal: _Refused) -> str | None:
        """Why a record that was refused alone is dead; None: it is not, but taken now.

        A server that is out of order may refuse everything (MLflow answers 422 to failures of its own), and then no record
        is to blame. So the same trace is sent with nothing in it: only if that is taken, and the record again not, was it
        the content: the server may have come to itself between the two. It stays, to say in the UI what became of the
        request."""
        if refusal.ours:
            return str(refusal)
        try:
            self._send([refused_record(record)])
        except _Refused as again:
            raise self._away(f"takes no trace at all: {again}") from refusal
        try:
            self._send([record])
        except _Refused as again:
            return str(again)
        return None

    def _send(self, records: Sequence[Record]) -> None:
        try:
            body = export_request(records)
        except Exception as error:
            raise _Refused(f"cannot be written as OTLP: {defect(error)}", ours=True) from error
        headers = {"content-type": "application/x-protobuf", "x-mlflow-experiment-id": self._id()}
        try:
            # Where a redirect leads, such as to a page to log in, nothing is kept.
            answer = self._session.post(self._url, data=body, headers=headers, timeout=TIMEOUT_S, allow_redirects=False)
        except requests.Timeout as error:
            self._batch = max(1, self._batch // 2)  # it may just be too much at a time
            raise self._away(f"did not answer in time: {error}") from error
        except requests.RequestException as error:
            raise self._away(f"cannot be reached: {error}") from error
        if answer.status_code in AWAY or 300 <= answer.status_code < 400:
            raise self._away(_line(answer))
        if answer.status_code >= 300:
            raise _Refused(_line(answer), ours=False)
        rejected = _rejected(answer)
        if rejected is None:
            raise self._away(f"HTTP {answer.status_code}, but not in MLflow's words")
        if rejected:
            raise _Refused(f"HTTP {answer.status_code}, but {rejected} spans were rejected", ours=False)
        self._batch = min(self.limit, self._batch * 2)

    def _id(self) -> str:
        """The experiment's id: the same name may have another after a restart, with another database."""
        if self._found_at is None or self._clock() - self._found_at > FRESH_S or self._clock() < self._found_at:
            found = self._find_experiment()
            if self._experiment not in ("", found):
                _log.warning("MLflow's experiment is %s now, and was %s: is it another database?", found, self._experiment)
            self._experiment, self._found_at = found, self._clock()
        return self._experiment

    def _away(self, what: str) -> SinkUnavailable:
        self._found_at = None
        return SinkUnavailable(f"{self._url}: {what}")


def _rejected(answer: requests.Response) -> int | None:
    """How many spans the server says that it did not take, though it answered well; None: it is no answer to OTLP."""
    kind = answer.headers.get("content-type", "").split(";")[0].strip()
    try:
        if kind == "application/json":
            plain = msgspec.json.decode(answer.content)
            partial = plain.get("partialSuccess", {}) if isinstance(plain, dict) and "error_code" not in plain else None
            return int(partial.get("rejectedSpans", 0)) if isinstance(partial, dict) else None
        if kind == "application/x-protobuf":
            return int(ExportTraceServiceResponse.FromString(answer.content).partial_success.rejected_spans)
    except Exception:  # it cannot be read, in whatever way
        return None
    return None


def _line(answer: requests.Response) -> str:
    """An answer in a line. Of a database's error only what stands before the statement: its values are what people
    wrote."""
    text = " ".join(answer.text.split())
    for start in ("[SQL", "[parameters"):
        text = text.partition(start)[0]
    return f"HTTP {answer.status_code} {text[:300]}"
