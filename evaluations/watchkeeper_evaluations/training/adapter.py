"""A low-rank adapter on the packaged encoder, trained as Detoxify's BertForSequenceClassification with six labels.

The encoder's lower layers and words stay as they are; the linear maps of the upper ones become `W + scale * up @ down`;
pooler and classifier are trained whole. What is saved is only that, as float16: under a megabyte.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, BertForSequenceClassification

RANK: Final = 10
SCALE: Final = 2.0
FIRST_LAYER: Final = 2
WINDOW: Final = 88
BATCH: Final = 48
RATE: Final = 8e-4


class LowRank(nn.Module):
    """A frozen linear map and what is added to it. `up` starts at zero, so that training starts from the encoder."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(torch.randn(RANK, linear.in_features) / linear.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(linear.out_features, RANK))

    def forward(self, inputs: Tensor) -> Tensor:
        base: Tensor = self.linear(inputs)
        return base + SCALE * (inputs @ self.down.T) @ self.up.T


class Trainee:
    """The encoder in `folder` with an untrained adapter."""

    def __init__(self, folder: Path, labels: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        # Dropout inside the encoder costs a CPU half of its time and helps little where so few weights are trained.
        self.model: Any = BertForSequenceClassification.from_pretrained(
            folder,
            num_labels=labels,
            local_files_only=True,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            classifier_dropout=0.1,
        )
        for parameter in self.model.parameters():
            parameter.requires_grad = False
        self.maps = dict(self._adapt())
        for name, parameter in self.model.named_parameters():
            if name.startswith(("bert.pooler.", "classifier.")):
                parameter.requires_grad = True

    def _adapt(self) -> Iterator[tuple[str, LowRank]]:
        for number, layer in enumerate(self.model.bert.encoder.layer):
            if number < FIRST_LAYER:
                continue
            linears = [(name, module) for name, module in layer.named_modules() if isinstance(module, nn.Linear)]
            for name, module in linears:
                adapted = LowRank(module)
                parent, _, leaf = name.rpartition(".")
                setattr(layer.get_submodule(parent), leaf, adapted)
                yield f"bert.encoder.layer.{number}.{name}", adapted

    def fit(
        self, texts: Sequence[str], targets: NDArray[np.float32], epochs: int, seed: int, report: Callable[[str], None]
    ) -> None:
        """Trains on soft targets (n, labels) in [0, 1]; batches hold texts of like length, in a random order."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01)
        encoded = self.tokenizer(list(texts), truncation=True, max_length=WINDOW)["input_ids"]
        steps = epochs * -(-len(texts) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1, pct_start=0.08)
        loss_of = nn.BCEWithLogitsLoss()
        goal = torch.from_numpy(targets)
        rng = random.Random(seed)
        started = time.monotonic()
        self.model.train()
        for epoch in range(epochs):
            losses = []
            for rows in _batches([len(ids) for ids in encoded], rng):
                inputs = self.tokenizer.pad({"input_ids": [encoded[row] for row in rows]}, return_tensors="pt")
                loss = loss_of(self.model(**inputs).logits, goal[rows])
                loss.backward()
                nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                losses.append(loss.item())
                if len(losses) % 20 == 0:
                    report(
                        f"{epoch}:{len(losses)} loss {np.mean(losses[-20:]):.4f} after {time.monotonic() - started:.0f} s"
                    )

    def score(self, texts: Sequence[str], batch: int = 64) -> NDArray[np.float32]:
        """(n, labels) probabilities."""
        self.model.eval()
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        scores = np.zeros((len(texts), self.model.config.num_labels), np.float32)
        with torch.no_grad():
            for at in range(0, len(order), batch):
                rows = order[at : at + batch]
                inputs = self.tokenizer(
                    [texts[row] for row in rows], truncation=True, max_length=512, padding=True, return_tensors="pt"
                )
                scores[rows] = self.model(**inputs).logits.sigmoid().numpy()
        return scores

    def save(self, file: Path) -> None:
        """`<map>.down` (rank, in) with the scale in it, `<map>.up` (out, rank), pooler and classifier whole; float16."""
        tensors: dict[str, Tensor] = {}
        for name, adapted in self.maps.items():
            tensors[f"{name}.down"] = adapted.down * SCALE
            tensors[f"{name}.up"] = adapted.up
        for name in ("bert.pooler.dense", "classifier"):
            module = self.model.get_submodule(name)
            tensors[f"{name}.weight"] = module.weight
            tensors[f"{name}.bias"] = module.bias
        save_file({name: tensor.detach().half().contiguous() for name, tensor in tensors.items()}, file)


def _batches(lengths: Sequence[int], rng: random.Random) -> list[list[int]]:
    rows = sorted(range(len(lengths)), key=lambda row: (lengths[row], rng.random()))
    batches = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
    rng.shuffle(batches)
    return batches
