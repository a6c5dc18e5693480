"""How many entries leave from each layer, so that all together meet the budget to one weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from thresher.attach import latent
from thresher.budget.counts import kept_count
from thresher.budget.guards import bounds_of
from thresher.budget.language import Budget
from thresher.budget.planner import FileSize, Planner
from thresher.budget.ranking import rank_within, unreachable
from thresher.errors import BudgetError
from thresher.oneshot.layers import Layer
from thresher.operators import Groups
from thresher.operators.patterns import NofM


@dataclass(frozen=True, kw_only=True)
class Need:
    """Σ weight_l · leave_l ≥ amount: what one term of a budget asks. `asked`: that term as text."""

    weights: tuple[float, ...]
    amount: float
    asked: str

    def met(self, leave: Sequence[int]) -> bool:
        """Whether so many leaving entries meet it."""
        return sum(weight * count for weight, count in zip(self.weights, leave, strict=True)) >= self.amount - 1e-6


def uniform(sizes: Sequence[int], rooms: Sequence[tuple[int, int]], needs: Sequence[Need]) -> list[int]:
    """The same share of every layer, the least that meets every need; the last weights one by one.

    Args:
        rooms: per layer (fewest, most) entries that may leave.

    >>> uniform([10, 5], [(0, 9), (0, 4)], [Need(weights=(1, 1), amount=8, asked="sparsity=53.3%")])
    [5, 3]

    Errors: BudgetError when even the most is too little.
    """

    def at(share: float) -> list[int]:
        return [min(max(int(share * size + 1e-9), low), high) for size, (low, high) in zip(sizes, rooms, strict=True)]

    def met(leave: Sequence[int]) -> bool:
        return all(need.met(leave) for need in needs)

    for need in needs:
        if not need.met(at(1.0)):
            most = sum(high for _, high in rooms) / sum(sizes)
            least = sum(low for low, _ in rooms) / sum(sizes)
            raise unreachable(need.asked, f"{least:.4%} zeros", f"{most:.4%}")
    below, above = 0.0, 1.0
    if met(at(below)):
        return at(below)
    for _ in range(60):
        middle = (below + above) / 2
        below, above = (below, middle) if met(at(middle)) else (middle, above)
    leave, enough = at(below), at(above)
    for place in range(len(leave)):
        while leave[place] < enough[place] and not met(leave):
            leave[place] += 1
    return leave


def counts(
    model: nn.Module,
    layers: Sequence[Layer],
    groups: Groups,
    budget: Budget | None,
    *,
    allocation: str,
    costs: Sequence[float] | None,
    fixed_macs: float,
    file_size: FileSize | None,
) -> list[int]:
    """Entries that leave from each layer.

    Args:
        budget: None for a whole N:M pattern. allocation: "uniform" or "global" (what one ranking of |w| over all layers
            takes from each). costs: output positions of each layer, for `flops=`; fixed_macs: multiply-adds elsewhere.
        file_size: for `bytes=`; the sizes then are those of a magnitude mask of as many entries.

    Errors: BudgetError.
    """
    sizes = [layer.target.numel for layer in layers]
    if budget is not None and budget.latency is not None:
        asked = str(Budget(latency=budget.latency))
        raise BudgetError(
            asked, "sparsity, params, flops or bytes", "use thresher.prune with engine= or thresher.shrink"
        )
    if budget is None:
        if not isinstance(groups, NofM):
            raise BudgetError("no budget", 'budget="sparsity=50%", or groups="2:4"', "say how sparse it shall be")
        share = 1 - groups.keep / groups.of
        rooms = [_room(layer, groups, alive=True) for layer in layers]
        return [min(max(round(share * size), low), high) for size, (low, high) in zip(sizes, rooms, strict=True)]
    total = sum(parameter.numel() for parameter in model.parameters())
    if allocation == "uniform" and groups.entrywise and budget.bytes is None:
        rooms = [_room(layer, groups, alive=budget.sparsity != 1) for layer in layers]
        return uniform(sizes, rooms, _needs(budget, sizes, total, costs, fixed_macs))
    targets = [layer.target for layer in layers]
    planner = Planner(budget, targets, groups, other_params=total - sum(sizes), file_size=file_size)
    if costs is not None:
        planner.set_positions({layer.name: cost for layer, cost in zip(layers, costs, strict=True)}, fixed_macs)
    scores = []
    for layer in layers:
        stored = latent(layer.target).detach()
        magnitude = groups.magnitude(stored.T if layer.transposed else stored)
        scores.append(rank_within(magnitude) if allocation == "uniform" else magnitude)
    kept = planner.solve(scores).kept
    return [size - stay for size, stay in zip(sizes, kept, strict=True)]


def _room(layer: Layer, groups: Groups, *, alive: bool) -> tuple[int, int]:
    target = layer.target
    fewest, most = bounds_of(target)
    if isinstance(groups, NofM):
        fewest = max(fewest, target.numel // groups.of * groups.keep)
    elif alive and most:
        fewest = max(fewest, target.shape[0] if target.depthwise else 1)
    return target.numel - most, target.numel - min(fewest, most)


def _needs(
    budget: Budget, sizes: Sequence[int], total: int, costs: Sequence[float] | None, fixed_macs: float
) -> list[Need]:
    ones = (1.0,) * len(sizes)
    found = []
    amount: float
    if budget.sparsity is not None:
        leave = sum(sizes) - kept_count(budget.sparsity, sum(sizes))
        found.append(Need(weights=ones, amount=leave, asked=str(Budget(sparsity=budget.sparsity))))
    if budget.params is not None:
        amount = math.ceil(total - budget.params.limit(total) - 1e-6)
        found.append(Need(weights=ones, amount=amount, asked=str(Budget(params=budget.params))))
    if budget.flops is not None:
        assert costs is not None
        whole = fixed_macs + sum(cost * size for cost, size in zip(costs, sizes, strict=True))
        amount = whole - budget.flops.limit(whole)
        found.append(Need(weights=tuple(costs), amount=amount, asked=str(Budget(flops=budget.flops))))
    return found
