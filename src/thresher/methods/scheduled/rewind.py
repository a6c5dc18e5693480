"""Back to the start: a copy of every parameter and running statistic, restored in place."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def _stateful(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of the network itself, not those of operator modules."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {
        name: tensor
        for name, tensor in named
        if ".parametrizations." not in f".{name}" or name.rsplit(".", 1)[-1].startswith("original")
    }


class Snapshot:
    """A copy of `model`'s parameters and buffers at the moment it is made (memory: one model), or saved `values`."""

    def __init__(self, model: nn.Module, values: list[Tensor] | None = None) -> None:
        self.tensors = values or [tensor.detach().clone() for tensor in _stateful(model).values()]

    def restore(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        """Write the copies back in place and zero the optimizer's buffers, so that training begins anew."""
        with torch.no_grad():
            for tensor, value in zip(_stateful(model).values(), self.tensors, strict=True):
                tensor.copy_(value)
        if optimizer is None:
            return
        for state in optimizer.state.values():
            for value in state.values() if isinstance(state, Mapping) else ():
                if isinstance(value, Tensor):
                    value.zero_()
