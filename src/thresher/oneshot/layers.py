"""One prunable weight as the matrix that multiplies its inputs, whatever module stores it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from thresher.attach import latent
from thresher.recovery.reading import readable
from thresher.targets import Target


def conv1d_type() -> type[nn.Module] | None:
    """The transposed linear layer of transformers (GPT-2); None as long as nobody imported it."""
    return getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)


def is_conv1d(module: nn.Module) -> bool:
    """Whether the module is a `Conv1D` of transformers, y = x W + b."""
    kind = conv1d_type()
    return kind is not None and isinstance(module, kind)


def state_of(tensor: Tensor) -> tuple[int, int]:
    """What tells a tensor from others, and from itself before a change in place: its address and its version."""
    return id(tensor), 0 if tensor.is_inference() else tensor._version


@dataclass(frozen=True, eq=False)
class Layer:
    """A target whose shape is (outputs, inputs, *kernel), with the modules that read it.

    names: of its modules. transposed: stored as (inputs, outputs). groups: of a grouped convolution, each with its own
    inputs.
    """

    target: Target
    names: tuple[str, ...]
    transposed: bool = False
    groups: int = 1

    @property
    def name(self) -> str:
        """State-dict name of the tensor."""
        return self.target.name

    @property
    def taps(self) -> int:
        """Kernel positions per channel."""
        return self.target.numel // max(self.target.shape[0] * self.target.shape[1], 1)

    def weight(self) -> Tensor:
        """A float64 copy, (groups, outputs per group, inputs · taps), channel-major."""
        stored = latent(self.target).detach()
        logical = stored.T if self.transposed else stored
        return logical.reshape(self.groups, -1, logical[0].numel()).to(torch.float64, copy=True)

    def write(self, weight: Tensor, gone: Tensor) -> None:
        """Store `weight`, +0.0 where `gone`; the Parameter object stays."""
        weight = weight.masked_fill(gone, 0.0).reshape(self.target.shape)
        stored = latent(self.target)
        with torch.no_grad():
            stored.copy_(weight.T if self.transposed else weight)

    def readers(self) -> Iterator[nn.Module]:
        """The modules whose inputs can be weighed: linear layers, and convolutions that are not transposed."""
        for module, tensor in self.target.sites:
            if tensor == "weight" and (is_conv1d(module) or readable(module)):
                yield module


def layer_of(target: Target, names: tuple[str, ...]) -> Layer:
    """The layer of a selected target."""
    module = target.module
    if is_conv1d(module):
        return Layer(replace(target, shape=tuple(latent(target).shape)[::-1]), names, transposed=True)
    grouped = isinstance(module, _ConvNd) and readable(module)
    return Layer(target, names, groups=int(module.groups) if grouped else 1)  # type: ignore[arg-type]
