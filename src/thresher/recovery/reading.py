"""How a layer reads its input: U = W1 H with H (channel-taps, samples) and W1 (outputs, channel-taps)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from thresher.budget.linear import features_of, is_linear, matrix_of
from thresher.errors import InputError

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def readable(module: nn.Module) -> bool:
    """Whether the layer is one whose input units can be weighed: linear, or a convolution that is not transposed."""
    return is_linear(module) or (isinstance(module, _ConvNd) and not isinstance(module, _TRANSPOSED))


def channels_of(module: nn.Module) -> int:
    """Width of the input that the layer reads."""
    return module.in_channels if isinstance(module, _ConvNd) else features_of(module)[0]


def taps_of(module: nn.Module) -> int:
    """Kernel positions of a convolution; 1 for linear layers."""
    return int(module.weight[0, 0].numel()) if isinstance(module, _ConvNd) else 1  # type: ignore[index]


def can_unfold(module: nn.Module) -> bool:
    """Whether channel-taps can be laid out exactly: linear layers, and convolutions padded with zeros."""
    if isinstance(module, _ConvNd) and not isinstance(module, _TRANSPOSED):
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return is_linear(module)


def hidden_rows(
    module: nn.Module, inputs: Tensor, channels: Tensor, *, taps: bool = True, dtype: torch.dtype | None = None
) -> Tensor:
    """Hᵀ: (samples, channels · taps), channel-major, for the `channels` that `module` reads.

    A linear layer on (batch, tokens, features) has one sample per token; a convolution one per output position with
    `taps`, one per input position without.

    >>> hidden_rows(nn.Conv2d(1, 1, 2), torch.arange(4.0).reshape(1, 1, 2, 2), torch.tensor([0])).tolist()
    [[0.0, 1.0, 2.0, 3.0]]
    """
    if not isinstance(module, _ConvNd):
        rows = inputs.reshape(-1, inputs.shape[-1])[:, channels.to(inputs.device)]
        return rows if dtype is None else rows.to(dtype)
    if inputs.ndim == module.weight.ndim - 1:
        inputs = inputs[None]
    picked = inputs[:, channels.to(inputs.device)]
    picked = picked if dtype is None else picked.to(dtype)
    if taps and taps_of(module) > 1:
        # Windows as a view and one copy: several times faster than torch's unfold, and for any number of dimensions.
        dims = len(module.kernel_size)
        edges = [width for width in reversed(module.padding) for _ in range(2)]  # type: ignore[misc]
        windows = functional.pad(picked, edges) if any(edges) else picked  # type: ignore[arg-type]
        for dim, (kernel, dilation, step) in enumerate(
            zip(module.kernel_size, module.dilation, module.stride, strict=True)
        ):
            windows = windows.unfold(2 + dim, (kernel - 1) * dilation + 1, step)[..., ::dilation]
        places, windowed = range(2, 2 + dims), range(2 + dims, 2 + 2 * dims)
        return windows.permute(0, *places, 1, *windowed).reshape(-1, picked.shape[1] * taps_of(module))
    if taps and module.stride != (1,) * len(module.stride):
        skips: Any = (..., *(slice(None, None, step) for step in module.stride))
        picked = picked[skips]  # what a 1x1 kernel skips
    return picked.flatten(2).transpose(1, 2).reshape(-1, picked.shape[1])


def reading_weight(module: nn.Module, channels: Tensor, *, taps: bool = True) -> Tensor:
    """W1: (outputs, channels · taps), channel-major. Without `taps`, (outputs · taps, channels): every tap its own row,
    so that W1ᵀ W1 sums over taps as if each saw the same channels.

    A grouped convolution gets zeros where a filter does not read a channel.
    """
    weight = matrix_of(module).detach()
    channels = channels.to(weight.device)
    if not isinstance(module, _ConvNd):
        return weight[:, channels]
    if not readable(module):
        raise InputError(f"a {type(module).__name__}", "a plain convolution or linear layer", "exclude it by a rule")
    out, per_group = weight.shape[0], weight.shape[1]
    flat = weight.reshape(out, per_group, -1)
    if module.groups > 1:
        whole = flat.new_zeros(module.groups, out // module.groups, module.groups, per_group, flat.shape[2])
        index = torch.arange(module.groups, device=weight.device)
        whole[index, :, index] = flat.reshape(module.groups, -1, per_group, flat.shape[2])
        flat = whole.reshape(out, module.groups * per_group, -1)
    flat = flat[:, channels]
    return flat.reshape(out, -1) if taps else flat.transpose(1, 2).reshape(-1, len(channels))
