"""Weights laid out for products of a few rows: a step of several answers, a batch of short texts.

With weights as they come such products cost up to five times as much (float32, 8 rows, two cores of an EPYC). Their sums
are added up in another order, which moves a logit by about a millionth of its size.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor


class Packed(torch.nn.Module):
    """A linear layer whose weight lies as oneDNN wants to read it."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.bias = layer.bias
        self._weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())

    def forward(self, rows: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self.bias, "none", [], "")
        return product


def packable(numbers: torch.dtype) -> bool:
    """Whether weights of such numbers can be laid out here: half precision needs instructions that many processors lack."""
    if not torch.backends.mkldnn.is_available():
        return False
    return numbers is torch.float32 or (numbers is torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


def pack(model: Any) -> None:
    """Packs the linear layers of a model. Those that torch cannot pack on this processor stay as they are: slower, no
    less right."""
    packed: dict[torch.nn.Module, Packed] = {}
    for module in list(model.modules()):
        for name, layer in list(module.named_children()):
            # A layer with several users stays one.
            if layer not in packed and type(layer) is torch.nn.Linear and packable(layer.weight.dtype):
                packed[layer] = Packed(layer)
                # One at a time, so that the weights are never there twice.
                del layer.weight
            if layer in packed:
                setattr(module, name, packed[layer])
    _give_back()


def _give_back() -> None:
    """glibc keeps what was freed in pieces: 450 MB of 1,500 after the packaged model. Other systems have no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
