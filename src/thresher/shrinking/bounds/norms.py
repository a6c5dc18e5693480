"""‖W‖₂ of a layer: the largest factor by which it can lengthen the difference of two inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from thresher.budget.linear import is_linear, matrix_of

ONE_LIPSCHITZ = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.ELU, nn.Identity, nn.Flatten, nn.Dropout,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
)  # fmt: skip


def weighted(module: nn.Module) -> bool:
    """Whether `operator_norm` is a bound for the layer: linear, a convolution that pads with zeros, batch norm in eval
    mode."""
    if isinstance(module, _ConvNd):
        return module.padding_mode == "zeros"
    return is_linear(module) or (isinstance(module, _BatchNorm) and module.running_var is not None)


def operator_norm(module: nn.Module) -> float:
    """The largest factor by which the layer can lengthen its input (1 for layers without weights, in eval mode).

    A convolution: ‖unfolded weight‖₂ times sqrt of how many output positions one input position reaches, at most.

    >>> operator_norm(nn.ReLU())
    1.0
    """
    if isinstance(module, _ConvNd):
        weight = module.weight.detach().to(torch.float64)
        parts = weight.reshape(module.groups, -1, *weight.shape[1:]).flatten(2)
        if isinstance(module, _ConvTransposeNd):
            reach = math.prod(module.kernel_size)
        else:
            reach = math.prod(
                -(-kernel // step) for kernel, step in zip(module.kernel_size, module.stride, strict=True)
            )
        return _largest(parts) * math.sqrt(reach)
    if is_linear(module):
        return _largest(matrix_of(module).detach().to(torch.float64)[None])
    if isinstance(module, _BatchNorm) and module.running_var is not None:
        return float(scale_of(module).abs().max())
    return 1.0


def scale_of(norm: _BatchNorm) -> Tensor:
    """What a batch norm in eval mode multiplies each channel by, γ / √(running variance + ε), float64.

    >>> scale_of(nn.BatchNorm1d(1, eps=3.0)).item()
    0.5
    """
    assert norm.running_var is not None
    scale = (norm.running_var.detach().double() + norm.eps).rsqrt()
    return scale if norm.weight is None else scale * norm.weight.detach().double()


def _largest(parts: Tensor) -> float:
    """The largest singular value of a stack of matrices, from the smaller of its two products: much less work."""
    small = parts @ parts.mT if parts.shape[1] <= parts.shape[2] else parts.mT @ parts
    # Squares lose half of the digits, of small singular values only; the rounding of the largest is covered.
    return math.sqrt(max(float(torch.linalg.eigvalsh(small).max()), 0.0) * (1 + 1e-12))
