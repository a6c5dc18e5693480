"""What never leaves: the entries that a pattern keeps, the last one of a tensor, the last one of a depthwise filter."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thresher.budget.counts import kept_count
from thresher.budget.ranking import Units
from thresher.operators import UNSTRUCTURED, Groups
from thresher.targets import Target


def units_of(targets: tuple[Target, ...], groups: Groups) -> Units:
    """What is kept or pruned as one in each target: its entries, or the groups of `groups`."""
    index: list[Tensor | None] = []
    sizes: list[Tensor] = []
    for target in targets:
        if groups.entrywise:
            index.append(None)
            sizes.append(torch.ones(target.numel, dtype=torch.int64))
        else:
            ids = groups.index(torch.empty(target.shape)).flatten()
            index.append(ids)
            sizes.append(torch.bincount(ids))
    return Units(tuple(index), tuple(sizes))


def bounds_of(target: Target) -> tuple[int, int]:
    """(fewest, most) entries that the target's rules let stay."""
    return kept_count(target.max_sparsity, target.numel), int((1 - target.min_sparsity) * target.numel + 1e-9)


class Guard:
    """The entries of one target that no budget below 100 % sparsity may take.

    Args:
        alive: whether the tensor, and each filter of a depthwise convolution, keeps an entry. Rules that ask for
            100 % zeros in the tensor overrule it, and so do rows, columns and kernels, which are whole filters.
        index, sizes: the target's part of `Units`.
    """

    def __init__(self, target: Target, groups: Groups, index: Tensor | None, sizes: Tensor, alive: bool) -> None:
        self._target, self._groups = target, groups
        self._patterned = groups.entrywise and groups != UNSTRUCTURED  # N:M: units are entries, some are untouchable
        self._alive = alive and bounds_of(target)[1] > 0
        self._largest, self._even = int(sizes.max()), bool((sizes == sizes[0]).all())
        # A depthwise filter is one row of the weight; `across` units lie side by side in it (or in a band of blocks).
        self._across = 0
        if target.depthwise and groups.spelling not in ("row", "column", "kernel"):
            width = target.numel // target.shape[0]
            self._across = width if index is None else int(index[:width].max()) + 1
        self._bands = len(sizes) // self._across if self._across else 1

    def forced(self, score: Tensor, per_unit: Tensor) -> Tensor:
        """Flat mask of the units that stay, best score first where there is a choice."""
        if self._patterned:  # keeps an entry alive, too
            return self._protected(score)
        must = torch.zeros(len(per_unit), dtype=torch.bool, device=per_unit.device)
        if not self._alive:
            return must
        must[per_unit.argmax()] = True
        if self._across:
            best = per_unit.reshape(-1, self._across).argmax(1)
            must[best + torch.arange(len(best), device=best.device) * self._across] = True
        return must

    def lowest_top(self, per_unit: Tensor) -> Tensor:
        """The least score that `forced` may hold on to, infinite when it holds on to none; NaN if any score is NaN."""
        if self._patterned or not self._alive:
            top = per_unit.amax()
            return top.new_tensor(-math.inf) if self._patterned else torch.where(torch.isnan(top), top, math.inf)
        return per_unit.reshape(-1, self._across).amax(1).amin() if self._across else per_unit.amax()

    @property
    def most_forced(self) -> int:
        """Units that `forced` holds on to at most (0 for patterns, which `lowest_top` leaves to the long way)."""
        return self._bands + 1 if self._alive else 0

    def fewest(self) -> int:
        """Entries that stay at least, whatever the scores (groups of uneven size counted as the largest)."""
        low, most = bounds_of(self._target)
        if low:
            low = math.ceil(low / self._largest) * self._largest if self._even else low + self._largest - 1
        if self._patterned:
            low = max(low, int(self._protected(torch.zeros(self._target.shape)).sum()))
        if self._alive:
            low = max(low, self._bands * self._largest)
        return min(low, self._target.numel, most)

    def _protected(self, score: Tensor) -> Tensor:
        # Ranks in place of scores: they have no ties and no zeros, so exactly N of M stay in every group.
        flat = score.detach().flatten()
        ranks = torch.empty(len(flat), dtype=torch.float64, device=flat.device)
        ranks[torch.sort(flat, stable=True).indices] = torch.arange(1.0, len(flat) + 1, dtype=torch.float64).to(ranks)
        ranks = ranks.reshape(score.shape)
        return (ranks > self._groups.cap(ranks, ranks.new_full((1,), torch.inf))).flatten()
