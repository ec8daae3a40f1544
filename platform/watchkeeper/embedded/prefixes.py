"""What prompts begin with, kept so that it is read once: a system prompt, the earlier turns of a conversation.

Keys and values in blocks of `BLOCK` tokens, in memory that is bounded from the start. A block is found by its tokens and by
the block before it, so what is found is what was read, never something that looks like it. The least recently used goes
first, and never a block before those that follow it.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import torch

from watchkeeper.embedded.keyvalues import KeyValues, Pair

BLOCK: Final = 16
"""Tokens. Smaller ones find more of what two prompts share; each costs a little at every look."""
FIRST: Final = -1

Key = tuple[int, tuple[int, ...]]
"""The place of the block before (`FIRST`: there is none), and the block's tokens."""


class Prefixes:
    """Room for `capacity` bytes of keys and values; 0: nothing is kept. Not for several threads at once."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        # By how long ago they were used, and where each stands in the pools of all layers: (blocks, BLOCK, heads, width).
        self._places: OrderedDict[Key, int] = OrderedDict()
        self._free: list[int] = []
        self._pools: dict[int, Pair] = {}
        self._device = torch.device("cpu")

    def find(self, tokens: Sequence[int], memory: KeyValues) -> int:
        """Puts into the empty `memory` what is known of how `tokens` begin; returns how many tokens that is."""
        chain = self._chain(tokens)
        self._use(chain)
        if chain:
            places = torch.tensor([self._places[key] for key in chain], device=self._device)
            memory.begin(
                {
                    layer: (keys.index_select(0, places).flatten(0, 1), values.index_select(0, places).flatten(0, 1))
                    for layer, (keys, values) in self._pools.items()
                }
            )
        return len(chain) * BLOCK

    def keep(self, tokens: Sequence[int], memory: KeyValues, row: int) -> None:
        """Keeps the blocks of `tokens`, which row `row` of `memory` begins with, as far as there is room for them."""
        if not self._pools:
            self._make_room(memory)
        chain = self._chain(tokens)
        self._use(chain)
        known = len(chain)
        most = min(len(tokens) // BLOCK, len(self._places) + len(self._free))
        while len(self._free) < most - known:
            _, place = self._places.popitem(last=False)
            self._free.append(place)
        before = self._places[chain[-1]] if chain else FIRST
        places = []
        for number in range(known, most):
            key = (before, tuple(tokens[number * BLOCK : (number + 1) * BLOCK]))
            before = self._places[key] = self._free.pop()
            places.append(before)
            chain.append(key)
        self._use(chain)
        if places:
            into = torch.tensor(places, device=self._device)
            for layer, pair in memory.span(row, known * BLOCK, most * BLOCK).items():
                for pool, source in zip(self._pools[layer], pair, strict=True):
                    pool.index_copy_(0, into, source.unflatten(0, (-1, BLOCK)))

    def _chain(self, tokens: Sequence[int]) -> list[Key]:
        """The blocks that are known of how `tokens` begin, the first one first."""
        chain: list[Key] = []
        before = FIRST
        for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
            key = (before, tuple(tokens[start : start + BLOCK]))
            if (place := self._places.get(key)) is None:
                break
            before = place
            chain.append(key)
        return chain

    def _use(self, chain: Sequence[Key]) -> None:
        """The last block of a chain is the first of it to go."""
        for key in reversed(chain):
            self._places.move_to_end(key)

    def _make_room(self, memory: KeyValues) -> None:
        """The pools, whose shapes the first prompt shows. The system gives the memory as it is written to."""
        one = memory.span(0, 0, 1)
        size = BLOCK * sum(part.numel() * part.element_size() for pair in one.values() for part in pair)
        blocks = self._capacity // size
        self._device = next(iter(one.values()))[0].device
        self._free = list(range(blocks))
        self._pools = {
            layer: (keys.new_empty(blocks, BLOCK, *keys.shape[1:]), values.new_empty(blocks, BLOCK, *values.shape[1:]))
            for layer, (keys, values) in one.items()
        }
