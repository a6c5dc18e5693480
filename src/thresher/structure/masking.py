"""A unit that its readers read as zero: the function of the cut network, at the old shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from thresher.structure.groups import CoupledGroup, Member


def removed_indices(member: Member, keep: Iterable[int]) -> Tensor:
    """The indices of the member's axis that belong to units that are not in `keep`."""
    stay = set(keep)
    gone = [index for unit, indices in enumerate(member.index) if unit not in stay for index in indices]
    return torch.tensor(sorted(gone), dtype=torch.int64)


def picked(module: nn.Module, inputs: Tensor, channels: Iterable[int]) -> Tensor:
    """The given channels of what `module`, a convolution or a linear layer, reads."""
    index = torch.tensor(list(channels), dtype=torch.int64, device=inputs.device)
    return inputs.index_select(_channel_axis(module, inputs), index)


def _channel_axis(module: nn.Module, inputs: Tensor) -> int:
    return inputs.ndim - module.weight.ndim + 1 if isinstance(module, _ConvNd) else inputs.ndim - 1


@contextmanager
def silenced(model: nn.Module, group: CoupledGroup, keep: Iterable[int]) -> Iterator[None]:
    """Inside the block the readers of `group` see zero at every unit outside `keep`."""
    kept = list(keep)

    def zero(gone: Tensor, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        inputs = args[0].clone()
        inputs.index_fill_(_channel_axis(module, inputs), gone.to(inputs.device), 0)
        return (inputs, *args[1:])

    handles = [
        model.get_submodule(member.module).register_forward_pre_hook(partial(zero, removed_indices(member, kept)))
        for member in group.readers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
