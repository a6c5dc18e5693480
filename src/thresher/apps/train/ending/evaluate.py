"""Test accuracy in percent."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from thresher.budget.counts import eval_mode


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, channels_last: bool = False) -> float:
    """100 · (right answers) / (images), in eval mode and float32; every training flag is put back.

    >>> model = nn.Identity()
    >>> accuracy(model, [(torch.eye(4), torch.tensor([0, 1, 2, 0]))])
    75.0
    """
    right: Tensor | int = 0
    count = 0
    with eval_mode(model):
        for inputs, labels in batches:
            if channels_last:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            right = right + (model(inputs).argmax(1) == labels).sum()
            count += len(labels)
    return 100.0 * int(right) / max(count, 1)
