"""H = X Xᵀ of what each layer reads, noted by hooks while batches run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from thresher.errors import NumericsError
from thresher.oneshot.layers import Layer, state_of
from thresher.recovery.moments import CHUNK, SecondMoments
from thresher.recovery.reading import can_unfold, hidden_rows


class Statistics:
    """Second moments of the inputs of `layers`, between `with` and its end.

    For layers that read the very same tensor (query, key and value, say) the product is taken once. Tied layers add
    theirs up.
    Padding that `attention_mask` marks does not count.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = tuple(layers)
        self._sums: dict[str, SecondMoments] = {}
        self._handles: list[RemovableHandle] = []
        self._mask: Tensor | None = None
        # What was read in this batch, held until the next: an address that is free again would look the same.
        self._read: dict[tuple[int, int], tuple[Tensor, SecondMoments]] = {}

    def __enter__(self) -> Statistics:
        for layer in self._layers:
            for module in layer.readers():
                note = partial(self._note, layer)
                self._handles.append(module.register_forward_pre_hook(note, with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._read.clear()

    def begin(self, inputs: Any) -> None:
        """A new batch follows; call it before every one."""
        self._mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        self._read.clear()

    def _note(self, layer: Layer, module: nn.Module, args: tuple[Any, ...], kwargs: Any) -> None:
        inputs = args[0] if args else next(iter(kwargs.values()))
        key = state_of(inputs)
        share = not isinstance(module, _ConvNd)
        if share and key in self._read:
            part = self._read[key][1]
        else:
            part = _sum_of(layer, module)
            _add(part, module, inputs.detach(), self._mask)
            if share:
                self._read[key] = (inputs, part)
        if layer.name not in self._sums:
            self._sums[layer.name] = _sum_of(layer, module)
        self._sums[layer.name].include(part)

    def take(self, layer: Layer) -> tuple[Tensor | None, int]:
        """(H, (groups, columns, columns) float64, and its number of vectors), forgotten here; (None, 0) when no batch
        reached the layer, or its input cannot be weighed.

        Errors: NumericsError for NaN or infinity among the inputs.
        """
        found = self._sums.pop(layer.name, None)
        if found is None:
            return None, 0
        try:
            matrix = found.result()
        except NumericsError:
            raise NumericsError(
                f"inputs of {layer.name} with NaN or infinity",
                "finite activations",
                "look for NaN in the calibration data and the weights; a half precision may overflow, try bfloat16",
            ) from None
        return (matrix if matrix.ndim == 3 else matrix[None]), found.count


class GroupedMoments(SecondMoments):
    """H of each group of a grouped convolution, (groups, columns, columns): groups do not see each other's inputs."""

    def add(self, inputs: Tensor, mask: Tensor | None = None) -> None:
        """Take in one input of the convolution."""
        groups: int = self.module.groups  # type: ignore[assignment]
        self.items += len(inputs)
        step = max(CHUNK // max(inputs[:1].numel() * self._growth(), 1), 1)
        for start in range(0, len(inputs), step):
            piece = inputs[start : start + step]
            rows = hidden_rows(self.module, piece, self.channels, dtype=torch.float64)
            parts = rows.reshape(len(rows), groups, -1).transpose(0, 1)
            self._sum(parts.mT @ parts)
            self.count += len(rows)


def _sum_of(layer: Layer, module: nn.Module) -> SecondMoments:
    channels = torch.arange(layer.target.shape[1] * layer.groups)
    kind = GroupedMoments if layer.groups > 1 else SecondMoments
    return kind(_stand_in(module), channels)


def _stand_in(module: nn.Module) -> nn.Module:
    """The module itself, or for padding that `hidden_rows` does not know an unpadded twin without memory."""
    if not isinstance(module, _ConvNd) or can_unfold(module):
        return module
    kind: Any = type(module)
    return kind(  # type: ignore[no-any-return]
        module.in_channels,
        module.out_channels,
        module.kernel_size,  # type: ignore[arg-type]
        stride=module.stride,  # type: ignore[arg-type]
        dilation=module.dilation,  # type: ignore[arg-type]
        groups=module.groups,
        device="meta",
    )


def _add(found: SecondMoments, module: nn.Module, inputs: Tensor, mask: Tensor | None) -> None:
    if isinstance(module, _ConvNd):
        inputs = inputs if inputs.ndim == module.weight.ndim else inputs[None]
        if not can_unfold(module):
            mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
            inputs = F.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
        found.add(inputs)
        return
    if mask is not None and inputs.ndim == 2 and len(inputs) == math.prod(mask.shape):
        inputs = inputs[mask.flatten().to(inputs.device, torch.bool)]  # OPT folds tokens into the batch
    found.add(inputs, mask)
