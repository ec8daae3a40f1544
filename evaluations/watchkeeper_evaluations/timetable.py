"""The windows of a scheduled job: contiguous, aligned to the epoch, numbered; and what makes each of them happen once.

Window `number` of length L starts `number`·L seconds after the epoch. Knows nothing of the lake, nor of what time it is.
"""

import hashlib
from datetime import UTC, datetime, timedelta

import msgspec

from watchkeeper.settings import ScheduledJob
from watchkeeper_evaluations.window import Window, parse_reference

SECOND = 1_000_000
"""Microseconds."""

_EPOCH = datetime.fromtimestamp(0, UTC)


class Timetable(msgspec.Struct, frozen=True):
    """One job's. `length`: of its windows, in seconds."""

    job: str
    length: int
    reference: str = "previous"
    min_n: int | None = None

    @classmethod
    def of(cls, job: ScheduledJob) -> "Timetable":
        return cls(job.job, job.window_s, job.reference, job.min_n)

    def number(self, at: int) -> int:
        """Of the window that holds `at` (µs)."""
        return at // (self.length * SECOND)

    def start(self, number: int) -> int:
        """µs."""
        return number * self.length * SECOND

    def window(self, number: int) -> Window:
        return Window(moment_of(self.start(number)), moment_of(self.start(number + 1)))

    def compared_with(self, number: int) -> Window | None:
        """A fixed reference; None: the window before. It may overlap the window, which is for the judge to say."""
        if self.reference == "previous":
            return None
        # Read against a window that nothing overlaps.
        return parse_reference(self.reference, Window(_EPOCH, _EPOCH + timedelta(microseconds=1)))

    def app_id(self, judged_by: str) -> str:
        """Under which the lake numbers the windows that `judged_by` judged; other lengths are other windows."""
        return f"schedule:{self.job}:{self.length}:{judged_by}"

    def evaluation_id(self, number: int, judged_by: str) -> str:
        """The same for whoever judges this window, however often it is begun."""
        digest = hashlib.sha256(f"{self.app_id(judged_by)}:{number}".encode()).hexdigest()[:12]
        return f"{self.job}-{self.window(number).start:%Y%m%dT%H%M%S}-{digest}"


def moment_of(at: int) -> datetime:
    """µs since the epoch → UTC, exactly."""
    return _EPOCH + timedelta(microseconds=at)
