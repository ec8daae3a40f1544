"""Assessments on traces: what people and scorers said of an answer, as MLflow's UI shows it beside the trace.

Speaks REST and never loads mlflow's client: the shipper uses this. An assessment gets its id from the server, so that it is
kept once only where who writes it looks first: `held` gives what is there. Knows nothing of spools or of evaluations.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec
import requests

from watchkeeper.tracking.tracking import TRACE_PREFIX, Tracking, TrackingUnavailable

AWAY: Final = frozenset({401, 403, 407, 408, 425, 429, 502, 503, 504})
"""HTTP answers that say something of the server or of our set-up, and nothing of what we sent."""
UNKNOWN: Final = "RESOURCE_DOES_NOT_EXIST"

ASKED: Final = 100
"""Traces of one question."""
TIMEOUT_S: Final = (5.0, 30.0)
"""To connect, and between two bytes of the answer: MLflow on SQLite may wait 20 s for its lock."""

NAME_LENGTH: Final = 250
"""Characters of a name or a source that every database of MLflow's takes."""


class TraceUnknown(Exception):
    """MLflow has no trace of this request; the message is one line."""


class AssessmentRefused(Exception):
    """MLflow does not take this assessment; the message is one line."""


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """One opinion on one answer. `source`: who has it, a person or a scorer, by name. `at`: µs since the epoch."""

    request_id: str
    name: str
    value: float | str | bool
    kind: Literal["HUMAN", "CODE"]
    source: str
    at: int
    rationale: str | None = None
    metadata: Mapping[str, str] = {}


class Held(msgspec.Struct, frozen=True):
    """An assessment that MLflow has."""

    name: str = msgspec.field(name="assessment_name", default="")
    metadata: dict[str, str] = {}


class _Info(msgspec.Struct):
    trace_id: str
    assessments: list[Held] = []


class _Infos(msgspec.Struct):
    trace_infos: list[_Info] = []


class Assessments:
    """The assessments of one MLflow server; for one thread."""

    def __init__(self, tracking: Tracking) -> None:
        self._url = f"{tracking.uri}/api/3.0/mlflow/traces"
        self._session = requests.Session()

    def held(self, request_ids: Iterable[str]) -> dict[str, Sequence[Held]]:
        """What each trace has; a trace that is not there is left out. Raises `TrackingUnavailable`."""
        found: dict[str, Sequence[Held]] = {}
        names = [TRACE_PREFIX + name for name in dict.fromkeys(request_ids)]
        for start in range(0, len(names), ASKED):
            answer = self._post("batchGetInfos", {"trace_ids": names[start : start + ASKED]})
            if answer.status_code >= 300:
                raise self._away(answer)
            try:
                infos = msgspec.json.decode(answer.content, type=_Infos)
            except msgspec.DecodeError as error:
                raise TrackingUnavailable(f"{self._url} does not answer as MLflow does: {error}") from error
            found |= {info.trace_id.removeprefix(TRACE_PREFIX): info.assessments for info in infos.trace_infos}
        return found

    def create(self, assessment: Assessment) -> None:
        """Adds it, whatever is there. Raises `TraceUnknown`, `AssessmentRefused`, `TrackingUnavailable`."""
        trace = TRACE_PREFIX + assessment.request_id
        answer = self._post(f"{trace}/assessments", {"assessment": _json(assessment, trace)})
        if answer.status_code == 404 and _code(answer) == UNKNOWN:
            raise TraceUnknown(f"MLflow has no trace {trace}")
        if answer.status_code in AWAY or answer.status_code == 404:
            raise self._away(answer)
        if answer.status_code >= 300:
            raise AssessmentRefused(_line(answer))

    def _post(self, path: str, body: Mapping[str, Any]) -> requests.Response:
        try:
            return self._session.post(f"{self._url}/{path}", json=body, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            raise TrackingUnavailable(f"{self._url} cannot be reached: {error}") from error

    def _away(self, answer: requests.Response) -> TrackingUnavailable:
        return TrackingUnavailable(f"{self._url}: {_line(answer)}")


def _json(assessment: Assessment, trace: str) -> dict[str, Any]:
    at = datetime.fromtimestamp(assessment.at / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    value = assessment.value
    body: dict[str, Any] = {
        "assessment_name": _text(assessment.name)[:NAME_LENGTH],
        "trace_id": trace,
        "source": {"source_type": assessment.kind, "source_id": _text(assessment.source)[:NAME_LENGTH]},
        "create_time": at,
        "last_update_time": at,
        "feedback": {"value": _text(value) if isinstance(value, str) else value},
        "metadata": {key: _text(text) for key, text in assessment.metadata.items()},
        # What is not said is false for its server, and an assessment that is not valid is not shown.
        "valid": True,
    }
    return body if assessment.rationale is None else body | {"rationale": _text(assessment.rationale)}


def _text(value: str) -> str:
    """`value` with U+FFFD for what a database or UTF-8 refuses: NUL and lone surrogates."""
    return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _code(answer: requests.Response) -> str:
    try:
        plain = answer.json()
    except ValueError:
        return ""
    return str(plain.get("error_code", "")) if isinstance(plain, dict) else ""


def _line(answer: requests.Response) -> str:
    return f"HTTP {answer.status_code} {' '.join(answer.text.split())[:300]}"
