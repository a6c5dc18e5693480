"""‖f − f'‖ ≤ Σ_l (Π_{k after l} ‖W_k‖₂) ‖V_l‖: how far a layer's error can grow on its way to the output.

The theorem needs a chain of layers without skips, each followed by a 1-Lipschitz activation, and inputs of layer l from
the already pruned prefix, as `thresher.shrink` uses them. In other networks the number is an indication only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

_ONE_LIPSCHITZ = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.ELU, nn.Identity, nn.Flatten, nn.Dropout,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
)  # fmt: skip


def operator_norm(module: nn.Module) -> float:
    """The largest factor by which the layer can lengthen its input (1 for layers without weights, in eval mode).

    A convolution: ‖unfolded weight‖₂ times sqrt of how many output positions one input position reaches, at most.

    >>> operator_norm(nn.ReLU())
    1.0
    """
    if isinstance(module, nn.Linear):
        return float(torch.linalg.matrix_norm(module.weight.detach().to(torch.float64), ord=2))
    if isinstance(module, _ConvNd):
        weight = module.weight.detach().to(torch.float64)
        parts = weight.reshape(module.groups, -1, *weight.shape[1:]).flatten(2)
        if isinstance(module, _ConvTransposeNd):
            reach = math.prod(module.kernel_size)
        else:
            reach = math.prod(
                -(-kernel // step) for kernel, step in zip(module.kernel_size, module.stride, strict=True)
            )
        return float(torch.linalg.matrix_norm(parts, ord=2).max()) * math.sqrt(reach)
    if isinstance(module, _BatchNorm) and module.running_var is not None:
        scale = (module.running_var.detach().double() + module.eps).rsqrt()
        scale = scale if module.weight is None else scale * module.weight.detach().double().abs()
        return float(scale.max())
    return 1.0


def is_chain(model: nn.Module) -> bool:
    """Whether the network is a Sequential of layers for which the bound is a theorem."""
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            continue
        plain = isinstance(module, (nn.Linear, _ConvNd, _BatchNorm, *_ONE_LIPSCHITZ))
        if not plain or (isinstance(module, _ConvNd) and module.padding_mode != "zeros"):
            return False
    return isinstance(model, nn.Sequential)


def propagated_bound(model: nn.Module, order: Sequence[str], residuals: Mapping[str, float]) -> float:
    """Σ_l (Π_{k after l} ‖W_k‖₂) ‖V_l‖ with the dense norms.

    Args:
        order: names of the modules with weights, as they run. residuals: reader name to its ‖V‖.
    """
    total, product = 0.0, 1.0
    for name in reversed(order):
        total += product * residuals.get(name, 0.0)
        product *= operator_norm(model.get_submodule(name))
    return total
