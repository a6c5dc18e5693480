"""Slice one module: which of its tensors go along with an axis, and what its attributes become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from thresher.budget.linear import features_of, is_linear, is_transposed
from thresher.errors import InputError

Taken = dict[tuple[int, tuple[tuple[int, tuple[int, ...]], ...]], tuple[nn.Parameter, nn.Parameter]]
"""Parameters sliced already, (before, after) by identity and by what was kept: tied tensors stay tied. The first
is held, so that no other takes its identity."""


def is_depthwise(module: nn.Module) -> bool:
    """Whether the convolution has one filter per channel, so that inputs and outputs are cut together."""
    return isinstance(module, _ConvNd) and module.groups == module.in_channels == module.out_channels > 1


def axis_of(module: nn.Module, side: str) -> str:
    """The axis that is cut on `side` ("in" or "out"): "width" where both sides are one.

    >>> axis_of(nn.BatchNorm1d(3), "out"), axis_of(nn.Linear(2, 3), "in")
    ('width', 'in')
    """
    two_sided = (is_linear(module) or isinstance(module, _ConvNd)) and not is_depthwise(module)
    return side if two_sided else "width"


def width_of(module: nn.Module, axis: str) -> int | None:
    """How wide `axis` is now; None for a module that is not cut. "NAME:2" is axis 2 of the module's tensor NAME."""
    if ":" in axis:
        tensor, dim = named_axis(module, axis)
        return None if tensor is None or tensor.ndim <= dim else tensor.shape[dim]
    if is_linear(module):
        return features_of(module)[0 if axis == "in" else 1]
    if isinstance(module, _ConvNd):
        return module.in_channels if axis == "in" else module.out_channels
    if axis != "width":
        return None
    if isinstance(module, _NormBase):
        return module.num_features
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        return module.normalized_shape[0]
    if isinstance(module, nn.PReLU) and module.num_parameters > 1:
        return module.num_parameters
    if isinstance(module, nn.Embedding):
        return module.embedding_dim
    return None


def named_axis(module: nn.Module, axis: str) -> tuple[Tensor | None, int]:
    """The tensor and dimension that "NAME:2" means; None where the module has no such tensor."""
    name, _, dim = axis.partition(":")
    return module._parameters.get(name, module._buffers.get(name)), int(dim)


def divisions_of(module: nn.Module, axis: str) -> int:
    """Into how many parts of equal width `axis` has to stay divided: groups of a convolution or of a group norm."""
    if isinstance(module, nn.GroupNorm):
        return module.num_groups
    return module.groups if isinstance(module, _ConvNd) and not is_depthwise(module) else 1


def cut_module(name: str, module: nn.Module, keep: Mapping[str, Sequence[int]], taken: Taken) -> None:
    """Keep the indices `keep[axis]` of each axis, in place; parameters and buffers are new tensors.

    Errors: InputError for grouped layers whose parts would become unequal.
    """
    for axis, kept in keep.items():
        _check_parts(name, module, axis, kept)
    own = [axis for axis in keep if ":" in axis]
    for axis in own:
        _take(module, axis.partition(":")[0], {int(axis.partition(":")[2]): keep[axis]}, taken)
    if len(own) == len(keep):
        return
    if isinstance(module, _ConvNd):
        _cut_convolution(module, keep, taken)
    elif is_transposed(module):
        _take(module, "weight", {1: keep.get("out"), 0: keep.get("in")}, taken)
        _take(module, "bias", {0: keep.get("out")}, taken)
        for name, size in zip(("nx", "nf"), module.weight.shape, strict=True):  # type: ignore[union-attr, arg-type]
            setattr(module, name, size)
    elif isinstance(module, nn.Linear):
        _take(module, "weight", {0: keep.get("out"), 1: keep.get("in")}, taken)
        _take(module, "bias", {0: keep.get("out")}, taken)
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Embedding):
        _take(module, "weight", {1: keep["width"]}, taken)
        module.embedding_dim = len(keep["width"])
    else:
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            _take(module, tensor, {0: keep["width"]}, taken)
        _set_width(module, len(keep["width"]))


def _set_width(module: nn.Module, width: int) -> None:
    if isinstance(module, _NormBase):
        module.num_features = width
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = width
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = (width,)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = width


def _cut_convolution(module: _ConvNd, keep: Mapping[str, Sequence[int]], taken: Taken) -> None:
    first, second = ("in", "out") if isinstance(module, _ConvTransposeNd) else ("out", "in")
    if "width" in keep:  # depthwise
        _take(module, "weight", {0: keep["width"]}, taken)
        _take(module, "bias", {0: keep["width"]}, taken)
        module.groups = module.in_channels = module.out_channels = len(keep["width"])
        return
    if module.groups > 1 and keep.get(second) is not None:
        _cut_parts(module, first, list(keep[second]), second)
    else:
        _take(module, "weight", {1: keep.get(second)}, taken)
    _take(module, "weight", {0: keep.get(first)}, taken)
    _take(module, "bias", {0: keep.get("out")}, taken)
    for axis in keep:
        setattr(module, f"{axis}_channels", len(keep[axis]))


def _cut_parts(module: _ConvNd, first: str, kept: list[int], second: str) -> None:
    """Second axis of a grouped convolution: each group of filters keeps its own channels, equally many."""
    weight = module.weight.detach()
    wide, share = weight.shape[0] // module.groups, weight.shape[1]
    pieces = []
    for group in range(module.groups):
        local = [index - group * share for index in kept if index // share == group]
        pieces.append(weight[group * wide : (group + 1) * wide][:, local])
    module.weight = nn.Parameter(torch.cat(pieces), requires_grad=module.weight.requires_grad)


def _check_parts(name: str, module: nn.Module, axis: str, kept: Sequence[int]) -> None:
    parts, width = divisions_of(module, axis), width_of(module, axis)
    if width is None:
        raise InputError(f"a cut of {name}, a {type(module).__name__}", "a layer that can be cut", "exclude it")
    if not kept:
        raise InputError(f"a cut of {name} that keeps nothing", "at least one index", "keep one unit of the group")
    counts = [sum(index // (width // parts) == part for index in kept) for part in range(parts)]
    if len(set(counts)) > 1:
        raise InputError(
            f"a cut of {name} that keeps {counts} channels of its {parts} groups",
            "the same number in each group",
            "keep whole bundles, as thresher.shrink does, or exclude the layer",
        )


def _take(module: nn.Module, tensor: str, keep: Mapping[int, Sequence[int] | None], taken: Taken) -> None:
    old: Tensor | None = getattr(module, tensor, None)
    if old is None:
        return
    wanted = tuple((axis, tuple(kept)) for axis, kept in keep.items() if kept is not None)
    if not wanted:
        return
    parameter = isinstance(old, nn.Parameter)
    if parameter and (id(old), wanted) in taken:
        setattr(module, tensor, taken[id(old), wanted][1])
        return
    with torch.no_grad():
        new = old.detach()
        for axis, kept in wanted:
            new = new.index_select(axis, torch.tensor(kept, dtype=torch.int64, device=new.device))
    if isinstance(old, nn.Parameter):
        new_parameter = nn.Parameter(new, requires_grad=old.requires_grad)
        taken[id(old), wanted] = old, new_parameter
        setattr(module, tensor, new_parameter)
    else:
        setattr(module, tensor, new)
