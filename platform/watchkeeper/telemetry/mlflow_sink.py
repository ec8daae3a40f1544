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
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from watchkeeper.record import Record
from watchkeeper.telemetry.adoption import TORN
from watchkeeper.telemetry.dead_letters import DeadLetter
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.exporter import Exporter
from watchkeeper.telemetry.opinions import UNKNOWN, Opinions, Said
from watchkeeper.telemetry.otlp import export_request
from watchkeeper.telemetry.segment import Row, SegmentUnreadable, segments
from watchkeeper.telemetry.sinks import MLFLOW, Decoded, Dropped, Made, Progress, SinkUnavailable, Tray, decoded
from watchkeeper.tracking import Tracking

FRESH_S: Final = 2.0
"""So long the experiment's id is believed, and from each batch on that was taken: a server that comes back with another
database takes longer to start. To look it up costs the server as much as five traces."""

BELIEVED_S: Final = 30.0
"""So long at most: somebody may have deleted the experiment, and the server takes traces for it all the same."""

FIRST_WAIT_S: Final = 2.0
LONGEST_WAIT_S: Final = 600.0
PATIENCE_S: Final = 86_400.0
"""How long feedback waits for its trace, before it is a dead letter: another host may have been away for a night."""

LOOKED_AT: Final = 100
"""Waiting feedback that is looked at in one go."""

_log = logging.getLogger(__name__)


class _Written(NamedTuple):
    """What is in these rows, what of it MLflow gets, and the request that says that; `body`: None where it cannot be
    written, and why is still to be found."""

    rows: list[Row]
    batch: Decoded
    wanted: list[Made]
    body: bytes | None


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
        self._exporter = Exporter(
            f"{uri}/v1/traces", lambda records: export_request(records), self._headers, limit=limit, strictly="MLflow"
        )
        self._find_experiment = experiment_id
        self._experiment = ""
        self._found_at: float | None = None
        self._fresh_at = 0.0
        self._deliveries = deliveries
        self._dropped = dropped
        self._keeps = keeps
        self._spool = spool
        self._clock = clock
        self._progress = Progress(deliveries, self.name)
        self._opinions = Opinions(Tracking(uri), again=spool is None)
        self._writer = ThreadPoolExecutor(1, "ahead-of-mlflow")
        self._ahead: dict[str, Future[_Written]] = {}  # by the tray's uid

    def position(self, tray: Tray) -> int:
        return self._progress.position(tray)

    def step(self, tray: Tray) -> int:
        limit = self._exporter.batch
        rows = tray.rows(self.position(tray), limit=2 * limit)
        rows, following = rows[:limit], rows[limit:]
        if not rows:
            return 0
        _, batch, wanted, body = self._taken(tray, rows)
        if following:
            self._ahead[tray.uid] = self._writer.submit(self._write, following)
        spared = {made[1].request_id for made in batch.records} - {made[1].request_id for made in wanted}
        if tray.mended:  # a trace overwrites itself, but one that says no more than that it is lost must not
            lost = self._opinions.known(record.request_id for _, record in batch.records if record.error == TORN)
            wanted, spared, body = [made for made in wanted if made[1].request_id not in lost], spared - lost, None
        self._deliver(wanted, batch.refused, body)
        if batch.said:
            missing = self._opinions.without_trace(batch.said)
            waits = [row for row, feedback in batch.said if self._spool and feedback.request_id in missing]
            batch.refused.extend(self._opinions.attach([said for said in batch.said if said[0] not in waits]))
            now = self._clock()
            self._dropped.wait(tray, waits, UNKNOWN, int((now + FIRST_WAIT_S) * 1e6))
        self._dropped(tray, batch.refused)
        self._progress.advance(tray, rows[-1].sequence, spared)
        if self._dropped.store.waiting():
            arrived = [made[1].request_id for made in batch.records]
            self._dropped.store.hasten(self.name, arrived, int(self._clock() * 1e6))
        return len(rows)

    def _taken(self, tray: Tray, rows: list[Row]) -> _Written:
        """As it was written ahead, if these are the very rows: between two steps they may have been erased."""
        ahead = self._ahead.pop(tray.uid, None)
        if ahead is not None and (written := ahead.result()).rows == rows:
            return written
        return self._write(rows)

    def _write(self, rows: list[Row]) -> _Written:
        batch = decoded(rows)
        spoken_of = {feedback.request_id for _, feedback in batch.said}
        wanted = [made for made in batch.records if made[1].request_id in spoken_of or self._keeps(made[1])]
        body: bytes | None = None
        with contextlib.suppress(Exception):  # one of them cannot be written; delivering finds out which
            body = export_request([record for _, record in wanted])
        return _Written(rows, batch, wanted, body)

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

    def _deliver(self, made: Sequence[Made], refused: list[tuple[Row, str]], body: bytes | None = None) -> None:
        try:
            self._exporter.deliver(made, refused, body)
        except SinkUnavailable:
            self._found_at = None
            raise
        if made:
            self._fresh_at = self._clock()

    def _headers(self) -> dict[str, str]:
        return {"x-mlflow-experiment-id": self._id()}

    def _id(self) -> str:
        """The experiment's id: the same name may have another after a restart, with another database."""
        now = self._clock()
        if self._found_at is None or not (0 <= now - self._found_at <= BELIEVED_S and 0 <= now - self._fresh_at <= FRESH_S):
            found = self._find_experiment()
            if self._experiment not in ("", found):
                _log.warning("MLflow's experiment is %s now, and was %s: is it another database?", found, self._experiment)
            self._experiment, self._found_at, self._fresh_at = found, now, now
        return self._experiment
