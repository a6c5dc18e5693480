"""What each layer costs in multiply-adds, Conv1D of transformers included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from thresher.budget.counts import count_positions, counted_weights
from thresher.oneshot.layers import Layer, is_conv1d


def macs_of(model: nn.Module, layers: Sequence[Layer], example: Any) -> tuple[list[float], float]:
    """(output positions per sample of each layer, multiply-adds outside of them), from one forward pass.

    A tied weight costs at each of its sites. Errors: InputError when the model cannot run on `example`.
    """
    tensors = [example] if isinstance(example, Tensor) else []
    if isinstance(example, Mapping):
        tensors = [value for value in example.values() if isinstance(value, Tensor) and value.ndim]
    batch = max(len(tensors[0]), 1) if tensors else 1
    extra: dict[str, float] = {}

    def note(name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        extra[name] = extra.get(name, 0.0) + output.numel() / output.shape[-1] / batch

    others = {f"{name}.weight": module for name, module in model.named_modules() if is_conv1d(module)}
    handles = [module.register_forward_hook(partial(note, name)) for name, module in others.items()]
    try:
        positions = {**count_positions(model, example), **extra}
    finally:
        for handle in handles:
            handle.remove()
    weights = {**counted_weights(model), **{name: (module, "weight") for name, module in others.items()}}
    place = {(id(module), tensor): name for name, (module, tensor) in weights.items()}
    costs = [
        sum(positions.get(place.pop((id(module), tensor), ""), 0.0) for module, tensor in layer.target.sites)
        for layer in layers
    ]
    fixed = sum(positions.get(name, 0.0) * _entries(*weights[name]) for name in place.values())
    return costs, fixed


def _entries(module: nn.Module, tensor: str) -> int:
    weight: Any = getattr(module, tensor)
    return int(weight.numel())
