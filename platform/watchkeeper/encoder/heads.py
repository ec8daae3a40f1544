"""Small judges on the sentence embedding: one hidden layer each, numpy alone, microseconds a text.

The weights lie in `heads/<name>.npz`, what they were trained on and how well they do in `heads/README.md`. A head reads the
embedding of all-MiniLM-L6-v2 (mean pooled, unit length, 384 dimensions) and nothing else: of a text over 256 tokens it
knows the beginning only, and of a long one with one ugly sentence little.
Knows nothing of guards, of thresholds or of where an embedding comes from.
"""

import functools
import hashlib
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
HeadName = Literal["toxicity", "injection", "difficulty"]

DIMENSIONS: Final = 384
FOLDER: Final = Path(__file__).with_name("heads")


class Card(msgspec.Struct, frozen=True):
    """What lies beside the weights. `sha256`: of the `.npz`; `encoder_sha256`: of the encoder it was trained on."""

    name: str
    classes: tuple[str, ...]
    sha256: str
    encoder_sha256: str


class HeadBroken(Exception):
    """The packaged weights are missing or are not what their card says. The message is one line."""


class Head:
    """Probabilities of some classes, each on its own (several may hold). `version` changes with the weights."""

    def __init__(self, card: Card, weights: tuple[Floats, Floats, Floats, Floats]) -> None:
        self.name = card.name
        self.classes = card.classes
        self.version = f"{card.name}-head-{card.sha256[:8]}"
        self._hidden, self._hidden_bias, self._out, self._out_bias = weights

    def score(self, embeddings: Floats) -> Floats:
        """(n, 384) unit rows → (n, classes) in [0, 1]. Raises `ValueError` on another shape or on what is no number."""
        rows = np.asarray(embeddings, np.float32)
        if rows.ndim != 2 or rows.shape[1] != DIMENSIONS:
            raise ValueError(f"a head takes rows of {DIMENSIONS} numbers, not shape {rows.shape}")
        if not np.isfinite(rows).all():
            raise ValueError("an embedding holds what is not a number")
        hidden = np.maximum(rows @ self._hidden + self._hidden_bias, 0.0)
        logits = np.clip(hidden @ self._out + self._out_bias, -30.0, 30.0)
        return np.asarray(1.0 / (1.0 + np.exp(-logits)), np.float32)


@functools.cache
def load(name: HeadName) -> Head:
    """The packaged head, read once. Raises `HeadBroken`."""
    return read(FOLDER, name)


def read(folder: Path, name: str) -> Head:
    """The head `name` in `folder`, checked against its card. Raises `HeadBroken`."""
    file = folder / f"{name}.npz"
    try:
        card = msgspec.json.decode((folder / f"{name}.json").read_bytes(), type=Card)
        content = file.read_bytes()
    except (OSError, msgspec.DecodeError) as error:
        raise HeadBroken(f"the {name} head in {folder} cannot be read: {error}") from None
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise HeadBroken(f"{file} is not the file that its card describes: install the package again")
    with np.load(file, allow_pickle=False) as arrays:
        hidden, hidden_bias, out, out_bias = (
            np.asarray(arrays[key], np.float32) for key in ("hidden", "hidden_bias", "out", "out_bias")
        )
    return Head(card, (hidden, hidden_bias, out, out_bias))
