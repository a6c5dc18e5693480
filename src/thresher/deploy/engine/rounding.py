"""The model whose weights are rounded to a smaller type: what a compiled model with such values is compared with."""

from __future__ import annotations

import copy

import torch
from torch import nn

VALUES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def rounded(model: nn.Module, values: str) -> nn.Module:
    """A copy of `model` with every matrix and kernel rounded to `values` (to nearest, ties to even), kept as float32;
    the model itself for float32.

    >>> layer = nn.Linear(1, 1)
    >>> layer.weight.data.fill_(1.001)
    tensor([[1.0010]])
    >>> rounded(layer, "bfloat16").weight.item()
    1.0
    """
    if values == "float32":
        return model
    found = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.ndim > 1 and parameter.dtype == torch.float32:
                parameter.copy_(parameter.to(VALUES[values]))
    return found
