"""What a network costs when each group keeps so many units: multiply-adds, parameters, bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from thresher.budget.counts import count_positions, counted_weights
from thresher.deploy.storage import predicted_file_bytes
from thresher.structure import CoupledGroup

Cost = dict[str, float]
_LIMITS = ("flops", "params", "bytes")


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
        self._table()

    def _axes(self, name: str, module: nn.Module, tensor: str) -> tuple[tuple[str, str], ...]:
        wanted = ("width",) if (name, "width") in self._sizes else ("out", "in") if tensor == "weight" else ("out",)
        found = [(name, axis) for axis in wanted if (name, axis) in self._sizes]
        found += [key for key in self._sizes if key[0] == name and key[1].startswith(f"{tensor}:")]
        return tuple(found)

    def of(self, kept: Mapping[str, int]) -> Cost:
        """The cost with `kept` units of each group (groups not named are whole)."""
        lost = np.zeros(len(self._axis))
        for name, count in kept.items():
            group = self._groups[name]
            for place, share in self._shares[name] if count < group.units else ():
                lost[place] += (group.units - count) * share
        left = (1 - lost)[self._places].prod(1)
        # Counts are whole numbers; the shares are quotients of them.
        return {
            limit: round(self._fixed[limit] + float(whole @ left), 6)
            for limit, whole in zip(_LIMITS, self._wholes, strict=True)
        }

    def _table(self) -> None:
        """Pieces as arrays: allocation asks thousands of times. Axes that a piece lacks point at one that is whole."""
        self._axis = {key: place for place, key in enumerate([("", ""), *self._sizes])}
        most = max((len(piece.axes) for piece in self._pieces), default=1)
        self._places = np.zeros((len(self._pieces), most), dtype=np.int64)
        for row, piece in enumerate(self._pieces):
            self._places[row, : len(piece.axes)] = [self._axis[key] for key in piece.axes]
        self._wholes = [np.array([piece.whole[limit] for piece in self._pieces]) for limit in _LIMITS]
        self._shares = {
            name: [
                (self._axis[member.module, member.axis], len(member.index[0]) / member.size) for member in group.members
            ]
            for name, group in self._groups.items()
        }
