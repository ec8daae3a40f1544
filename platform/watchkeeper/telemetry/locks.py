"""Who may work on what: files that are locked for as long as a process lives."""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path


def lock(
    file: Path,
    *,
    patience_s: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int | None:
    """Locks a file, which is made where it is missing; the kernel frees it when this process ends, however that comes.

    Returns a file descriptor to close, or None when another process still holds the lock after `patience_s`.
    """
    held = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    until = clock() + patience_s
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return held
        except BlockingIOError:
            if clock() >= until:
                os.close(held)
                return None
            sleep(0.01)
        except BaseException:
            os.close(held)
            raise
