"""What MLflow's runs hold of erased requests: words in reports of drift, rows in the tables of experiments. Both are
written anew without them; figures stay.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from watchkeeper.settings import Settings
from watchkeeper.tracking import Tracking
from watchkeeper.tracking.experiments import TABLES
from watchkeeper.tracking.revision import Kept, artifact, kept_runs, revise
from watchkeeper_evaluations.dataset.dataset import home
from watchkeeper_evaluations.drift import without_words
from watchkeeper_evaluations.erasure import words
from watchkeeper_evaluations.experiment import TABLE
from watchkeeper_evaluations.window import Window

REPORT: Final = "report.json"


def erase_words(tracking: Tracking, settings: Settings, times: Sequence[int]) -> int:
    """Takes the telling words out of the reports of drift of whose windows one holds a time; of how many. Raises
    `TrackingUnavailable`."""
    revised = 0
    for run in kept_runs(tracking, f"{settings.mlflow.experiment}-jobs", "tags.job = 'drift'"):
        if any(words.holds(window, times) for window in _windows(run)):
            revised += _without_words(tracking, run)
    return revised


def _windows(run: Kept) -> Sequence[Window | None]:
    current = words.window(run.params.get("window_start"), run.params.get("window_end"))
    return current, words.reference(run.params.get("reference", ""))


def _without_words(tracking: Tracking, run: Kept) -> bool:
    body = artifact(tracking, run.run_id, REPORT)
    report: dict[str, Any] = msgspec.json.decode(body) if body is not None else {}
    told = run.tags.get("reason", "")
    columns: list[dict[str, Any]] = report.get("columns", [])
    if without_words(told) == told and not any("words" in column for column in columns):
        return False
    for column in columns:
        column.pop("words", None)
    if report:
        report["reason"] = without_words(report.get("reason", ""))
    artifacts: Mapping[str, bytes] = {REPORT: msgspec.json.encode(report)} if report else {}
    revise(tracking, run, tags={"reason": without_words(told)}, artifacts=artifacts)
    return True


def erase_tables(tracking: Tracking, settings: Settings, cases: Collection[str], replays: Collection[str]) -> int:
    """Takes the rows of these cases, and of these replays, out of the tables of all experiments; how many rows. Raises
    `TrackingUnavailable`."""
    if not cases and not replays:
        return 0
    gone = 0
    for run in kept_runs(tracking, home(settings), ""):
        body = artifact(tracking, run.run_id, TABLE) if TABLES in run.tags else None
        if body is None:
            continue
        table: dict[str, list[Any]] = msgspec.json.decode(body)
        case_at, request_at = (table["columns"].index(name) for name in ("case_id", "request_id"))
        kept = [row for row in table["data"] if row[case_at] not in cases and row[request_at] not in replays]
        if len(kept) < len(table["data"]):
            gone += len(table["data"]) - len(kept)
            anew = msgspec.json.encode({"columns": table["columns"], "data": kept})
            revise(tracking, run, tags={}, artifacts={TABLE: anew})
    return gone
