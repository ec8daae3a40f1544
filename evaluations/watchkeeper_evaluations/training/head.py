"""Fits a head on the frozen sentence embedding: one hidden layer, on soft targets, with a fixed seed.

Writes what `watchkeeper.encoder.heads` reads. Knows nothing of what the classes mean.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import nn
from transformers import AutoModel, AutoTokenizer

Floats = NDArray[np.float32]

WINDOW: Final = 256
HIDDEN: Final = 96
BATCH: Final = 256


class Embedder:
    """Sentence embeddings of the encoder in `folder`: mean of the tokens, unit length. Remembers what it has embedded."""

    def __init__(self, folder: Path) -> None:
        self.sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        self._known: dict[str, Floats] = {}

    def __call__(self, texts: Sequence[str]) -> Floats:
        """(n, 384)."""
        new = sorted({text for text in texts if text not in self._known}, key=len)
        with torch.no_grad():
            for at in range(0, len(new), 64):
                some = new[at : at + 64]
                inputs = self._tokenizer(some, truncation=True, max_length=WINDOW, padding=True, return_tensors="pt")
                states = self._model(**inputs).last_hidden_state
                mask = inputs["attention_mask"].unsqueeze(-1)
                rows = nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
                self._known.update(zip(some, rows.numpy(), strict=True))
        return np.stack([self._known[text] for text in texts])


def fit(embeddings: Floats, targets: Floats, weights: Floats, seed: int, epochs: int = 24) -> Any:
    """A fitted network. `targets` (n, k) in [0, 1]; `weights` (n,): what each row counts."""
    torch.manual_seed(seed)
    inputs, goal, weight = (torch.from_numpy(array) for array in (embeddings, targets, weights))
    width = inputs.shape[1]
    network: Any = nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(0.2), nn.Linear(HIDDEN, goal.shape[1]))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * -(-len(inputs) // BATCH))
    scale = width**0.5
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(inputs)), BATCH):
            # A unit row's entries are about 1/sqrt(384); noise of a fifth of that keeps single texts from being learnt.
            noisy = inputs[rows] * scale + 0.2 * torch.randn(len(rows), width)
            logits = network(noisy)
            loss: Any = nn.functional.binary_cross_entropy_with_logits(logits, goal[rows], weight=weight[rows, None])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        network[0].weight *= scale
    return network.eval()


def save(network: Any, folder: Path, name: str, classes: Sequence[str], encoder_sha256: str) -> None:
    """`<name>.npz` and its card `<name>.json`."""
    arrays: dict[str, Any] = {
        "hidden": network[0].weight.T,
        "hidden_bias": network[0].bias,
        "out": network[3].weight.T,
        "out_bias": network[3].bias,
    }
    write({key: value.detach().numpy() for key, value in arrays.items()}, folder, name, classes, encoder_sha256)


def fit_linear(embeddings: Floats, truth: NDArray[np.bool_], weights: Floats, l2: float) -> dict[str, Floats]:
    """A head without a layer between, for few rows of few kinds: what it has learnt of one kind is less likely to be that
    kind alone. `l2`: how dear a weight is. Its arrays, as `write` takes them."""
    width = embeddings.shape[1]

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = embeddings @ at[:-1] + at[-1]
        wrong = weights * (1 / (1 + np.exp(-logits)) - truth)
        value = float((weights * (np.logaddexp(0, logits) - truth * logits)).sum() + l2 / 2 * (at[:-1] ** 2).sum())
        return value, np.append(embeddings.T @ wrong + l2 * at[:-1], wrong.sum())

    found = minimize(loss, np.zeros(width + 1), jac=True, method="L-BFGS-B").x
    # The layer between has two units, one for each sign, since what is below 0 does not pass it.
    return {
        "hidden": np.stack([found[:-1], -found[:-1]], axis=1),
        "hidden_bias": np.zeros(2),
        "out": np.array([[1.0], [-1.0]]),
        "out_bias": found[-1:],
    }


def write(arrays: dict[str, Any], folder: Path, name: str, classes: Sequence[str], encoder_sha256: str) -> None:
    """`<name>.npz` and its card `<name>.json`, of a head's arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, **{key: value.astype(np.float16) for key, value in arrays.items()})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.npz").write_bytes(buffer.getvalue())
    card = {
        "name": name,
        "classes": list(classes),
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "encoder_sha256": encoder_sha256,
    }
    (folder / f"{name}.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
