"""The teacher of the six labels: `tox-block` 0.1.2 (MIT), a bidirectional LSTM trained on the CC0 Jigsaw comments.

Its weights are read from the unpacked wheel and run in numpy: TensorFlow is not needed, and no code of the package is run
(its vocabulary is a pickle, read by an unpickler that builds plain dictionaries and refuses everything else).
Knows nothing of what its labels are used for.
"""

import importlib
import pickle
import re
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

_LENGTH: Final = 100
_WORDS: Final = 20_000
_UNITS: Final = 50
# The package's own range of each output, to which it rescales: toxic, severe, obscene, threat, insult, identity hate.
_LOW: Final = np.array([0.002116, 0.000011, 0.000347, 0.000040, 0.000373, 0.000074], np.float32)
_HIGH: Final = np.array([0.999858, 0.648682, 0.997533, 0.918887, 0.986303, 0.901117], np.float32)
_NOISE: Final = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}|http://.*\..*|\[\[user.*\|")
_SPLIT: Final = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', " "))


class _Plain:
    """Stands for the two classes of the pickle; only their state is wanted."""


class _Unpickler(pickle.Unpickler):
    _allowed: Final[dict[tuple[str, str], Any]] = {
        ("tox_block.data_processing.preprocessors", "TokenSequencer"): _Plain,
        ("keras_preprocessing.text", "Tokenizer"): _Plain,
        ("collections", "OrderedDict"): OrderedDict,
        ("collections", "defaultdict"): defaultdict,
        ("builtins", "int"): int,
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return self._allowed[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"the teacher's vocabulary names {module_name}.{global_name}") from None


class Teacher:
    """`folder`: the unpacked wheel's `tox_block`."""

    def __init__(self, folder: Path) -> None:
        trained = folder / "trained_models"
        with (trained / "encoder_0.1.2.pkl").open("rb") as file:
            self._index: dict[str, int] = _Unpickler(file).load().tokenizer.word_index
        h5py: Any = importlib.import_module("h5py")  # installed by who trains: nothing else needs it
        with h5py.File(trained / "lstm_model_0.1.2.h5") as file:
            weights = file["model_weights"]
            self._words = np.array(weights["embedding/embedding/embeddings:0"], np.float32)
            self._cells = [
                tuple(
                    np.array(weights[f"bidirectional/bidirectional/{way}_lstm/{part}:0"], np.float32)
                    for part in ("kernel", "recurrent_kernel", "bias")
                )
                for way in ("forward", "backward")
            ]
            self._dense = [
                (
                    np.array(weights[f"{name}/{name}/kernel:0"], np.float32),
                    np.array(weights[f"{name}/{name}/bias:0"], np.float32),
                )
                for name in ("dense", "dense_1")
            ]

    def score(self, texts: Sequence[str], batch: int = 512) -> Matrix:
        """(n, 6) in [0, 1], in the order toxic, severe toxic, obscene, threat, insult, identity hate."""
        parts = [self._batch(texts[at : at + batch]) for at in range(0, len(texts), batch)]
        return np.concatenate(parts) if parts else np.zeros((0, 6), np.float32)

    def _batch(self, texts: Sequence[str]) -> Matrix:
        tokens = np.zeros((len(texts), _LENGTH), np.int64)  # padded and cut at the front
        for row, text in enumerate(texts):
            clean = _NOISE.sub("", text.lower().replace("\n", " ")).translate(_SPLIT)
            known = [i for word in clean.split() if 0 < (i := self._index.get(word, 0)) < _WORDS][-_LENGTH:]
            if known:
                tokens[row, -len(known) :] = known
        embedded = self._words[tokens]
        top = [_lstm(embedded[:, ::step], cell) for step, cell in zip((1, -1), self._cells, strict=True)]
        (kernel, bias), (kernel_out, bias_out) = self._dense
        hidden = np.maximum(np.concatenate(top, axis=1) @ kernel + bias, 0.0)
        raw = 1.0 / (1.0 + np.exp(-(hidden @ kernel_out + bias_out)))
        return np.asarray(np.clip(np.abs((raw - _LOW) / (_HIGH - _LOW)), 0.0, 1.0), np.float32)


def _lstm(inputs: Matrix, cell: tuple[Matrix, ...]) -> Matrix:
    """(n, steps, 50) → (n, 50): each unit's largest value over all steps. Keras' gates: input, forget, cell, output."""
    kernel, recurrent, bias = cell
    state = memory = np.zeros((inputs.shape[0], _UNITS), np.float32)
    top = np.full_like(state, -np.inf)
    for step in range(inputs.shape[1]):
        gates = inputs[:, step] @ kernel + state @ recurrent + bias
        let_in, forget, value, let_out = np.split(gates, 4, axis=1)
        memory = _hard_sigmoid(forget) * memory + _hard_sigmoid(let_in) * np.tanh(value)
        state = _hard_sigmoid(let_out) * np.tanh(memory)
        top = np.maximum(top, state)
    return top


def _hard_sigmoid(values: Matrix) -> Matrix:
    return np.asarray(np.clip(0.2 * values + 0.5, 0.0, 1.0), np.float32)
