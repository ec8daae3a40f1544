"""The attention memory of several sequences of different lengths, laid out so that they advance together.

Transformers' own caches want all sequences of a batch to be equally long (padded), and copy everything there is at each
step; here a step writes one position, and sequences come and go. Knows nothing of models beyond keys and values.
"""

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

ALIGN: Final = 256

Pair = tuple[Tensor, Tensor]


class KeyValues:
    """Keys and values of up to `rows` sequences, in two buffers per layer of shape (rows, capacity, heads, width).

    Row i holds `lengths[i]` positions from 0 on; what stands after them is left over from others and is masked.
    """

    def __init__(self, rows: int) -> None:
        self.lengths: list[int] = []
        self.capacity = 0
        self._rows = rows
        self._layers: dict[int, Pair] = {}
        # Of the step that is under way: its sequences and positions each, where it ends, where it writes, what it sees.
        self._shape = (0, 0)
        self._end = 0
        self._places = torch.empty(0, dtype=torch.long)
        self._mask: Tensor | None = None

    def expect(self, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Before a step: `n` more positions of each sequence will be written. Returns which, one sequence after another."""
        rows = len(self.lengths)
        starts = torch.tensor(self.lengths).unsqueeze(1)
        positions = starts + torch.arange(n)
        self._shape, self._end = (rows, n), max(self.lengths) + n
        self._reserve(self._end)
        self._places = (positions + torch.arange(rows).unsqueeze(1) * self.capacity).flatten().to(device)
        seen = torch.arange(self._end) <= positions.unsqueeze(2)
        self._mask = None
        if not bool(seen.all()):
            mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
            self._mask = mask.unsqueeze(1).to(device)
        self.lengths = [length + n for length in self.lengths]
        return positions.flatten()

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None, softcap: float | None
    ) -> Tensor:
        """Takes a layer's new keys and values (tokens, heads, width), and lets each token see its own sequence so far.

        `query` may have several heads to one of the keys'; returns what they found, (tokens, heads of the query, width).
        """
        if layer not in self._layers:
            self._layers[layer] = (self._room(key), self._room(value))
        keys, values = self._layers[layer]
        keys.view(-1, *key.shape[1:]).index_copy_(0, self._places, key)
        values.view(-1, *value.shape[1:]).index_copy_(0, self._places, value)
        (rows, n), heads, width = self._shape, key.shape[1], query.shape[2]
        groups = query.shape[1] // heads
        # The heads that share keys stand as positions of one head: so keys and values need not be repeated for each.
        query = query.reshape(rows, n, heads, groups, width).permute(0, 2, 3, 1, 4).reshape(rows, heads, groups * n, width)
        mask = self._mask
        if mask is not None and n > 1:
            mask = mask.repeat(1, 1, groups, 1)
        keys, values = keys[:rows, : self._end].transpose(1, 2), values[:rows, : self._end].transpose(1, 2)
        if softcap is None:
            found = scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scale)
        else:
            scores = query @ keys.transpose(2, 3) * (width**-0.5 if scale is None else scale)
            scores = softcap * torch.tanh(scores / softcap)
            found = torch.softmax(scores if mask is None else scores + mask, dim=-1) @ values
        width = found.shape[3]
        return found.view(rows, heads, groups, n, width).permute(0, 3, 1, 2, 4).reshape(rows * n, heads * groups, width)

    def begin(self, known: dict[int, Pair]) -> None:
        """Adds a row that begins with positions read before: keys and values (positions, heads, width) of each layer."""
        length = len(next(iter(known.values()))[0])
        self._reserve(length)
        row = len(self.lengths)
        for layer, pair in known.items():
            if layer not in self._layers:
                self._layers[layer] = (self._room(pair[0]), self._room(pair[1]))
            for to, source in zip(self._layers[layer], pair, strict=True):
                to[row, :length] = source
        self.lengths.append(length)

    def span(self, row: int, start: int, end: int) -> dict[int, Pair]:
        """Keys and values of a row's positions, by layer, as `begin` takes them; not copied."""
        return {layer: (keys[row, start:end], values[row, start:end]) for layer, (keys, values) in self._layers.items()}

    def drop(self, row: int) -> None:
        """Removes a row; the last one takes its place."""
        length = self.lengths.pop()
        last = len(self.lengths)
        if row == last:
            return
        self.lengths[row] = length
        for pair in self._layers.values():
            for buffer in pair:
                buffer[row, :length] = buffer[last, :length]

    def clear(self) -> None:
        """Forgets all sequences and gives their memory back."""
        self.lengths = []
        self._layers = {}
        self.capacity = 0

    def _room(self, like: Tensor) -> Tensor:
        """Zeros, not whatever memory held: what is masked still takes part in a product, and zero times NaN is NaN."""
        return like.new_zeros(self._rows, self.capacity, *like.shape[1:])

    def _reserve(self, positions: int) -> None:
        """Capacity for so many positions in each row. It at least doubles, so that growing costs little over time."""
        if positions <= self.capacity:
            return
        self.capacity = -(-max(positions, 2 * self.capacity) // ALIGN) * ALIGN
        rows, end = len(self.lengths), max(self.lengths, default=0)
        for index, pair in self._layers.items():
            grown = (self._room(pair[0][0]), self._room(pair[1][0]))
            for to, source in zip(grown, pair, strict=True):
                to[:rows, :end] = source[:rows, :end]
            self._layers[index] = grown
