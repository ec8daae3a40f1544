"""What is due: the windows of a job that are over and not judged, and rows that came after their window was.

All of it is cheap to ask, so that a tick with nothing to do costs milliseconds and starts no process. Knows nothing of
scorers but their names, nor of processes.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import msgspec

from watchkeeper.lake.interactions import microseconds
from watchkeeper.lake.lake import Lake
from watchkeeper.lake.reading import unscored
from watchkeeper.settings import Settings
from watchkeeper.telemetry.ledger import watermark
from watchkeeper_evaluations.timetable import SECOND, Timetable, moment_of
from watchkeeper_evaluations.window import Window

SETTLE_S: Final = 5
"""A window is left alone for so long after its end, until what was accepted in its last moment is in the spool."""

LATE_FOR: Final = timedelta(days=7)
"""Rows that are older when they arrive are not scored by the schedule; `evaluate` by hand does."""


class Reach(msgspec.Struct, frozen=True):
    """How far (µs) windows can be judged: those that end by `arrived`. Those that end by `over` are over; what is between
    the two is on its way to the lake."""

    over: int
    arrived: int


def reach(settings: Settings, now: datetime) -> Reach:
    """Raises `LakeUnavailable`."""
    over = microseconds(now) - SETTLE_S * SECOND
    reached = watermark(settings)
    return Reach(over, over if reached is None else min(over, reached))


def due(lake: Lake, timetable: Timetable, judged_by: str, until: int) -> range:
    """The numbers of the windows that `judged_by` has yet to judge and that end by `until`: those after the last one that
    it judged, at first from the one that holds the oldest request."""
    done = lake.transaction_version("evaluations", timetable.app_id(judged_by))
    if done is not None:
        return range(done + 1, timetable.number(until))
    found = lake.query("SELECT epoch_us(min(received_at)) AS oldest FROM interactions WHERE source <> 'replay'")
    oldest = found.column(0)[0].as_py()
    return range(0) if oldest is None else range(timetable.number(oldest), timetable.number(until))


def with_requests(lake: Lake, timetable: Timetable, numbers: range) -> list[int]:
    """Which of the windows hold any request, in order."""
    if not numbers:
        return []
    found = lake.query(
        "SELECT DISTINCT epoch_us(received_at) // $length AS number FROM interactions WHERE source <> 'replay' AND "
        "received_at >= make_timestamptz($start) AND received_at < make_timestamptz($end) "
        "AND date BETWEEN make_timestamptz($start)::DATE AND make_timestamptz($end)::DATE ORDER BY number",
        {
            "length": timetable.length * SECOND,
            "start": timetable.start(numbers.start),
            "end": timetable.start(numbers.stop),
        },
    )
    listed: list[int] = found.column("number").to_pylist()
    return listed


def late_window(now: datetime, since: int, judged_until: int) -> Window | None:
    """Where late rows may be: from `since` (µs), at most `LATE_FOR` back, to where windows are judged; None: nowhere."""
    start, end = max(moment_of(since), now - LATE_FOR), moment_of(judged_until)
    return Window(start, end) if start < end else None


def has_unscored(lake: Lake, judged_by: str, window: Window) -> bool:
    """Whether some row of the window lacks a score of one of the scorers that `judged_by` names."""
    scorers = scorers_of(judged_by)
    return bool(scorers) and bool(
        unscored(lake, scorers, window.start, window.end, columns=["request_id"], limit=1).num_rows
    )


def half_assessed(lake: Lake, job: str, judged_by: str, since: datetime) -> list[Window]:
    """The scheduled windows, judged since then, of which MLflow lacked traces of flagged scores."""
    rows = lake.query(
        "SELECT window_start, window_end, metrics FROM evaluations WHERE scheduled AND job = $job AND judged_by = $judges "
        "AND evaluated_at >= make_timestamptz($since) AND date >= make_timestamptz($since)::DATE ORDER BY window_start",
        {"job": job, "judges": judged_by, "since": microseconds(since)},
    ).to_pylist()
    return [
        Window(row["window_start"], row["window_end"])
        for row in rows
        if msgspec.json.decode(row["metrics"]).get("assessed_later")
    ]


def scorers_of(judged_by: str) -> list[str]:
    """name@version of each scorer in it; the first word is the job."""
    return judged_by.split()[1:]


def earliest(starts: Iterable[int], before: int) -> int | None:
    """The smallest of `starts` when it lies before `before`; files that hold late rows only."""
    least = min(starts, default=before)
    return least if least < before else None
