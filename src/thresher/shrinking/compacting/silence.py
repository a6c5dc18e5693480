"""Which units say the same whatever the network sees, and what: by their zero weights, and by trying to move them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from thresher.budget.counts import call, eval_mode
from thresher.budget.linear import is_linear, matrix_of
from thresher.structure import CoupledGroup
from thresher.structure.cutting import is_depthwise

PASSES = 3
LOUD = 10.0
_TINY = 1e-6


def zero_filters(module: nn.Module) -> Tensor:
    """Whether each output of a layer has zero weights only; its bias may be anything.

    >>> zero_filters(nn.Linear(2, 2)).any().item()
    False
    """
    if isinstance(module, _ConvTransposeNd):
        parts = module.weight.detach().reshape(module.groups, -1, *module.weight.shape[1:])
        return (parts == 0).transpose(1, 2).flatten(2).all(2).flatten()
    if isinstance(module, nn.Embedding):
        return (module.weight.detach() == 0).all(0)
    return (matrix_of(module).detach() == 0).flatten(1).all(1)


def is_maker(module: nn.Module) -> bool:
    """Whether units are outputs of the layer's weights."""
    return isinstance(module, (_ConvNd, nn.Embedding)) or is_linear(module)


def silent_units(model: nn.Module, group: CoupledGroup) -> tuple[Tensor, Tensor]:
    """(units without weights, units that may say nothing): bool, shape (units,).

    Without weights: zero in every layer that makes them, or in a depthwise one or the scale of a batch norm on their
    way. Where layers are multiplied (a gate), one factor without weights makes a unit a candidate. What else flows into
    a unit is for `constants` to find.
    """
    every = torch.ones(group.units, dtype=torch.bool)
    some, muted = torch.zeros_like(every), torch.zeros_like(every)
    for member in group.members:
        module = model.get_submodule(member.module)
        index = torch.tensor(member.index)
        if member.module in group.producers and member.axis != "in":
            zero = zero_filters(module).cpu()[index].all(1) if is_maker(module) else torch.zeros_like(every)
            every, some = every & zero, some | zero
        elif is_depthwise(module):
            muted |= zero_filters(module).cpu()[index].all(1)
        elif isinstance(module, _BatchNorm) and module.weight is not None:
            muted |= (module.weight.detach() == 0).cpu()[index].all(1)
    without = every | muted
    multiplied = not group.across and group.kind == "units"
    return without, without | some if multiplied else without


def constants(model: nn.Module, readers: Sequence[str], example: Any) -> dict[str, Tensor]:
    """Reader name to one value for each channel of its input: what it always is, NaN where it varies.

    The network runs on `example`, and then on inputs of noise with every output of a layer drowned in noise, except
    where zero weights make it: a channel that is the same at each sample, position and pass depends on none of them.
    """
    ranges: dict[str, tuple[Tensor, Tensor]] = {}
    loudness: dict[str, float] = {}

    def note(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        low, high = ranges_of(module, args[0].detach())
        if name in ranges:
            low, high = torch.minimum(low, ranges[name][0]), torch.maximum(high, ranges[name][1])
        ranges[name] = low, high

    makers = {name: module for name, module in model.named_modules() if is_maker(module)}
    handles = [model.get_submodule(name).register_forward_pre_hook(partial(note, name)) for name in readers]
    draw = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad(), eval_mode(model):
            with _listening(makers, loudness):
                call(model, example)
            for _ in range(PASSES - 1):
                with _drowned(makers, loudness, draw):
                    call(model, _noise(example, draw))
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name, (low, high) in ranges.items():
        middle = (low + high) / 2
        same = (high - low) <= _TINY * middle.abs()  # kernels may round the same number in two ways
        found[name] = torch.where(same, middle, torch.nan)
    return found


def ranges_of(module: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """(least, largest) value of each channel that the layer reads, float64."""
    rows = inputs.movedim(_channel_axis(module), 0).flatten(1)
    rows = rows.to("cpu", torch.float64)
    return rows.amin(1), rows.amax(1)


@contextmanager
def _listening(makers: Mapping[str, nn.Module], loudness: dict[str, float]) -> Iterator[None]:
    """Note how large the outputs of each layer are."""

    def listen(name: str, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.numel():
            loudness[name] = max(loudness.get(name, 0.0), float(output.detach().abs().max()))

    handles = [module.register_forward_hook(partial(listen, name)) for name, module in makers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _drowned(makers: Mapping[str, nn.Module], loudness: Mapping[str, float], draw: torch.Generator) -> Iterator[None]:
    """Noise in place of every output of convolutions, linear layers and embeddings, but not of zero weights."""

    def drown(name: str, loud: Tensor, module: nn.Module, args: Any, output: Any) -> Any:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        # Of a fixed size: noise on top of noise would grow from layer to layer until it overflows.
        noise = torch.randn(output.shape, generator=draw).to(output) * LOUD * max(loudness.get(name, 0.0), 1.0)
        shape = [1] * output.ndim
        shape[_channel_axis(module)] = -1
        return torch.where(loud.to(output.device).reshape(shape), noise, output)

    handles = [
        module.register_forward_hook(partial(drown, name, ~zero_filters(module))) for name, module in makers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _channel_axis(module: nn.Module) -> int:
    # From the back: an image may come without a batch axis.
    return -len(module.kernel_size) - 1 if isinstance(module, _ConvNd) else -1


def _noise(inputs: Any, draw: torch.Generator) -> Any:
    """Inputs of the same shapes: floating-point ones drawn anew, others (tokens, masks) in another order."""
    if isinstance(inputs, Tensor):
        if inputs.is_floating_point():
            spread = LOUD * max(float(inputs.abs().max()) if inputs.numel() else 0.0, 1.0)
            return torch.randn(inputs.shape, generator=draw).to(inputs) * spread
        order = torch.randperm(inputs.numel(), generator=draw).to(inputs.device)
        return inputs.flatten()[order].reshape(inputs.shape)
    if isinstance(inputs, Mapping):
        return {key: value if "mask" in str(key) else _noise(value, draw) for key, value in inputs.items()}
    return [_noise(value, draw) for value in inputs] if isinstance(inputs, (tuple, list)) else inputs
