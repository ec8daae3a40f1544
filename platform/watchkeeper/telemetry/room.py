"""How much a spool folder may hold: what it holds now, its limit, and what the disk has left.

A reserve is kept below both: room for the records of what was accepted before somebody looked. Standard library only, since
the gateway loads this. Knows nothing of what the files are.
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final, NamedTuple

MAX_BYTES: Final = 4_000_000_000

RESERVE_BYTES: Final = 64 << 20
"""Kept free at most, below the limit as on the disk."""

RESERVE_SHARE: Final = 16
"""... and at most this part of the whole: a small limit, or a small disk, is not all reserve."""


class Room(NamedTuple):
    """`used`: bytes of all files of the folder; `limit`: what they may come to; `free`, `disk`: bytes that its disk has
    left, and has."""

    used: int
    limit: int
    free: int
    disk: int

    @property
    def left(self) -> int:
        """Bytes that may be taken in before admission ends; 0 or less: it has ended."""
        return min(self.limit - self.used - reserve(self.limit), self.left_on_disk)

    @property
    def left_on_disk(self) -> int:
        """`left`, as far as the disk is concerned."""
        return self.free - reserve(self.disk)

    @property
    def lack(self) -> str | None:
        """Why nothing more is taken in, in words; None: there is room."""
        if self.left > 0:
            return None
        if self.limit - self.used <= reserve(self.limit):
            return f"it holds {megabytes(self.used)} of the {megabytes(self.limit)} that gateway.max_spool_bytes allows"
        return f"its disk has only {megabytes(self.free)} of {megabytes(self.disk)} left"


def look(folder: Path, limit: int) -> Room:
    """The room of a spool folder, now. A few microseconds a file. Raises `OSError` when its disk cannot be asked."""
    there = folder if folder.exists() else Path(os.path.abspath(folder)).parent
    while not there.exists():
        there = there.parent
    disk = shutil.disk_usage(there)
    return Room(sizes(folder), limit, disk.free, disk.total)


def sizes(folder: Path) -> int:
    """Bytes of all files under a spool folder. A file that goes meanwhile does not count."""
    total = 0
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += sizes(Path(entry.path))
            else:
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def reserve(whole: int) -> int:
    """What is kept free of a limit or a disk of so many bytes."""
    return min(RESERVE_BYTES, whole // RESERVE_SHARE)


def megabytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e6:,.1f} MB"
