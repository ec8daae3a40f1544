"""Finding what belongs to a user, or to some requests: ids in every store, and what was made of those.

Spool and dead letters, lake, MLflow: a request may be in any of them alone. The later requests of a session belong to an
erased one, because the record of each holds the turns before it. Knows nothing of how anything is deleted.
"""

import contextlib
from collections.abc import Iterator
from typing import Final

from watchkeeper.lake import erasure as lake_erasure
from watchkeeper.lake.lake import Lake
from watchkeeper.record import Record
from watchkeeper.settings import Settings, seconds
from watchkeeper.telemetry.dead_letters import DeadLetters
from watchkeeper.telemetry.erasure import Said, said_in, waiting
from watchkeeper.telemetry.spans.staging import Staging
from watchkeeper.tracking import Tracking
from watchkeeper.tracking.deletion import Traces
from watchkeeper_evaluations.dataset.dataset import made_of
from watchkeeper_evaluations.erasure.asked import Asked
from watchkeeper_evaluations.erasure.report import Report
from watchkeeper_evaluations.erasure.selection import Selection

TENANT: Final = "default"
"""Whose all requests are that came by OTLP."""

Session = tuple[str, str]
"""Tenant and name."""


def find(settings: Settings, asked: Asked, known: Selection, report: Report) -> Selection:
    """`known` and all that is asked for. What cannot be looked through is noted in the report."""
    lake = Lake(settings.lake_uri, settings.lake.storage_options)
    tracking = Tracking(settings.mlflow.uri)
    requests = dict(known.requests)
    for said in _here(settings):
        if isinstance(said, Record) and _meant(said, asked):
            requests[said.request_id] = said.received_at
    if asked.names and asked.tenant in (None, TENANT):
        with report.reaching(), contextlib.closing(staging(settings)) as waiting_traces:
            for name in asked.names:
                requests |= dict.fromkeys(waiting_traces.of_user(name), 0)
    with report.reaching():
        if asked.names:
            requests |= lake_erasure.requests_of(lake, asked.names, asked.tenant)
        requests |= lake_erasure.known(lake, asked.requests)
    feedback = known.feedback | _said_by(settings, lake, asked, report)
    with report.reaching():
        traces = Traces(tracking)
        for name in asked.names:
            requests = dict(traces.of_user(settings.mlflow.experiment, name, asked.tenant)) | requests
        requests = dict.fromkeys(traces.there(asked.requests), 0) | requests
    requests = _followers(settings, lake, requests, report) | requests
    cases, replays = known.cases, known.replays
    with report.reaching():
        cases |= made_of(tracking, settings, requests)
    with report.reaching():
        replays |= lake_erasure.replays(lake, requests, cases)
    return Selection(requests=requests, feedback=feedback, cases=cases, replays=replays)


def _said_by(settings: Settings, lake: Lake, asked: Asked, report: Report) -> dict[str, str]:
    """What the user said of answers: its id → the request that it speaks of. It is of no tenant but the answer's: what is
    known to speak of another tenant's is somebody else's of that name, and without the lake nobody knows."""
    if not asked.names:
        return {}
    said: dict[str, str] = {}
    others: set[str] = set()
    for one in _here(settings):
        if isinstance(one, Record):
            if asked.tenant not in (None, one.tenant):
                others.add(one.request_id)
        elif one.user in asked.names:
            said[one.feedback_id] = one.request_id
    with report.reaching():
        said |= lake_erasure.feedback_of(lake, asked.names)
        if asked.tenant is not None:
            others |= lake_erasure.of_others(lake, said.values(), asked.tenant)
            return {name: request_id for name, request_id in said.items() if request_id not in others}
    return said if asked.tenant is None else {}


def _here(settings: Settings) -> Iterator[Said]:
    """What stands in this data folder: the spool's records and feedback, and the letters that some sink refused."""
    yield from waiting(settings.spool_folder)
    letters = DeadLetters(settings.data, writable=False)
    try:
        yield from (said for letter in letters if (said := said_in(letter.kind, letter.body)) is not None)
    finally:
        letters.close()


def _meant(record: Record, asked: Asked) -> bool:
    if record.request_id in asked.requests:
        return True
    return record.user in asked.names and asked.tenant in (None, record.tenant)


def _followers(settings: Settings, lake: Lake, requests: dict[str, int], report: Report) -> dict[str, int]:
    """The later requests of the sessions of these, wherever they are."""
    since: dict[Session, int] = {}
    found: dict[str, int] = {}
    with report.reaching():
        since |= lake_erasure.sessions_of(lake, requests)
    for said in _here(settings):
        if isinstance(said, Record) and said.request_id in requests and (session := _session(said)) is not None:
            since[session] = min(said.received_at, since.get(session, said.received_at))
    if not since:
        return {}
    for said in _here(settings):
        if isinstance(said, Record) and (session := _session(said)) in since and said.received_at >= since[session]:
            found[said.request_id] = said.received_at
    with report.reaching():
        found |= lake_erasure.followers(lake, since)
    return found


def _session(record: Record) -> Session | None:
    """None: it has none, or one of a masked name, which is many people's."""
    if record.session is None or lake_erasure.MASKED.search(record.session):
        return None
    return record.tenant, record.session


def staging(settings: Settings) -> Staging:
    """Where the parts of others' traces wait for one another."""
    return Staging(
        settings.data,
        settle_s=seconds(settings.traces.settle),
        idle_s=seconds(settings.traces.idle),
        most_bytes=settings.traces.max_waiting_bytes,
        durability=settings.gateway.durability,
    )
