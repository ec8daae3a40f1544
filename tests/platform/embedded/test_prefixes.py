"""What is found of a prompt's beginning is what was kept, and never more is held than there is room for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from watchkeeper.embedded.keyvalues import KeyValues
from watchkeeper.embedded.prefixes import BLOCK, Prefixes

pytestmark = pytest.mark.models

LAYERS, HEADS, WIDTH = 2, 1, 2
BLOCK_BYTES = BLOCK * LAYERS * 2 * HEADS * WIDTH * 4


def memory(tokens: list[int]) -> KeyValues:
    """Holds at each position, layer by layer, what depends on all tokens up to there: as attention does."""
    sums = torch.tensor(tokens).cumsum(0).float()
    filled = KeyValues(rows=1)

    def layer(number: int, part: float) -> torch.Tensor:
        return (sums * number + part).reshape(-1, 1, 1).repeat(1, HEADS, WIDTH)

    filled.begin({number: (layer(number, 0.1), layer(number, 0.2)) for number in range(LAYERS)})
    return filled


def assert_found(prefixes: Prefixes, tokens: list[int]) -> int:
    empty = KeyValues(rows=1)
    found = prefixes.find(tokens, empty)
    assert found % BLOCK == 0
    if found:
        assert empty.lengths == [found]
        for layer, pair in memory(tokens[:found]).span(0, 0, found).items():
            for expected, got in zip(pair, empty.span(0, 0, found)[layer], strict=True):
                assert torch.equal(expected, got)
    return found


def test_the_blocks_that_two_prompts_share_are_found() -> None:
    prefixes = Prefixes(100 * BLOCK_BYTES)
    tokens = list(range(1, 4 * BLOCK + 3))
    prefixes.keep(tokens, memory(tokens), 0)
    assert assert_found(prefixes, tokens) == 4 * BLOCK
    assert assert_found(prefixes, tokens[: 3 * BLOCK - 1]) == 2 * BLOCK
    assert assert_found(prefixes, tokens[: 2 * BLOCK] + [7] * BLOCK) == 2 * BLOCK
    assert assert_found(prefixes, [7, *tokens]) == 0


def test_a_block_is_only_found_after_those_it_was_read_after() -> None:
    """The same tokens at another place have other keys and values."""
    prefixes = Prefixes(100 * BLOCK_BYTES)
    same = [5] * BLOCK
    tokens = [1] * BLOCK + same
    prefixes.keep(tokens, memory(tokens), 0)
    assert assert_found(prefixes, same + same) == 0


def test_the_least_recently_used_goes_first_and_a_beginning_last() -> None:
    prefixes = Prefixes(3 * BLOCK_BYTES)
    first, second, third = ([n] * BLOCK for n in (1, 2, 3))
    prefixes.keep(first + second, memory(first + second), 0)
    prefixes.keep(third, memory(third), 0)
    assert assert_found(prefixes, first) == BLOCK
    fourth = [4] * BLOCK
    prefixes.keep(fourth, memory(fourth), 0)
    assert assert_found(prefixes, first + second) == BLOCK
    assert assert_found(prefixes, third) == BLOCK
    assert assert_found(prefixes, fourth) == BLOCK


def test_of_a_prompt_larger_than_the_room_the_beginning_is_kept() -> None:
    prefixes = Prefixes(2 * BLOCK_BYTES + 1)
    tokens = list(range(5 * BLOCK))
    prefixes.keep(tokens, memory(tokens), 0)
    assert assert_found(prefixes, tokens) == 2 * BLOCK


def test_without_room_nothing_is_kept() -> None:
    prefixes = Prefixes(0)
    tokens = list(range(2 * BLOCK))
    prefixes.keep(tokens, memory(tokens), 0)
    assert assert_found(prefixes, tokens) == 0


@given(
    st.integers(0, 6),
    st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from([1, 2]), min_size=1, max_size=5)), max_size=25),
)
@settings(deadline=None)
def test_whatever_was_kept_and_forgotten_what_is_found_is_right(room: int, steps: list[tuple[bool, list[int]]]) -> None:
    """Prompts of a few equal blocks, in any order, into room for a few of them."""
    prefixes = Prefixes(room * BLOCK_BYTES)
    for keep, blocks in steps:
        tokens = [token for block in blocks for token in [block] * BLOCK]
        if keep:
            prefixes.keep(tokens, memory(tokens), 0)
            assert assert_found(prefixes, tokens) == min(room, len(blocks)) * BLOCK
        else:
            assert assert_found(prefixes, tokens) <= room * BLOCK
