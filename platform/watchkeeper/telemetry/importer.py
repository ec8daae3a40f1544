"""An MLflow experiment's traces, of others, into the lake: each once, however often and by however many it is imported.

Commits are numbered in the lake under one name for each experiment: whoever finds a number taken looks again at what is
still missing. Rows say by `replica` which commit brought them, so that its rollup can be made up for where a crash came in
between. A trace is known by its id: those that a gateway served, took in by OTLP or erased are left out. Knows no command
line; what redacts and what tells languages apart is given.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from watchkeeper.carrying import carrying
from watchkeeper.lake.interactions import to_arrow
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.rollup import roll_up_rows
from watchkeeper.record import Record, Redact
from watchkeeper.settings import Settings
from watchkeeper.telemetry import spans
from watchkeeper.telemetry.deliveries import Deliveries
from watchkeeper.telemetry.known import known
from watchkeeper.telemetry.sinks import defect
from watchkeeper.telemetry.spans.decoding import PROTOBUF
from watchkeeper.telemetry.spans.part import LONGEST_NAME, MOST_TAGS, READ
from watchkeeper.tracking.traces import exports
from watchkeeper.tracking.tracking import TRACE_PREFIX, Logged, Tracking

AT_ONCE: Final = 200
"""Records of one commit, and about how many a crash makes to be read again."""

OURS: Final = "watchkeeper.action"
"""The tag of every trace that our shipper sent."""

SESSION: Final = "mlflow.trace.session"
USER: Final = "mlflow.trace.user"
OWN_TAGS: Final = "mlflow."

_log = logging.getLogger(__name__)

_ID: Final = re.compile(r"[0-9a-f]{32}")


class Imported(msgspec.Struct):
    """`read`: finished traces of the experiment. `ours`: of a gateway's own requests, or erased ones; `known`: in the lake
    already; `empty`: without question, answer or call of a model; `unreadable`: MLflow does not give their
    spans, or they break us."""

    experiment: str
    read: int = 0
    imported: int = 0
    known: int = 0
    ours: int = 0
    empty: int = 0
    unreadable: int = 0


class Importer:
    """One experiment's. `language`: of a text, None where it cannot be told. `clock`: µs since the epoch."""

    def __init__(
        self,
        settings: Settings,
        experiment: str,
        *,
        redact: Redact,
        language: Callable[[str], str | None],
        clock: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._experiment = experiment
        self._redact = redact
        self._language = language
        self._clock = clock
        self._lake = Lake(settings.lake_uri, settings.lake.storage_options)
        self._tracking = Tracking(settings.mlflow.uri)
        self._app = ""

    def run(self, since: int, progress: Callable[[Imported], object]) -> Imported:
        """Imports what started at `since` (ms) or later and is not here; tells after each page how far it is.

        Raises `LookupError` where there is no such experiment, `TrackingUnavailable`, `LakeUnavailable`; what was imported
        until then stays, and again it goes on from there.
        """
        self._app = f"import:{self._settings.mlflow.uri}#{self._tracking.experiment_id(self._experiment, create=False)}"
        self._settle()
        done = Imported(self._experiment)
        for page in self._tracking.traces(self._experiment, since):
            done.read += len(page)
            with carrying(self._settings.data, "import"):
                fresh = self._fresh(page, done)
                for start in range(0, len(fresh), AT_ONCE):
                    self._bring(fresh[start : start + AT_ONCE], done)
                    progress(done)
            progress(done)
        return done

    def _fresh(self, page: Sequence[Logged], done: Imported) -> list[Logged]:
        """The traces of a page that are others' and not in the lake."""
        others = [trace for trace in page if OURS not in trace.tags]
        names = {trace.trace_id: _request_id(trace.trace_id) for trace in others}
        deliveries = Deliveries(self._settings.data, writable=False)
        ours = deliveries.erased().intersection(names.values())
        deliveries.close()
        ours |= known(self._settings.data, self._settings.spool_folder, names.values())
        there = self._in_lake({names[trace.trace_id]: trace.at for trace in others}) - ours
        done.ours += len(page) - len(others) + len(ours)
        done.known += len(there)
        return [trace for trace in others if names[trace.trace_id] not in ours | there]

    def _bring(self, traces: Sequence[Logged], done: Imported) -> None:
        read: list[Record | None] = []
        for trace, body in exports(self._tracking, traces):
            try:
                read.append(self._record(trace, body))
            except Exception as error:  # one that breaks us must not end every import here
                _log.warning("trace %s cannot be read: %s", trace.trace_id, defect(error))
        records = [record for record in read if record is not None]
        done.unreadable += len(traces) - len(read)
        done.empty += len(read) - len(records)
        count = self._commit(records)
        done.imported += count
        done.known += len(records) - count  # someone else was first

    def _record(self, trace: Logged, body: bytes) -> Record | None:
        found, _ = spans.spans_of(body, PROTOBUF)
        parts = [spans.cleaned(spans.read(span), self._redact) for span in found]
        if not parts:
            return None
        record = spans.assemble(_request_id(trace.trace_id), parts, source="mlflow", arrived_at=self._clock())
        if record is None:
            return None
        tags = {self._clean(key): self._clean(value) for key, value in _tags(trace.tags).items()}
        return msgspec.structs.replace(
            record,
            # MLflow's own time: it is by this that it was found, and is found again.
            received_at=min(trace.at * 1000, self._clock()),
            route=self._clean(self._experiment),
            session=self._name(trace.metadata.get(SESSION, "")) or record.session,
            user=self._name(trace.metadata.get(USER, "")) or record.user,
            tags={**record.tags, **tags},
            language=self._language(record.prompt_text),
        )

    def _clean(self, text: str) -> str:
        return self._redact(text[: READ * LONGEST_NAME])[0][:LONGEST_NAME] if text else text

    def _name(self, text: str) -> str:
        return self._redact.name(text[: READ * LONGEST_NAME])[:LONGEST_NAME]

    def _commit(self, records: Sequence[Record]) -> int:
        """Appends what is still missing of these, rows and rollups, and returns how many that were."""
        while True:
            number = self._settle() + 1  # before it is looked what is missing: who was first since has taken the number
            there = self._in_lake({record.request_id: record.received_at // 1000 for record in records})
            missing = [record for record in records if record.request_id not in there]
            if not missing:
                return 0
            rows = to_arrow([msgspec.structs.replace(record, replica=self._replica(number)) for record in missing])
            if self._lake.append("interactions", rows, app_id=self._app, version=number):
                self._lake.append("rollups", roll_up_rows(rows), app_id=self._app, version=number)
                return len(missing)

    def _settle(self) -> int:
        """The number of the last commit, once its rollup is there too."""
        number = self._lake.transaction_version("interactions", self._app) or 0
        if number > (self._lake.transaction_version("rollups", self._app) or 0):
            rows = self._lake.query(
                "SELECT * FROM interactions WHERE replica = $replica", {"replica": self._replica(number)}
            )
            self._lake.append("rollups", roll_up_rows(rows), app_id=self._app, version=number)
        return number

    def _replica(self, number: int) -> str:
        return f"import-{hashlib.blake2b(self._app.encode(), digest_size=4).hexdigest()}-{number}"

    def _in_lake(self, started: Mapping[str, int]) -> set[str]:
        """Those of the requests (id → start in ms) that the lake has."""
        if not started:
            return set()
        first, last = (
            datetime.fromtimestamp(at / 1000, UTC).date() for at in (min(started.values()), max(started.values()))
        )
        rows = self._lake.query(
            "SELECT request_id FROM interactions WHERE date BETWEEN $first AND $last "
            "AND request_id IN (SELECT unnest($names))",
            {"first": first, "last": last, "names": [*started]},
        )
        return set(rows.column(0).to_pylist())


def _request_id(trace_id: str) -> str:
    """The id of a trace's request: its own 32 digits, or, of an id of another form, 32 that follow from it."""
    name = trace_id.removeprefix(TRACE_PREFIX)
    return name if _ID.fullmatch(name) else hashlib.blake2b(trace_id.encode(), digest_size=16).hexdigest()


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that people gave."""
    return dict([(key, value) for key, value in tags.items() if not key.startswith(OWN_TAGS)][:MOST_TAGS])
