"""`schedule.json` in the data folder: when each scheduled job looks next, how far it is, and what went wrong last.

Written whole or not at all. Knows nothing of how the schedule runs.
"""

import os
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper_evaluations.window import Window

FILE: Final = "schedule.json"


class JobStatus(msgspec.Struct, frozen=True):
    """`window`, `verdict`: the last window that was judged. `error`: of the last try; None: it went well."""

    next_run: datetime | None = None
    window: Window | None = None
    verdict: str | None = None
    error: str | None = None


class ScheduleStatus(msgspec.Struct, frozen=True):
    """`at`: when it was written. `webhook`: why it was not told; None: it was, or there is none."""

    at: datetime
    jobs: dict[str, JobStatus]
    webhook: str | None = None


def read(data: Path) -> ScheduleStatus | None:
    """None: no schedule ever ran on this folder, or the file cannot be read."""
    try:
        return msgspec.json.decode((data / FILE).read_bytes(), type=ScheduleStatus)
    except (OSError, msgspec.DecodeError):
        return None


def write(data: Path, status: ScheduleStatus) -> None:
    """Raises `OSError`."""
    draft = data / f"{FILE}.{os.getpid()}"
    draft.write_bytes(msgspec.json.encode(status))
    os.replace(draft, data / FILE)
