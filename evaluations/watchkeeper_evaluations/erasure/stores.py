"""The stores, in the order in which they are erased: first what could be read again into the others, then those.

Each deletes what a selection names and is its own, as often as it is asked. Knows nothing of how it was found.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Final

from watchkeeper.feedback import Feedback
from watchkeeper.lake import erasure as lake_erasure
from watchkeeper.lake.lake import Lake
from watchkeeper.serving import cache
from watchkeeper.serving.sessions import forget
from watchkeeper.settings import Settings
from watchkeeper.telemetry import erasure as spool_erasure
from watchkeeper.telemetry.dead_letters import DEAD_LETTERS, DeadLetters
from watchkeeper.telemetry.opinions import ID
from watchkeeper.tracking import Tracking, TrackingUnavailable
from watchkeeper.tracking.deletion import NotOurs, Traces, clean
from watchkeeper_evaluations.dataset.dataset import without
from watchkeeper_evaluations.erasure import words
from watchkeeper_evaluations.erasure.finding import staging
from watchkeeper_evaluations.erasure.report import Report
from watchkeeper_evaluations.erasure.runs import erase_tables, erase_words
from watchkeeper_evaluations.erasure.selection import Selection

Store = Callable[[Settings, Selection, Report, bool], None]
"""Erases a selection. The last argument: nobody is carrying anything, so that what crashed writers left may go too."""


def sessions(settings: Settings, selection: Selection, report: Report, alone: bool) -> None:
    """The turns that gateways put before a question."""
    report.removed["sessions"] += forget(settings.data / "sessions.sqlite", selection.requests)


def answers(settings: Settings, selection: Selection, report: Report, alone: bool) -> None:
    """Those that gateways keep in memory to give them again: all go, as nobody knows whose question was like whose."""
    cache.forget(settings.data)


def traces_waiting(settings: Settings, selection: Selection, report: Report, alone: bool) -> None:
    """Others' traces that are not whole yet; no further span of them is taken."""
    with contextlib.closing(staging(settings)) as parts:
        report.removed["traces_waiting"] += parts.erase(selection.requests, time.time_ns() // 1000)


def spool(settings: Settings, selection: Selection, report: Report, alone: bool) -> None:
    done = spool_erasure.erase(settings.spool_folder, selection.requests.keys(), selection.feedback.keys())
    report.removed["spool"] += done.rows
    for line in done.unreached:
        report.could_not(line)


def dead_letters(settings: Settings, selection: Selection, report: Report, alone: bool) -> None:
    if not (settings.data / DEAD_LETTERS).exists():
        return
    with contextlib.closing(DeadLetters(settings.data)) as letters:
        report.removed["dead_letters"] += letters.remove(selection.requests)
        said = ((letter.number, spool_erasure.said_in(letter.kind, letter.body)) for letter in letters)
        meant = [n for n, one in said if isinstance(one, Feedback) and one.feedback_id in selection.feedback]
        report.removed["dead_letters"] += letters.remove_numbers(meant)


def lake(settings: Settings, selection: Selection, report: Report, alone: bool) -> None:
    """Rows, words in reasons, and the files and versions that held them."""
    tables = Lake(settings.lake_uri, settings.lake.storage_options)
    gone = lake_erasure.erase(tables, {*selection.requests, *selection.replays}, selection.feedback)
    for table, rows in gone.items():
        report.removed[f"lake.{table}"] += rows
    report.removed["lake.evaluations"] += words.erase_in_lake(tables, selection.times)
    report.versions |= lake_erasure.purge(tables, alone=alone)


def traces(settings: Settings, selection: Selection, report: Report, alone: bool) -> None:
    """Traces with all that hangs on them, and what a user said of others' answers."""
    known = Traces(Tracking(settings.mlflow.uri))
    report.removed["mlflow.traces"] += known.delete((*selection.requests, *selection.replays))
    if selection.feedback:
        report.removed["mlflow.assessments"] += known.delete_assessments(
            selection.feedback.values(), ID, selection.feedback.keys()
        )


def datasets(settings: Settings, selection: Selection, report: Report, alone: bool) -> None:
    report.removed["mlflow.datasets"] += without(Tracking(settings.mlflow.uri), settings, selection.requests.keys())


def runs(settings: Settings, selection: Selection, report: Report, alone: bool) -> None:
    """Reports of drift, and the tables of experiments' answers."""
    tracking = Tracking(settings.mlflow.uri)
    report.removed["mlflow.reports"] += erase_words(tracking, settings, selection.times)
    report.removed["mlflow.tables"] += erase_tables(tracking, settings, selection.cases, selection.replays)


def database(settings: Settings, selection: Selection, report: Report, alone: bool) -> None:
    """What deleted rows leave behind in MLflow's database."""
    if not Tracking(settings.mlflow.uri).healthy():
        raise TrackingUnavailable(f"MLflow does not answer at {settings.mlflow.uri}")
    clean(settings)


def collectors(settings: Settings, selection: Selection, report: Report, alone: bool) -> None:
    """What was sent on cannot be called back: it is said where it may be."""
    if settings.collectors and selection.requests:
        names = ", ".join(one.name for one in settings.collectors)
        raise NotOurs(f"these may have been sent to collectors ({names}): delete the traces of these ids there")


STORES: Final[tuple[Store, ...]] = (
    *(sessions, answers, traces_waiting, spool, dead_letters, lake, traces, datasets, runs, database, collectors),
)

GIVING: Final[tuple[Store, ...]] = (sessions, answers, traces_waiting)
"""Those of them out of which texts come into new requests."""
