"""magnitude(θ) and cap(θ, d) for each way of sharing one decision between weights.

Every class here answers the questions of `thresher.operators.groups.Groups`, whose docstring gives the shapes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import rms, widen

AXES = {"row": (0,), "column": (1,), "kernel": (0, 1)}


@dataclass(frozen=True, kw_only=True)
class Weight:
    """magnitude = |θ|: every weight stands alone.

    >>> Weight().magnitude(torch.tensor([-2.0, 1.0])).tolist()
    [2.0, 1.0]
    """

    entrywise: ClassVar[bool] = True

    @property
    def spelling(self) -> str:
        return "weight"

    def fits(self, shape: Sequence[int]) -> bool:
        return True

    def magnitude(self, theta: Tensor) -> Tensor:
        return widen(theta).abs()

    def cap(self, theta: Tensor, threshold: Tensor) -> Tensor:
        return threshold.to(widen(theta).dtype)

    def index(self, theta: Tensor) -> Tensor:
        return torch.arange(theta.numel(), device=theta.device).reshape(theta.shape)

    def sizes(self, theta: Tensor) -> Tensor:
        return torch.bincount(self.index(theta).flatten())


@dataclass(frozen=True, kw_only=True)
class NofM(Weight):
    """cap = min(d, the (M−N)-th smallest |θ| of the group): at most M − N of M neighbours along dim 1 are pruned.

    Weights tied with the cap: the lower index is pruned, and the cap of the other lies one rounding lower, so that N
    non-zero weights survive in every group that has them. The ragged last group is never pruned (cap 0).

    >>> NofM(keep=2, of=4).cap(torch.tensor([[4.0, 1.0, 3.0, 2.0]]), torch.tensor([9.0])).tolist()
    [[2.0, 2.0, 2.0, 2.0]]
    """

    keep: int
    of: int

    @property
    def spelling(self) -> str:
        return f"{self.keep}:{self.of}"

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) >= 2 and shape[1] % self.of == 0

    def cap(self, theta: Tensor, threshold: Tensor) -> Tensor:
        magnitude = self.magnitude(theta)
        whole = theta.shape[1] // self.of
        full, tail = magnitude[:, : whole * self.of], magnitude[:, whole * self.of :]
        full = full.reshape(full.shape[0], whole, self.of, *full.shape[2:])
        ordered, order = full.sort(dim=2, stable=True)  # stable: of two equals the lower index counts as smaller
        limit = ordered[:, :, self.of - self.keep - 1 : self.of - self.keep]
        tied_survivor = (order.argsort(dim=2) >= self.of - self.keep) & (full == limit)
        limit = torch.where(tied_survivor, limit * (1 - torch.finfo(full.dtype).eps), limit)
        limit = torch.cat([limit.flatten(1, 2), torch.zeros_like(tail)], dim=1)
        return torch.minimum(limit, threshold.to(limit.dtype))

    def index(self, theta: Tensor) -> Tensor:
        outputs, inputs, taps = theta.shape[0], theta.shape[1], math.prod(theta.shape[2:])
        group = torch.arange(inputs, device=theta.device) // self.of
        row = torch.arange(outputs, device=theta.device) * math.ceil(inputs / self.of)
        tap = torch.arange(taps, device=theta.device)
        return ((row[:, None, None] + group[:, None]) * taps + tap).reshape(theta.shape)


@dataclass(frozen=True, kw_only=True)
class Axes:
    """magnitude = RMS over all axes but those that name the group: row (dim 0), column (dim 1), kernel (dims 0, 1).

    >>> Axes(kind="row").magnitude(torch.tensor([[3.0, 4.0, 0.0, 0.0]])).tolist()
    [[2.5, 2.5, 2.5, 2.5]]
    """

    entrywise: ClassVar[bool] = False
    kind: str

    @property
    def spelling(self) -> str:
        return self.kind

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) >= 2

    def magnitude(self, theta: Tensor) -> Tensor:
        inside = tuple(d for d in range(theta.ndim) if d not in AXES[self.kind])
        if not inside:  # the kernels of a linear layer are single weights; an empty dim list would reduce them all
            return widen(theta).abs()
        return rms(widen(theta), inside, math.prod([theta.shape[d] for d in inside])).expand(theta.shape)

    def cap(self, theta: Tensor, threshold: Tensor) -> Tensor:
        return threshold.to(widen(theta).dtype)

    def index(self, theta: Tensor) -> Tensor:
        named = AXES[self.kind]
        sizes = [size if d in named else 1 for d, size in enumerate(theta.shape)]
        return torch.arange(math.prod(sizes), device=theta.device).reshape(sizes).expand(theta.shape)

    def sizes(self, theta: Tensor) -> Tensor:
        return torch.bincount(self.index(theta).flatten())


@dataclass(frozen=True, kw_only=True)
class Block:
    """magnitude = RMS over R neighbouring outputs × C neighbours of the flattened input side (ragged: real count).

    >>> Block(rows=2, columns=1).magnitude(torch.tensor([[3.0], [4.0], [5.0]])).flatten().tolist()[2]
    5.0
    """

    entrywise: ClassVar[bool] = False
    rows: int
    columns: int

    @property
    def spelling(self) -> str:
        return f"block:{self.rows}x{self.columns}"

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) >= 2

    def magnitude(self, theta: Tensor) -> Tensor:
        flat = widen(theta).flatten(1)
        outputs, inputs = flat.shape
        down, across = math.ceil(outputs / self.rows), math.ceil(inputs / self.columns)
        padded = F.pad(flat, (0, across * self.columns - inputs, 0, down * self.rows - outputs))
        tiles = padded.reshape(down, self.rows, across, self.columns)
        height = (outputs - torch.arange(down, device=theta.device) * self.rows).clamp(max=self.rows)
        width = (inputs - torch.arange(across, device=theta.device) * self.columns).clamp(max=self.columns)
        norm = rms(tiles, (1, 3), height[:, None, None, None] * width[:, None])
        return norm.expand_as(tiles).reshape(padded.shape)[:outputs, :inputs].reshape(theta.shape)

    def cap(self, theta: Tensor, threshold: Tensor) -> Tensor:
        return threshold.to(widen(theta).dtype)

    def index(self, theta: Tensor) -> Tensor:
        outputs, inputs = theta.shape[0], math.prod(theta.shape[1:])
        down = torch.arange(outputs, device=theta.device) // self.rows * math.ceil(inputs / self.columns)
        return (down[:, None] + torch.arange(inputs, device=theta.device) // self.columns).reshape(theta.shape)

    def sizes(self, theta: Tensor) -> Tensor:
        return torch.bincount(self.index(theta).flatten())
