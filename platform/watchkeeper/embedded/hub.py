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


def share_cores(threads: int) -> None:
    """Loads torch for a server that is not alone on its machine. `threads` 0: as many as torch sees fit.

    Threads that spin while they wait for each other take the time that other processes need, and then wait even longer:
    beside others a forward pass cost twenty times as much CPU. Only what is set before torch is loaded counts.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    if threads:
        torch.set_num_threads(threads)


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
