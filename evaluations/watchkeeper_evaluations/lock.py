"""One at a time on a data folder: whoever reads first and then writes what follows from it.

A file under a lock of the system's, which ends with its process. Holds on one machine only.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alone(data: Path, name: str) -> Iterator[None]:
    """No other thread or process holds the lock `name` of this folder meanwhile; waits for one that does. Not to be taken
    again inside."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / name).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
