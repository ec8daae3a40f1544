"""Files of a knowledge base as text that can be cut into passages. Markdown and plain text are read as they are; HTML and
PDF are taken apart by a process of its own (extraction.py), because such files come from anywhere: one that takes too
long or too much memory costs that process, is left out, and is named. Knows nothing of what is in them.
"""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.serving import extraction
from watchkeeper.serving.passages import Unreadable

TEXTS: Final = frozenset({".md", ".markdown", ".txt", ".text"})
MARKUP: Final = frozenset({".html", ".htm", ".xhtml"})
SUFFIXES: Final = TEXTS | MARKUP | {".pdf"}

MAX_BYTES: Final = {".pdf": 30_000_000} | dict.fromkeys(MARKUP, 5_000_000) | dict.fromkeys(TEXTS, 2_000_000)
EXTRACTION_S: Final = 60.0
"""Of one file. The process also ends itself after so much CPU time, should nobody be left to end it."""


class ReaderBroken(Exception):
    """Files cannot be taken apart at all now: the process does not start."""


class Reader:
    """Reads files, for one thread at a time. The process is started for the first file that needs it and ends with `rest`
    or `close`; `seconds`: how long one file may take."""

    def __init__(self, seconds: float = EXTRACTION_S) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, path: Path) -> str:
        """A file's text, as Markdown where it has headings, lists or tables. Raises `Unreadable`, `ReaderBroken`."""
        suffix = path.suffix.lower()
        most = MAX_BYTES[suffix]
        try:
            if path.stat().st_size > most:
                raise Unreadable(f"larger than {most // 1_000_000} MB")
            if suffix in TEXTS:
                return _decoded(path.read_bytes())
        except OSError as error:
            raise Unreadable(error.strerror or type(error).__name__) from None
        return self._extracted(path)

    def rest(self) -> None:
        """Ends the process, which holds some 40 MB, until it is needed again."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    close = rest

    def _extracted(self, path: Path) -> str:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        watch = threading.Timer(self._seconds, end)
        watch.daemon = True
        watch.start()
        try:
            process.stdin.write(msgspec.json.encode(os.fspath(path.absolute())) + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except (OSError, ValueError):  # it has gone, or is closed under our hands
            line = b""
        finally:
            watch.cancel()
        if not line.endswith(b"\n"):
            self.rest()
            raise Unreadable(f"took more than {self._seconds:g} s" if late.is_set() else "broke the reader of such files")
        told = msgspec.json.decode(line, type=extraction.Told)
        if told.reason:
            raise Unreadable(told.reason)
        return told.text

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-m", extraction.__name__, f"{self._seconds:g}"]
            try:
                # Not in the terminal's group: Ctrl-C ends the gateway, which ends this.
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
            except OSError as error:
                raise ReaderBroken(f"{command[0]}: {error.strerror or type(error).__name__}") from error
        return self._process


def _decoded(body: bytes) -> str:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("not UTF-8") from None
    if "\0" in text:
        raise Unreadable("not a text file")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()
