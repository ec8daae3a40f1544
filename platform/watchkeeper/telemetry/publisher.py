"""The publisher: writes what MLflow says of releases to where gateways read it, and leaves it there while MLflow is away.

`<data>/release.json` is the champion, `<data>/releases/<name>@<version>.json` every release, `<data>/challenger.json` the
one that serves a share beside the champion, with that share. A version that is not what was registered is not written:
what was good of it stays, but as a challenger it goes. Knows nothing of who reads the files, and never waits for delivery.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.release import CHALLENGER_FILE, FILE_NAME, FOLDER, Challenger, Release, file_of
from watchkeeper.tracking.prompts import Releases

EVERY_S: Final = 2.0
WHOLE_S: Final = 30.0
"""So often everything is read again whatever the stamp says: a tag that was changed does not show in it."""

_log = logging.getLogger(__name__)


class PublisherStatus(msgspec.Struct, frozen=True):
    """`champion`: the id of the release that MLflow named last; None: none yet, or MLflow has not been reached since this
    shipper started. `challenger`: the release that serves a `share` of the requests beside it. `error`: what keeps a
    release from being published, one line."""

    champion: str | None
    releases: int
    error: str | None
    challenger: str | None = None
    share: float = 0.0


class Publisher:
    """`clock`: monotonic seconds. `pause` waits that many seconds, less when it is to stop."""

    def __init__(
        self,
        releases: Releases,
        data: Path,
        stop: threading.Event,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self.status = PublisherStatus(None, 0, None)
        self._releases = releases
        self._data = data
        self._stop = stop
        self._clock = clock
        self._pause = pause or stop.wait
        self._seen: bytes | None = None
        self._read_at = 0.0
        self._said: str | None = None

    def run(self, once: bool) -> None:
        """Until it is to stop, or once. Outlives every failure."""
        while not self._stop.is_set():
            try:
                self.publish()
            except Exception as error:  # MLflow is away, or the disk is full: the files stay as they are
                self._seen = None
                self._report(f"{type(error).__name__}: {error}")
            if once:
                return
            self._pause(EVERY_S)

    def publish(self) -> None:
        """Brings the files up to what MLflow says, where that may have changed."""
        stamp = self._releases.stamp()
        if stamp == self._seen and self._clock() - self._read_at < WHOLE_S:
            return
        self._read_at = self._clock()
        shelf = self._releases.shelf()
        kept = {one.release.id for one in shelf.registered} | {other.id for other in shelf.changed}
        for one in shelf.registered:
            _write(file_of(self._data, one.release.id), one.release)
        for old in (self._data / FOLDER).glob(f"{self._releases.name}@*.json") if kept else ():
            if old.stem not in kept:
                old.unlink(missing_ok=True)
        if shelf.champion is not None:
            _write(self._data / FILE_NAME, shelf.champion)
        challenger = shelf.challenger
        if challenger is not None:
            _write(self._data / CHALLENGER_FILE, challenger)
        else:
            (self._data / CHALLENGER_FILE).unlink(missing_ok=True)
        self._seen = stamp
        serving = shelf.champion.id if shelf.champion else None
        self.status = msgspec.structs.replace(
            self.status,
            champion=serving,
            releases=len(shelf.registered),
            challenger=challenger.release.id if challenger else None,
            share=challenger.share if challenger else 0.0,
        )
        why = [other.why for other in shelf.changed]
        if serving is None and (self._data / FILE_NAME).exists() and not why:
            why = [f"MLflow names no champion among {self._releases.name}; what served goes on serving"]
        if shelf.canary_fault is not None:
            why.append(shelf.canary_fault)
        self._report("; ".join(why) or None)

    def _report(self, error: str | None) -> None:
        self.status = msgspec.structs.replace(self.status, error=error)
        if error is not None and error != self._said:
            _log.warning("releases stay as they were: %s", error)
        self._said = error


def _write(file: Path, release: Release | Challenger) -> None:
    """Whole or not at all, and on the disk; nothing where it has this content already."""
    body = msgspec.json.format(msgspec.json.encode(release), indent=2)
    try:
        if file.read_bytes() == body:
            return
    except FileNotFoundError:
        file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.new")
    with draft.open("wb") as out:
        out.write(body)
        out.flush()
        os.fsync(out.fileno())
    os.replace(draft, file)
