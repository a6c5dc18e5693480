"""What a network costs when each group keeps so many units: multiply-adds, parameters, bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from thresher.budget.counts import count_positions, counted_weights
from thresher.deploy.storage import predicted_file_bytes
from thresher.structure import CoupledGroup

Cost = dict[str, float]


@dataclass(frozen=True)
class _Piece:
    """One tensor: what it costs whole, and the (module, axis) pairs that scale it."""

    whole: Cost
    axes: tuple[tuple[str, str], ...]


class Costs:
    """`costs.of({group: kept units})` for a dense model, without building anything.

    Multiply-adds are those of convolutions and linear layers, per sample; parameters count ties once; bytes are those
    of the file that `thresher.save` would write, without zeros.
    """

    def __init__(self, model: nn.Module, example: Any, groups: Sequence[CoupledGroup]) -> None:
        self._groups = {group.name: group for group in groups}
        self._sizes: dict[tuple[str, str], int] = {}
        for group in groups:
            for member in group.members:
                self._sizes[member.module, member.axis] = member.size
        positions, counted = count_positions(model, example), counted_weights(model)
        self._pieces: list[_Piece] = []
        seen: set[int] = set()
        macs_fixed = sum(
            positions.get(name, 0.0) * getattr(module, tensor).numel() for name, (module, tensor) in counted.items()
        )
        fixed = {"flops": macs_fixed, "params": 0.0, "bytes": float(predicted_file_bytes(model))}
        for module_name, module in model.named_modules():
            tensors = {**module._parameters, **module._buffers}
            for tensor_name, tensor in tensors.items():
                full = f"{module_name}.{tensor_name}" if module_name else tensor_name
                if tensor is None:
                    continue
                whole = {"flops": positions.get(full, 0.0) * tensor.numel() if full in counted else 0.0}
                fresh = id(tensor) not in seen
                seen.add(id(tensor))
                whole["params"] = float(tensor.numel()) if fresh and tensor_name in module._parameters else 0.0
                kept = fresh and tensor_name not in module._non_persistent_buffers_set
                whole["bytes"] = float(tensor.nbytes) if kept else 0.0
                axes = self._axes(module_name, module, tensor_name)
                if axes and tensor.ndim:
                    self._pieces.append(_Piece(whole, axes))
                    fixed["flops"] -= whole["flops"]
                    fixed["bytes"] -= whole["bytes"]
                else:
                    fixed["params"] += whole["params"]
        self._fixed = fixed

    def _axes(self, name: str, module: nn.Module, tensor: str) -> tuple[tuple[str, str], ...]:
        wanted = ("width",) if (name, "width") in self._sizes else ("out", "in") if tensor == "weight" else ("out",)
        return tuple((name, axis) for axis in wanted if (name, axis) in self._sizes)

    def of(self, kept: Mapping[str, int]) -> Cost:
        """The cost with `kept` units of each group (groups not named are whole)."""
        lost: dict[tuple[str, str], int] = {}
        for name, count in kept.items():
            group = self._groups[name]
            for member in group.members if count < group.units else ():
                key = member.module, member.axis
                lost[key] = lost.get(key, 0) + (group.units - count) * len(member.index[0])
        total = dict(self._fixed)
        for piece in self._pieces:
            share = 1.0
            for key in piece.axes:
                share *= 1 - lost.get(key, 0) / self._sizes[key]
            for limit, whole in piece.whole.items():
                total[limit] += whole * share
        # Counts are whole numbers; the shares are quotients of them.
        return {limit: round(value, 6) for limit, value in total.items()}
