"""The end of a segment at which its worker writes: a few frames at a time, all of them or none.

What `write` took is durable when it returns: with `process` it is in the system's hands and survives this process, with
`power` it is on the disk. A segment is locked by whoever holds its pen; who ends what a dead worker left takes it over.
"""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from watchkeeper.record import encode
from watchkeeper.telemetry import frames
from watchkeeper.telemetry.frames import ACCEPT, BIRTH, HEAD_BYTES, MENDED, RECORD, SEAL, Torn, frame, mark, put
from watchkeeper.telemetry.segment import Durability, Opened, SegmentTorn, Tail, unanswered

Carried = tuple[int, str, int]
"""An accept that goes on in another segment: its number, the request's id, and when that was received (µs)."""

DRAFT: Final = ".new"


class Pen:
    """Of one segment, by one process; `release` frees it. `uid`: the segment's."""

    def __init__(self, descriptor: int, uid: str, end: int, durability: Durability) -> None:
        self.uid = uid
        self._descriptor = descriptor
        self._end = end
        self._power = durability == "power"

    @classmethod
    def create(
        cls, path: Path, durability: Durability, tail: Tail, carried: Iterable[Carried] = (), *, mended: bool = False
    ) -> "Pen":
        """Makes the segment that follows on `tail`, with the accepts carried into it; it is there whole, or not at all.
        Raises `OSError`."""
        uid = uuid.uuid4().hex
        accepts = b"".join(frame(ACCEPT, number, at, name) for number, name, at in carried)
        end = frames.START + len(accepts)
        birth = frame(MENDED if mended else BIRTH, tail.accepted, tail.records, uid)
        draft = path.with_suffix(DRAFT)
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            put(descriptor, birth + mark(end) + accepts, 0)
            if durability == "power":
                os.fsync(descriptor)
            os.rename(draft, path)
            if durability == "power":
                sync(path.parent)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
        return cls(descriptor, uid, end, durability)

    def write(self, some: Sequence[bytes]) -> bool:
        """Adds frames; False: the file is not what this pen left, so that it must be left too. Raises `OSError`; then none
        of them is there."""
        status = os.fstat(self._descriptor)
        if not status.st_nlink or status.st_size != self._end:
            return False
        added = b"".join(some)
        end = self._end + len(added)
        try:
            put(self._descriptor, added, self._end)
            if self._power:
                os.fdatasync(self._descriptor)
            # Where power fails this may not be on the disk: who ends the segment looks beyond it.
            put(self._descriptor, mark(end), HEAD_BYTES)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._end)
            raise
        self._end = end
        return True

    def seal(self, tail: Tail) -> None:
        """Ends the segment, whose last numbers these are. Raises `OSError`."""
        self.write([frame(SEAL, tail.accepted, tail.records, self.uid)])
        self.settle()

    def settle(self) -> None:
        """Where power may fail: waits until the mark is on the disk too, so that nobody holds for torn what comes before
        another segment. Raises `OSError`."""
        if self._power:
            os.fdatasync(self._descriptor)

    def release(self) -> None:
        """Writes no more."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def end(path: Path) -> int:
    """Ends a segment that a worker left: each open accept gets its record, `interrupted`, in one step, however often it is
    tried. Returns how many requests were interrupted. Raises `SegmentTorn`, and `OSError` when it cannot be done now: also
    when its worker lives after all."""
    descriptor = take(path)
    try:
        file = Opened(descriptor, frames.whole_until(descriptor, frames.marked(descriptor)))
        if file.seal is not None:
            put(descriptor, mark(file.end), HEAD_BYTES)  # its worker may have been killed before that
            os.fdatasync(descriptor)
            return 0
        os.ftruncate(descriptor, file.end)  # what its worker was killed in the midst of
        tail, opened = file.tail(), file.unanswered()
        pen = Pen(descriptor, file.uid, file.end, "power")
        added = []
        for number, (name, at) in enumerate(opened.items(), tail.records + 1):
            record = unanswered(name, at, "interrupted", 500, replica=path.parent.name)
            added.append(frame(RECORD, number, at, name, encode(record)))
        added.append(frame(SEAL, tail.accepted, tail.records + len(opened), file.uid))
        if not pen.write(added):
            raise OSError(f"{path} changed while it was being ended")
        pen.settle()
        return len(opened)
    except Torn as torn:
        raise SegmentTorn(path, str(torn)) from torn
    finally:
        os.close(descriptor)


def take(path: Path) -> int:
    """A segment that its worker left, opened and locked: the descriptor is to be closed. Raises `OSError`, also when the
    worker lives."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise OSError(f"{path}: another process writes it") from error
        raise


def sync(folder: Path) -> None:
    """Puts a folder's list of names on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
