"""What the commands have in common on a command line: options, panels of the help, the example at its end."""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path | None, typer.Option("--config", help="Settings file (default: watchkeeper.toml here, if any).")]
Data = Annotated[Path | None, typer.Option("--data", help="Data folder (default: from the settings, ./.watchkeeper).")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, all else on stderr.")]

ONE_PROCESS = "One process"
WHOLE = "Everything at once"
ASK = "Ask"
IMPROVE = "Make it better"
KEEP = "Keep the data"
ADMIT = "Say who may ask"


def example(line: str) -> str:
    """The last line of a command's help."""
    return f"Example: {line}"
