"""The process that takes HTML and PDF files apart: `python -m watchkeeper.serving.extraction SECONDS`.

Reads a JSON string a line, a path, and writes an object a line: its text, as Markdown where it has headings, lists or
tables, or the reason why there is none. Its memory is limited, and the CPU time that one file may take. Ends with its
input.
"""

import contextlib
import resource
import sys
from pathlib import Path
from typing import Final

import msgspec

from watchkeeper.serving import markup
from watchkeeper.serving.passages import Unreadable

MEMORY: Final = 2_000_000_000
"""Bytes of address space; three times what a large file takes."""
MAX_CHARACTERS: Final = 4_000_000


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """`reason`: why there is no text; empty where there is."""

    text: str = ""
    reason: str = ""


def extract(path: Path) -> Told:
    """One file. Raises nothing: whatever a file does to its reader is told as the reason."""
    try:
        text = _text(path)
    except Unreadable as refused:
        return Told(reason=str(refused))
    except RecursionError:
        return Told(reason="is nested too deeply")
    except MemoryError:
        return Told(reason="takes too much memory to read")
    except OSError as error:
        return Told(reason=error.strerror or type(error).__name__)
    except Exception as error:
        return Told(reason=f"is damaged: {type(error).__name__}")
    if len(text) > MAX_CHARACTERS:
        return Told(reason=f"has more than {MAX_CHARACTERS // 1_000_000} million characters")
    return Told(text=text.encode("utf-8", "replace").decode())


def _text(path: Path) -> str:
    if path.suffix.lower() == ".pdf":
        from watchkeeper.serving import pdf  # the library is loaded by this process only

        return pdf.text_of(path.read_bytes(), path.stem.replace("_", " "))
    return markup.text_of(path.read_bytes())


def _allow(seconds: float) -> None:
    """So much CPU time from now on; then the system ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def main() -> None:
    seconds = float(sys.argv[1])
    with contextlib.suppress(ValueError, OSError):  # not every system has such a limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out = sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints is no answer
    for line in sys.stdin.buffer:
        _allow(seconds)
        out.write(msgspec.json.encode(extract(Path(msgspec.json.decode(line, type=str)))) + b"\n")
        out.flush()


if __name__ == "__main__":
    main()
