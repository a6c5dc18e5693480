"""One layer to be made sparse, and which of its entries leave by a score."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thresher.budget.language import Budget
from thresher.budget.planner import Planner
from thresher.oneshot.choosing import best_of, best_of_row, lowest
from thresher.operators import Groups
from thresher.operators.patterns import NofM
from thresher.targets import Target


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """One layer: what is there, what it reads, and how many entries leave.

    weight: W, (groups, rows, columns) float64. moments: H = X Xᵀ, (groups, columns, columns). leave: entries that
    become zero. pattern: which weights share one decision. target: shape (outputs, inputs, *kernel). alive: whether
    every depthwise filter keeps an entry.
    """

    weight: Tensor
    moments: Tensor
    leave: int
    pattern: Groups
    target: Target
    alive: bool = True

    @property
    def taps(self) -> int:
        """Kernel positions per channel."""
        return self.target.numel // (self.target.shape[0] * self.target.shape[1])

    def lowest(self, scores: Tensor, *, by_row: bool) -> Tensor:
        """The `leave` entries of lowest score that pattern and guards let go."""
        if not self.pattern.entrywise:
            return self._lowest_groups(scores)
        stays = None
        if isinstance(self.pattern, NofM):
            stays = best_of(scores, self.pattern.keep, self.pattern.of, taps=self.taps)
        elif self.alive and self.target.depthwise:
            stays = best_of_row(scores)
        return lowest(scores, self.leave, by_row=by_row, stays=stays)

    def _lowest_groups(self, scores: Tensor) -> Tensor:
        # Rows, columns, kernels and blocks: the projection of thresher.prune, on this layer alone.
        entries = self.target.numel
        share = 1.0 if self.leave == entries else (self.leave + 0.5) / entries  # half an entry against rounding
        target = replace(self.target, min_sparsity=0.0, max_sparsity=1.0)
        planner = Planner(Budget(sparsity=share), [target], self.pattern)
        worth = self.pattern.magnitude(scores.reshape(target.shape).to(torch.float32))
        return ~planner.solve([worth]).keep[0].reshape(scores.shape)
