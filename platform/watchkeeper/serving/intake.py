"""Other people's exports on their way in: read, redacted, staged; and, once a trace is whole, into the spool as a record.

What `take` returns for is durable in the staging file. One worker of a gateway at a time (who holds the lock) carries whole
traces into the spool, each once, whatever dies in between. The work is done on one thread beside the event loop, so that a
large export delays no answer by more than the interpreter's switching. Knows nothing of HTTP.
"""

import asyncio
import contextlib
import os
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

import msgspec

from watchkeeper.record import Record, Redact
from watchkeeper.serving.failure import log_defect
from watchkeeper.serving.metrics import Metrics
from watchkeeper.serving.preprocess import detect
from watchkeeper.settings import Settings, seconds
from watchkeeper.telemetry import spans
from watchkeeper.telemetry.known import known
from watchkeeper.telemetry.locks import lock
from watchkeeper.telemetry.spans.part import Part
from watchkeeper.telemetry.spans.staging import TAKEN, Ready, Staging, StagingUnavailable
from watchkeeper.telemetry.spool import Spool, SpoolFull

T = TypeVar("T")

LOCK: Final = "traces.lock"
LOOK_S: Final = 1.0
MOST_WAITING: Final = 16
"""Exports of one worker that may wait for their turn; more are sent away for a moment."""

OURS: Final = "watchkeeper"
"""The scope of spans that we export ourselves: their requests have a record."""


class TooLarge(Exception):
    """The export is larger, unpacked, than is allowed."""


class Busy(Exception):
    """So many exports wait already that this one is to come again."""


class Taken(NamedTuple):
    """What became of an export: how many spans were refused, and why, in a line (also a hint where none was)."""

    refused: int
    reason: str


class Intake:
    """For one gateway worker. `clock`: seconds since the epoch."""

    def __init__(
        self, settings: Settings, spool: Spool, redact: Redact, metrics: Metrics, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._redact = redact
        self._metrics = metrics
        self._clock = clock
        self._staging = Staging(
            settings.data,
            settle_s=seconds(settings.traces.settle),
            idle_s=seconds(settings.traces.idle),
            most_bytes=settings.traces.max_waiting_bytes,
            durability=settings.gateway.durability,
        )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="traces")
        self._waiting = 0
        self._held: int | None = None

    async def take(self, body: bytes, kind: str, *, packed: bool, tenant: str = "default") -> Taken:
        """Takes a tenant's export of a type (`spans.decoding.PROTOBUF` or `JSON`), `packed` with gzip. What it says is
        durable when this returns. Raises `Unreadable`, `TooLarge`, `Busy`, `StagingUnavailable`.
        """
        if self._waiting >= MOST_WAITING:
            raise Busy
        self._waiting += 1
        try:
            return await self._beside(lambda: self._take(body, kind, packed, tenant))
        finally:
            self._waiting -= 1

    async def run(self) -> None:
        """Carries whole traces into the spool, until it is cancelled."""
        while True:
            try:
                full = self._staging.exists and self._leads() and await self.carry()
            except (StagingUnavailable, SpoolFull):
                full = False  # whoever sends is told; it is tried again
            except Exception as error:
                log_defect("traces", error)
                full = False
            if not full:
                await asyncio.sleep(LOOK_S)

    async def carry(self) -> bool:
        """Takes what is ready into the spool. Whether there may be more. Raises `StagingUnavailable`, `SpoolFull`."""
        ready, records, nothing = await self._beside(self._whole)
        now = self._now()
        brought = await asyncio.gather(*(self._spool.bring(record, now) for record in records), return_exceptions=True)
        failed = {record.request_id: error for record, error in zip(records, brought, strict=True) if error is not None}
        done = [one.trace_id for one in ready if one.trace_id not in failed and one.trace_id not in nothing]
        await self._beside(lambda: self._settle(done, nothing))
        self._metrics.traces("recorded", len(records) - len(failed))
        self._metrics.traces("no_request", len(nothing))
        for error in failed.values():
            raise error
        return len(ready) == TAKEN

    async def close(self) -> None:
        """After `run` was cancelled and the spool closed: what was on its way is in it, and the next who leads sees it."""
        await self._beside(self._staging.close)
        self._thread.shutdown()
        if self._held is not None:
            os.close(self._held)

    async def _beside(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _leads(self) -> bool:
        """Whether this worker is the one that carries."""
        if self._held is None:
            self._held = lock(self._settings.data / LOCK)
        return self._held is not None

    # From here on: the thread.

    def _take(self, body: bytes, kind: str, packed: bool, tenant: str) -> Taken:
        if packed:
            body = _unpacked(body, self._settings.traces.max_body_bytes)
        found, invalid = spans.spans_of(body, kind)
        theirs = [span for span in found if span.scope != OURS]
        groups: dict[str, list[Part]] = {}
        silent = 0
        failed: list[Exception] = []
        for span in theirs:
            try:
                part = spans.cleaned(spans.read(span), self._redact)
                part.tenant = tenant
            except Exception as error:  # the other spans of the export are worth keeping
                failed.append(error)
                continue
            if part.kind == "foreign" and part.place == "inside":
                continue  # what a database or a web server does inside says nothing of a request
            silent += part.kind == "llm" and not part.told and part.error is None
            groups.setdefault(span.trace_id, []).append(part)
        if failed:
            log_defect(f"{len(failed)} spans of others", failed[0])
        added = self._staging.add(groups, self._now())
        self._metrics.spans("kept", added.kept)
        self._metrics.spans("again", added.again)
        self._metrics.spans("late", added.late)
        ours = len(found) - len(theirs)
        reasons = (
            (invalid, "without valid trace and span ids"),
            (ours, "of this gateway's own, whose requests are recorded"),
            (added.late, "of traces that were recorded before they came (see traces.settle and traces.idle)"),
            (added.beyond, "beyond what is kept of one trace"),
            (len(failed), "that cannot be read or redacted"),
        )
        refused = sum(count for count, _ in reasons)
        self._metrics.spans("refused", refused - added.late)
        said = [f"{count} spans {why}" for count, why in reasons if count]
        if silent:
            said.append(
                f"{silent} calls of a model come without prompt and answer: their instrumentation keeps content off, or "
                "sends it as log records, which are not taken; have it put onto spans "
                "(OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=span_only with "
                "OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental)"
            )
        return Taken(refused, "; ".join(said))

    def _whole(self) -> tuple[list[Ready], list[Record], list[str]]:
        """The traces that are ready; the records to bring of them; and those that are no requests."""
        now = self._now()
        ready = self._staging.take(now)
        # Of a trace that was under way when someone died, the spool knows; and no trace takes the place of a request that a
        # gateway served: a trace id is compared that could be one's request id.
        asked = [one.trace_id for one in ready if one.before or _could_be_ours(one.trace_id)]
        there = known(self._settings.data, self._settings.spool_folder, asked)
        records: list[Record] = []
        nothing: list[str] = []
        for one in ready:
            if one.trace_id in there:
                continue
            record = _record(one)
            if record is None:
                nothing.append(one.trace_id)
            else:
                records.append(msgspec.structs.replace(record, language=language(record.prompt_text)))
        return ready, records, nothing

    def _settle(self, finished: Sequence[str], nothing: Sequence[str]) -> None:
        self._staging.finish(finished, self._now())
        self._staging.drop(nothing)

    def _now(self) -> int:
        return int(self._clock() * 1e6)


def _unpacked(body: bytes, limit: int) -> bytes:
    """gzip → bytes. Raises `Unreadable`, `TooLarge`."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error:
        raise spans.Unreadable("the body is not gzip, as its content-encoding says") from None
    if len(plain) > limit:
        raise TooLarge
    if not unpacker.eof:
        raise spans.Unreadable("the body is a part of a gzip file only")
    if unpacker.unused_data:  # a second file behind the first: its spans would be lost without a word
        raise spans.Unreadable("the body is more than one gzip file")
    return plain


def _record(ready: Ready) -> Record | None:
    """The record of a trace; None where it is no request, or breaks us: it must not hold up all others for ever."""
    try:
        return spans.assemble(ready.trace_id, ready.parts, source="otlp", arrived_at=ready.last_at) if ready.parts else None
    except Exception as error:
        log_defect(f"trace {ready.trace_id}", error)
        return None


def _could_be_ours(trace_id: str) -> bool:
    """Whether it is a random UUID, as a gateway's request ids are; one in 64 others is too."""
    return trace_id[12] == "4" and trace_id[16] in "89ab"


def language(text: str) -> str | None:
    """The text's language; None where none can be told."""
    with contextlib.suppress(Exception):  # whatever is wrong with the text, it is worth its record
        return detect(text)[0]
    return None
