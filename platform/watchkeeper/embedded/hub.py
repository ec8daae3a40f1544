"""Where a model named in the settings is loaded from, and the library that loads it.

Knows nothing of what is done with a model.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from watchkeeper.embedded.weights import Package


class ModelRejected(Exception):
    """A model that cannot be served; the message is one line that says why."""


def locate(name: str, packaged: Package, find: Callable[[Path], Path], models: Path) -> str:
    """What transformers shall load for a model's name in the settings: a folder, or the name of a model on a hub.

    Where it is a folder the hub is never asked; for that, call it before transformers is imported. Raises `WeightsMissing`
    for the packaged name when its weights are not there, and `ModelRejected` for what looks like a folder and is none.
    """
    folder = find(models) if name == packaged.folder else Path(name).expanduser()
    if folder.is_dir():
        os.environ["HF_HUB_OFFLINE"] = "1"
        return str(folder)
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise ModelRejected(f"model {name!r}: there is no such folder")
    return name


def transformers() -> Any:
    """The library, imported late because it takes seconds, and without its progress bars and remarks."""
    import transformers as library

    quiet: Any = library.utils.logging
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    return library


def rejected(name: str, error: Exception) -> ModelRejected:
    """transformers explains at length; its first line says what is wrong."""
    return ModelRejected(f"model {name!r} cannot be loaded: {str(error).strip().partition(chr(10))[0]}")
