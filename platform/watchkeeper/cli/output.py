"""How commands speak: a table or one JSON document on stdout, all else on stderr; settings errors are wrong use."""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from watchkeeper.settings import Settings, SettingsError, load


class WrongUse(Exception):
    """What the user asked for cannot be done as asked; the message is one line that says what to change."""


def settings(config: Path | None, data: Path | None) -> Settings:
    """The effective settings. Raises `WrongUse`."""
    try:
        return load(config, data)
    except SettingsError as error:
        raise WrongUse(str(error)) from None


def document(body: Any) -> None:
    """The one JSON document of `--json`."""
    print(json.dumps(body, indent=2, ensure_ascii=False, default=str), flush=True)


def note(line: str) -> None:
    """A line for people, beside the answer."""
    print(line, file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """A table on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(
        *header, title=title, title_justify="left", header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for row in rows:
        grid.add_row(*(Text("" if cell is None else str(cell), overflow="fold") for cell in row))
    Console().print(grid)


def flat(plain: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings → rows of dotted key and value."""
    rows: list[tuple[str, str]] = []
    for key, value in plain.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            rows += flat(value, f"{name}.")
        else:
            rows.append((name, json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value))
    return rows


def leave(code: int) -> NoReturn:
    """Ends the process, also with threads at work: one inside the lake's native code would crash an interpreter that is
    taken down around it, and the exit code would be the crash's. Only for commands that may be killed at any moment."""
    if threading.active_count() > 1:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def on_termination(act: Callable[[], object]) -> None:
    """Calls `act` on SIGTERM and SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: act())
