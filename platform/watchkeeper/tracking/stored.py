"""The ids of finished traces, read in the database of the server that `up` starts, which is a file of ours: a thousandth of
what a million of them cost by its pages (270 s of CPU).

Two columns of one table are read, nothing is written. Where the file is not the database of the server that answers, or
not as expected, nobody is believed: then it is the pages.
"""

import contextlib
import sqlite3
from pathlib import Path
from typing import Final

from watchkeeper.tracking.assessments import Assessments
from watchkeeper.tracking.tracking import TRACE_PREFIX, Tracking

EXPERIMENT: Final = "SELECT experiment_id FROM experiments WHERE name = ?"
IDS: Final = "SELECT request_id FROM trace_info WHERE experiment_id = ? AND status IN ('OK', 'ERROR')"
NEWEST: Final = f"{IDS} ORDER BY timestamp_ms DESC LIMIT 1"


def stored_trace_ids(tracking: Tracking, data: Path, experiment: str) -> list[str] | None:
    """The request ids (no `tr-`) of all finished traces; None: they have to be asked for. Raises `TrackingUnavailable`."""
    file = (data / "mlflow" / "mlflow.db").absolute()
    if not file.exists():
        return None
    try:
        experiment_id = tracking.experiment_id(experiment, create=False)
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=20)) as database:
            named = database.execute(EXPERIMENT, (experiment,)).fetchone()
            newest = database.execute(NEWEST, (experiment_id,)).fetchone()
            if named is None or str(named[0]) != experiment_id or newest is None:
                return None
            name = newest[0].removeprefix(TRACE_PREFIX)
            if name not in Assessments(tracking).held([name]):
                return None  # another server answers there
            return [found.removeprefix(TRACE_PREFIX) for (found,) in database.execute(IDS, (experiment_id,))]
    except (sqlite3.Error, LookupError):
        return None
