"""One pass of a model over sequences of several memories at once: prompts that are read beside answers that are decoded.

All their tokens stand in one row, as if they were one sequence, so that each weight is read once for all of them; only
attention, which is ours here, keeps them apart. Transformers' models ask a function by name for their attention: any model
that does, with rotary positions and full attention, can be served; `agrees` tells.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from watchkeeper.embedded.keyvalues import KeyValues

NAME: Final = "watchkeeper"

Part = tuple[KeyValues, Tensor]
"""A memory, and the token ids (its sequences, n) that it is to read next."""


def advance(model: Any, parts: Sequence[Part]) -> Tensor:
    """Reads the parts' tokens; returns the logits (sequences of all parts, vocabulary) after the last token of each."""
    device = model.device
    positions = torch.cat([memory.expect(tokens.shape[1], model.dtype, device) for memory, tokens in parts])
    ends = torch.cat([torch.full((tokens.shape[0],), tokens.shape[1]) for _, tokens in parts]).cumsum(0) - 1
    result = model(
        input_ids=torch.cat([tokens.flatten() for _, tokens in parts]).unsqueeze(0).to(device),
        position_ids=positions.unsqueeze(0).to(device),
        use_cache=False,
        logits_to_keep=ends.to(device),
        memories=parts,
    )
    logits: Tensor = result.logits[0]
    return logits


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    memories: Sequence[Part],
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """A layer's attention as transformers asks for it: (1, heads, tokens, width) in, (1, tokens, heads, width) out."""
    sizes = [tokens.numel() for _, tokens in memories]
    queries, keys, values = (given[0].transpose(0, 1).split(sizes) for given in (query, key, value))
    found = [
        memory.attend(module.layer_idx, queries[at], keys[at], values[at], scaling, softcap)
        for at, (memory, _) in enumerate(memories)
    ]
    return torch.cat(found).unsqueeze(0), None


def attach(model: Any) -> None:
    """From now on the model attends through `advance` only."""
    from transformers import AttentionInterface

    # What it keeps is not for a compiler to see: a compiled pass is whole between two attentions.
    AttentionInterface.register(NAME, torch.compiler.disable(attend))
    model.set_attn_implementation(NAME)


def compile_passes(model: Any, backend: str = "inductor") -> None:
    """Compiles what of a pass lies between two attentions, once for all numbers of tokens. Needs a compiler at run time."""
    model.compile(dynamic=True, backend=backend)


def agrees(model: Any) -> bool:
    """Attaches to the model; whether it then computes the same, for two sequences beside each other, as in one plain pass
    over each.

    Decoders with rotary positions and full attention do. Others read position or mask in ways of their own; this is how
    they are told apart before they answer anybody with nonsense.
    """
    vocabulary = model.get_input_embeddings().num_embeddings
    sequences = [torch.arange(first, first + 7 * n, 7) % vocabulary for first, n in ((3, 9), (5, 6))]
    with torch.inference_mode():
        plain = torch.stack([model(sequence.unsqueeze(0).to(model.device)).logits[0, -1] for sequence in sequences])
        attach(model)
        together = KeyValues(rows=2)
        one, two = (KeyValues(rows=1) for _ in sequences)
        one.lengths, two.lengths = [0], [0]
        # The second is still being read while the first goes on; then both go on together.
        advance(model, [(one, sequences[0][:-3].unsqueeze(0))])
        advance(model, [(one, sequences[0][-3:-2].unsqueeze(0)), (two, sequences[1][:-2].unsqueeze(0))])
        for alone in (one, two):
            together.begin(alone.span(0, 0, alone.lengths[0]))
        for step in (-2, -1):
            ours = advance(model, [(together, torch.stack([sequence[step] for sequence in sequences]).unsqueeze(1))])
    return bool((ours - plain).abs().max() <= 0.01 * plain.abs().max().clamp(min=0.01))
