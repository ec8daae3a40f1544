"""The attention memory of several sequences of different lengths, laid out so that they advance together.

Stands where transformers expects its cache. Its own caches want all sequences of a batch to be equally long (padded), and
copy everything there is at each step; here a step writes one position, and sequences come and go.
"""

from typing import Any, Final

import torch
from torch import Tensor

ALIGN: Final = 256

Pair = tuple[Tensor, Tensor]


class KeyValues:
    """Keys and values of up to `rows` sequences, in two buffers per layer of shape (rows, heads, capacity, width).

    Row i holds `lengths[i]` positions from 0 on; what stands after them is left over from others and is masked.
    """

    def __init__(self, rows: int) -> None:
        self.lengths: list[int] = []
        self._rows = rows
        self._layers: dict[int, Pair] = {}
        self.capacity = 0
        self._end = 0
        self._targets: tuple[Tensor, slice, Tensor] | None = None

    def advance(self, model: Any, tokens: Tensor) -> Tensor:
        """Reads (rows, n) token ids, n more of each sequence; returns the logits (rows, vocabulary) after the last."""
        rows, n = tokens.shape
        positions = torch.tensor(self.lengths).unsqueeze(1) + torch.arange(n)
        self._end = max(self.lengths) + n
        self._targets = (torch.arange(rows).unsqueeze(1), slice(None), positions)
        self._reserve(self._end)
        seen = torch.arange(self._end) <= positions.unsqueeze(2)
        mask = torch.zeros(seen.shape, dtype=model.dtype).masked_fill_(~seen, torch.finfo(model.dtype).min)
        result = model(
            input_ids=tokens,
            attention_mask=mask.unsqueeze(1),
            position_ids=positions,
            past_key_values=self,
            use_cache=True,
            logits_to_keep=1,
        )
        self.lengths = [length + n for length in self.lengths]
        logits: Tensor = result.logits[:, -1]
        return logits

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> Pair:
        """What each layer calls: takes the new keys and values (rows, heads, n, width), returns all there are by now."""
        assert self._targets is not None, "advance() is the way in"
        if layer_idx not in self._layers:
            self._layers[layer_idx] = (self._room(keys), self._room(values))
        rows = keys.shape[0]
        all_keys, all_values = self._layers[layer_idx]
        all_keys[self._targets] = keys.transpose(1, 2)
        all_values[self._targets] = values.transpose(1, 2)
        return all_keys[:rows, :, : self._end], all_values[:rows, :, : self._end]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions of the longest sequence; some models ask."""
        return max(self.lengths, default=0)

    def append(self, other: "KeyValues") -> None:
        """Adds a copy of the one sequence of `other` as a new row."""
        (length,) = other.lengths
        self._reserve(length)
        row = len(self.lengths)
        for index, theirs in other._layers.items():
            if index not in self._layers:
                self._layers[index] = (self._room(theirs[0]), self._room(theirs[1]))
            for to, source in zip(self._layers[index], theirs, strict=True):
                to[row, :, :length] = source[0, :, :length]
        self.lengths.append(length)

    def drop(self, row: int) -> None:
        """Removes a row; the last one takes its place."""
        length = self.lengths.pop()
        last = len(self.lengths)
        if row == last:
            return
        self.lengths[row] = length
        for pair in self._layers.values():
            for buffer in pair:
                buffer[row, :, :length] = buffer[last, :, :length]

    def clear(self) -> None:
        """Forgets all sequences and gives their memory back."""
        self.lengths = []
        self._layers = {}
        self.capacity = 0

    def _room(self, like: Tensor) -> Tensor:
        """Zeros, not whatever memory held: what is masked still takes part in a product, and zero times NaN is NaN."""
        return like.new_zeros(self._rows, like.shape[1], self.capacity, like.shape[3])

    def _reserve(self, positions: int) -> None:
        """Capacity for so many positions in each row. It at least doubles, so that growing costs little over time."""
        if positions <= self.capacity:
            return
        self.capacity = -(-max(positions, 2 * self.capacity) // ALIGN) * ALIGN
        rows, end = len(self.lengths), max(self.lengths, default=0)
        for index, pair in self._layers.items():
            grown = (self._room(pair[0]), self._room(pair[1]))
            for to, source in zip(grown, pair, strict=True):
                to[:rows, :, :end] = source[:rows, :, :end]
            self._layers[index] = grown


def agrees(model: Any) -> bool:
    """Whether the model computes the same through `KeyValues`, two sequences at once, as in one plain pass over each.

    It does for decoders with rotary positions and full attention. Others read position or mask in ways of their own; this
    is how they are told apart before they answer anybody with nonsense.
    """
    vocabulary = model.get_input_embeddings().num_embeddings
    sequences = [torch.arange(first, first + 7 * n, 7) % vocabulary for first, n in ((3, 9), (5, 6))]
    together = KeyValues(rows=2)
    with torch.inference_mode():
        for sequence in sequences:
            alone = KeyValues(rows=1)
            alone.lengths = [0]
            alone.advance(model, sequence[:-2].unsqueeze(0))
            together.append(alone)
        for step in (-2, -1):
            ours = together.advance(model, torch.stack([sequence[step] for sequence in sequences]).unsqueeze(1))
        plain = torch.stack([model(sequence.unsqueeze(0)).logits[0, -1] for sequence in sequences])
    return bool((ours - plain).abs().max() <= 0.01 * plain.abs().max().clamp(min=0.01))
