"""What a reader can set going: commands of ours, run as processes, so that the app loads neither mlflow nor torch.

A page names the command that it runs, and shows its own result or its own line of error. The settings go into a file that
only this user can read (they may hold an object store's keys) and that is gone when the command has ended. No text meets a
shell. Who may ask at all: see `delivery`; here only an app that is bound to this machine runs anything.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from watchkeeper.settings import Settings, as_toml
from watchkeeper_dashboards.delivery import LOOPBACK

TIMEOUT_S: Final = 120.0
_LONGEST: Final = 400
"""Characters of an error that a page shows."""


@dataclass(frozen=True)
class Command:
    """`name`: `release promote`. `options`: `--reason` → its value, None for a switch. `stdin`: what it reads."""

    name: str
    arguments: Sequence[str] = ()
    options: Mapping[str, str | None] | None = None
    stdin: str = ""

    @property
    def shown(self) -> str:
        """As a person would type it."""
        options = [part for name, value in self._options for part in (name, *([] if value is None else [value]))]
        return shlex.join(["watchkeeper", *self.name.split(), *self.arguments, *options])

    def argv(self, config: str, data: str) -> list[str]:
        """Values are tied to their options and arguments come after `--`: no text is ever taken for an option."""
        options = [name if value is None else f"{name}={value}" for name, value in self._options]
        ours = ["--json", "--config", config, "--data", data]
        return [sys.executable, "-m", "watchkeeper", *self.name.split(), *options, *ours, "--", *self.arguments]

    @property
    def _options(self) -> list[tuple[str, str | None]]:
        return list((self.options or {}).items())


@dataclass(frozen=True)
class Outcome:
    """How a command ended. `document`: what it printed with `--json`, also where the answer is "no" (codes 1 and 3).
    `error`: one line, None where it went well."""

    command: str
    code: int | None
    document: Any = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None

    def __getitem__(self, name: str) -> Any:
        """A field of the document; None where there is none."""
        return self.document.get(name) if isinstance(self.document, dict) else None


def refusal(settings: Settings) -> str | None:
    """Why this app runs nothing; None: it does. Without a log-in, whoever reaches the app could act."""
    host = settings.dashboard.host
    if host in LOOPBACK:
        return None
    return f"Actions are off: this dashboard is bound to {host}, where there is no log-in. Type the command instead."


def run(settings: Settings, command: Command, timeout_s: float = TIMEOUT_S) -> Outcome:
    """Runs it to its end, or kills it when `timeout_s` has passed. Never raises for what the command does."""
    refused = refusal(settings)
    if refused:
        return Outcome(command.shown, None, error=refused)
    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as config:  # mode 0600
        config.write(as_toml(settings))
        config.flush()
        try:
            process = subprocess.Popen(
                command.argv(config.name, str(settings.data)),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True, encoding="utf-8", errors="replace", start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            return Outcome(command.shown, None, error=f"It could not be started: {_line(str(error))}")
        try:
            output, complaints = process.communicate(command.stdin, timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return Outcome(command.shown, None, error=f"It took longer than {timeout_s:.0f} s and was ended")
    return _outcome(command, process.returncode, output, complaints)


def _outcome(command: Command, code: int, output: str, complaints: str) -> Outcome:
    try:
        document = json.loads(output)
    except ValueError:
        document = None
    if code == 0:
        return Outcome(command.shown, code, document)
    reason = document.get("reason") if isinstance(document, dict) else None
    return Outcome(
        command.shown, code, document, _line(str(reason or _complaint(complaints) or f"It ended with code {code}"))
    )


def _complaint(text: str) -> str:
    """What a command said on stderr: its last line, or what stands in the frame around a fault in its use."""
    lines = text.splitlines()
    framed = [line.strip("│ ") for line in lines if line.startswith("│")]
    last = next((line for line in reversed(lines) if line.strip()), "")
    return " ".join(framed) if framed else last.removeprefix("watchkeeper: ")


def _line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]
