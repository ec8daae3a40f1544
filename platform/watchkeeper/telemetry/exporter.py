"""Records on their way to an OTLP server over HTTP: one request a batch, smaller ones while the server is slow.

What is refused for what is in it is found by halving its batch, and so is a record about which alone the server is silent
each time. Everything else that goes wrong is an outage: an answer that is none of such a server's, a refusal of everything,
a silence. Knows nothing of cursors, nor of what it sends.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from watchkeeper.record import Record
from watchkeeper.telemetry.segment import Row
from watchkeeper.telemetry.sinks import Made, SinkUnavailable, defect, refused_record

AWAY: Final = frozenset({401, 403, 404, 407, 408, 425, 429, 502, 503, 504})
"""HTTP answers that say something of the server or of our set-up, and nothing of what we sent."""

TIMEOUT_S: Final = (5.0, 120.0)
"""To connect, and between two bytes of the answer: MLflow on SQLite may wait 20 s for its lock."""


SILENCES: Final = 3
"""So often a server may leave one and the same record alone unanswered, before that counts as refused."""


class _Refused(Exception):
    """The batch was refused. `ours`: before it was sent."""

    def __init__(self, reason: str, *, ours: bool) -> None:
        super().__init__(reason)
        self.ours = ours


class Exporter:
    """`write`: records → the body of a request. `headers`: for each request; raises while they cannot be had. `strictly`:
    whose server it is, where only an answer in OTLP's own words counts as taken; None: any good answer does. `batch`: how
    many records are worth sending at once, now."""

    def __init__(
        self,
        url: str,
        write: Callable[[Sequence[Record]], bytes],
        headers: Callable[[], Mapping[str, str]],
        *,
        limit: int,
        strictly: str | None = None,
    ) -> None:
        self.batch = limit
        self._limit = limit
        self._url = url
        self._write = write
        self._headers = headers
        self._strictly = strictly
        self._session = requests.Session()
        self._unanswered: tuple[str, int] = ("", 0)  # the last record that was left so alone, and how often

    def deliver(self, made: Sequence[Made], refused: list[tuple[Row, str]], body: bytes | None = None) -> None:
        """Sends a batch; of one that is refused its halves, down to the records that are the cause. Those go to `refused`,
        and why. `body`: the batch, if it is written already. Raises `SinkUnavailable`."""
        if not made:
            return
        try:
            self._send([record for _, record in made], body)
        except _Refused as refusal:
            if len(made) > 1:
                half = len(made) // 2
                self.deliver(made[:half], refused)
                self.deliver(made[half:], refused)
            elif (reason := self._blame(made[0][1], refusal)) is not None:
                refused.append((made[0][0], reason))

    def _blame(self, record: Record, refusal: _Refused) -> str | None:
        """Why a record that was refused alone is dead; None: it is not, but taken now.

        A server that is out of order may refuse everything (MLflow answers 422 to failures of its own), and then no record
        is to blame. So the same trace is sent with nothing in it: only if that is taken, and the record again not, was it
        the content: the server may have come to itself between the two. It stays, to say there what became of the
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

    def _send(self, records: Sequence[Record], body: bytes | None = None) -> None:
        try:
            body = self._write(records) if body is None else body
        except Exception as error:
            raise _Refused(f"cannot be written as OTLP: {defect(error)}", ours=True) from error
        headers = {**self._headers(), "content-type": "application/x-protobuf"}
        try:
            # Where a redirect leads, such as to a page to log in, nothing is kept.
            answer = self._session.post(self._url, data=body, headers=headers, timeout=TIMEOUT_S, allow_redirects=False)
        except requests.Timeout as error:
            self.batch = max(1, self.batch // 2)  # it may just be too much at a time
            # One that cannot even be connected to knows nothing of the record.
            silent = isinstance(error, requests.ReadTimeout) and len(records) == 1
            if silent and self._silent(records[0].request_id):
                raise _Refused(f"no answer in time, {SILENCES} times, to this record alone", ours=False) from error
            raise self._away(f"did not answer in time: {error}") from error
        except requests.RequestException as error:
            raise self._away(f"cannot be reached: {error}") from error
        if answer.status_code in AWAY or 300 <= answer.status_code < 400:
            raise self._away(_line(answer))
        if answer.status_code >= 300:
            raise _Refused(_line(answer), ours=False)
        rejected = _rejected(answer)
        if rejected is None and self._strictly:
            raise self._away(f"HTTP {answer.status_code}, but not in {self._strictly}'s words")
        if rejected:
            raise _Refused(f"HTTP {answer.status_code}, but {rejected} spans were rejected", ours=False)
        self.batch = min(self._limit, self.batch * 2)

    def _silent(self, request_id: str) -> bool:
        """Whether the server has now left this record alone unanswered often enough."""
        last, times = self._unanswered
        self._unanswered = (request_id, times + 1 if last == request_id else 1)
        return self._unanswered[1] >= SILENCES

    def _away(self, what: str) -> SinkUnavailable:
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
