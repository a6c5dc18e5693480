"""SparseGPT: what leaves is chosen block by block, and the weights that come after make up for the error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from thresher.errors import InputError
from thresher.oneshot.choosing import best_of, best_of_row, lowest, quotas
from thresher.oneshot.obs import inverse_factor, sweep
from thresher.oneshot.problem import Problem
from thresher.oneshot.scored import wanda_scores
from thresher.operators.patterns import NofM

BLOCK, BLOCKS = 128, 8


@dataclass(frozen=True, kw_only=True)
class SparseGpt:
    """Columns leave from left to right by w² / [H⁻¹]_jj, and the weights to their right make up for the error.

    Args:
        block: columns between two choices of what leaves; rows are compared with each other there. 0: 128, as
            published, but at most an eighth of the layer's columns, because in one single block no choice sees what
            earlier columns did. N:M chooses at every group of M columns.
        quota: how many leave from a block: "ranked", as many as one ranking of the first costs over all columns takes
            from it, or "even", in proportion to its width (as published). Columns on strong inputs then keep more.
        damping: added to the diagonal of H, as a share of its mean.

    Source: Frantar and Alistarh 2023 (arXiv 2301.00774), algorithm 1: `SparseGpt(block=128, quota="even")`.
    """

    name: ClassVar[str] = "sparsegpt"
    block: int = 0
    quota: Literal["ranked", "even"] = "ranked"
    damping: float = 0.01

    def __post_init__(self) -> None:
        if type(self.block) is not int or self.block < 0:
            raise InputError(f"block={self.block!r}", "a whole number of columns, 0 for the default", "correct block")
        if self.quota not in ("ranked", "even"):
            raise InputError(f"quota={self.quota!r}", "'ranked' or 'even'", "correct quota")
        if not 0 <= self.damping < float("inf"):
            raise InputError(f"damping={self.damping!r}", "a finite number, not negative", "correct damping")

    def solve(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """(W', gone)."""
        order = _order(problem)
        moments = problem.moments[:, order][:, :, order]
        weight, factor = problem.weight[..., order], inverse_factor(moments, self.damping)
        dead = moments.diagonal(dim1=-2, dim2=-1)[:, None, :] == 0
        # Nothing reads the dead ones: their cost is 0, whatever stands on the diagonal of H in their place.
        costs = (weight / factor.diagonal(dim1=-2, dim2=-1)[:, None, :]).square().masked_fill(dead, 0.0)
        block = self.block or min(BLOCK, max(weight.shape[-1] // BLOCKS, 1))
        choice = _Choice(problem, block, dead, costs if self.quota == "ranked" else None)
        weight, gone = sweep(weight, factor, choice, block=choice.block, every=choice.every)
        back = order.argsort()
        return weight[..., back], gone[..., back]


def _order(problem: Problem) -> Tensor:
    """Columns tap by tap where N:M runs along the channels, so that its groups lie side by side."""
    columns = torch.arange(problem.weight.shape[-1], device=problem.weight.device)
    return columns.reshape(-1, problem.taps).T.flatten() if isinstance(problem.pattern, NofM) else columns


class _Choice:
    """What leaves: at every group of M columns for a whole N:M pattern, else a share of every block.

    costs: what each entry would cost first, where they shall say how many leave from each block.
    """

    def __init__(self, problem: Problem, block: int, dead: Tensor, costs: Tensor | None) -> None:
        self._dead = dead
        groups, rows, columns = problem.weight.shape
        self._pattern = problem.pattern if isinstance(problem.pattern, NofM) else None
        of = 1 if self._pattern is None else self._pattern.of
        self.block = -(-block // of) * of
        widths = [min(self.block, columns - start) for start in range(0, columns, self.block)]
        free = [groups * rows * width for width in widths]
        self._alive: Tensor | None = None
        if self._pattern is not None:
            free = [each // of * (of - self._pattern.keep) for each in free]
        elif problem.alive and problem.target.depthwise:
            self._alive = best_of_row(wanda_scores(problem.weight, problem.moments))
            free = [int((~part).sum()) for part in self._alive.split(self.block, dim=-1)]
        self.every = of if self._pattern is not None and problem.leave >= sum(free) else self.block
        if costs is None:
            self._quota = quotas(problem.leave, free, widths)
        else:
            gone = lowest(costs, problem.leave, stays=self._stays(costs, 0))
            self._quota = [int(part.sum()) for part in gone.split(self.block, dim=-1)]

    def __call__(self, column: int, costs: Tensor) -> Tensor:
        costs = costs.masked_fill(self._dead[..., column : column + costs.shape[-1]], 0.0)
        stays = self._stays(costs, column)
        if stays is not None and self.every != self.block:
            return ~stays
        return lowest(costs, self._quota[column // self.block], stays=stays)

    def _stays(self, costs: Tensor, column: int) -> Tensor | None:
        if self._pattern is not None:
            return best_of(costs, self._pattern.keep, self._pattern.of)
        return None if self._alive is None else self._alive[..., column : column + costs.shape[-1]]
