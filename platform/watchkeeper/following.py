"""A file that somebody else writes, followed without a restart. Knows nothing of what is in it."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

LOOK_S: Final = 1.0
"""A file is looked at no more often than this."""

T = TypeVar("T")

Stamp = tuple[int, int, int]
"""Changes when a file does, also when it is replaced within one tick of the file system's clock."""


class Followed(Generic[T]):
    """A file, and what it held when it was last good. `read`: what is in it, None without a file; raises one of `broken`,
    and then what was held stays. Asked on every request: most looks are one comparison.

    Times are monotonic seconds. Making it raises what `read` raises.
    """

    def __init__(
        self, file: Path, now: float, read: Callable[[], T | None], broken: tuple[type[Exception], ...] = ()
    ) -> None:
        self._file = file
        self._read = read
        self._broken = broken
        self._looked_at = now
        self._stamp = self._look()
        self.held = read()

    def look(self, now: float) -> T | None:
        if now - self._looked_at < LOOK_S:
            return self.held
        self._looked_at = now
        stamp = self._look()
        if stamp != self._stamp:
            with contextlib.suppress(OSError):  # then it is tried again
                with contextlib.suppress(*self._broken):
                    self.held = self._read()
                self._stamp = stamp
        return self.held

    def _look(self) -> Stamp | None:
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
