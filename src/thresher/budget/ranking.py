"""The exact projection: from scores to the masks that meet a budget to one unit, ties and bounds included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thresher.errors import BudgetError, NumericsError


@dataclass(frozen=True)
class Units:
    """What is kept or pruned as one: entries, or groups of entries.

    For each target `index[t]` maps entries (flat) to unit numbers, None when each entry is its own unit.
    """

    index: tuple[Tensor | None, ...]
    sizes: tuple[Tensor, ...]


@dataclass(frozen=True)
class Solution:
    """Masks that meet the budget.

    keep: boolean tensors, True where an entry stays. kept: entries kept per target.
    threshold: midway between the largest freely pruned and the smallest freely kept score
    (0 when nothing is pruned, the largest score that left when no freely kept one is over).
    """

    keep: tuple[Tensor, ...]
    kept: tuple[int, ...]
    threshold: float


def unit_scores(scores: Sequence[Tensor], units: Units) -> list[Tensor]:
    """One score per unit: the entry's own, or the largest of a group (group scores are equal inside a group)."""
    found = []
    for score, index, size in zip(scores, units.index, units.sizes, strict=True):
        flat = score.detach().flatten().to(torch.float32)
        if index is not None:
            start = torch.full((len(size),), -torch.inf, device=flat.device)
            flat = start.scatter_reduce(0, index, flat, "amax")
        found.append(flat)
    return found


def solve(
    scores: Sequence[Tensor],
    shapes: Sequence[tuple[int, ...]],
    units: Units,
    forced: Sequence[Tensor],
    never: Sequence[tuple[int, int]],
    fits: Callable[[Tensor, Tensor, int], int],
    fraction: float = 1.0,
) -> Solution:
    """Prune the units of lowest score, as few as `fits` allows.

    Args:
        scores: per target, one score per unit; larger stays longer.
        forced: per target, boolean per unit: never pruned.
        never: per target (fewest, most) entries that may stay.
        fits: given target numbers and unit numbers in the order in which units leave, and how many of them may
            leave, how many must leave.
        fraction: share of those that leave now (a schedule on its way to the budget).

    Ties leave in order of the lowest flat index, so that exactly the asked number leaves.

    Errors: NumericsError when a score is NaN.
    """
    ranked: list[Tensor] = []
    for number, (score, must, (low, high)) in enumerate(zip(scores, forced, never, strict=True)):
        if torch.isnan(score).any():
            raise NumericsError(
                f"NaN among the weights of target number {number}",
                "finite weights",
                "find where the loss became NaN, lower the learning rate, resume from an earlier checkpoint",
            )
        rank = torch.where(must, torch.inf, score)
        sizes = units.sizes[number]
        if low > 0 or high < int(sizes.sum()):
            order = torch.sort(rank, descending=True, stable=True).indices
            reach = torch.cumsum(sizes[order], 0)
            rank = rank.clone()
            rank[order[reach - sizes[order] < low]] = torch.inf
            rank[order[reach > high]] = -torch.inf
        ranked.append(rank)
    lengths = torch.tensor([len(rank) for rank in ranked])
    flat = torch.cat(ranked)
    order = torch.sort(flat, stable=True).indices
    target_of = torch.repeat_interleave(torch.arange(len(ranked)), lengths).to(order.device)[order]
    unit_of = order - torch.cat([lengths.new_zeros(1), lengths.cumsum(0)[:-1]]).to(order.device)[target_of]
    # What an upper bound pushes out leaves in any case; what is forced to stay never does.
    driven, free = int((flat == -torch.inf).sum()), int((flat != torch.inf).sum())
    leave = int(max(fits(target_of, unit_of, free), driven) * fraction + 1e-9)
    pruned = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    pruned[order[:leave]] = True
    keep: list[Tensor] = []
    kept: list[int] = []
    for part, index, size, shape in zip(pruned.split(lengths.tolist()), units.index, units.sizes, shapes, strict=True):
        stays = ~part
        kept.append(int(size[stays].sum()))
        keep.append((stays if index is None else stays[index]).reshape(shape))
    return Solution(tuple(keep), tuple(kept), _threshold(flat[order], leave))


def _threshold(ordered: Tensor, leave: int) -> float:
    last_out = float(ordered[leave - 1]) if leave else 0.0
    first_in = float(ordered[leave]) if leave < len(ordered) else torch.inf
    if first_in == torch.inf:
        # Only forced units stay, or none: the threshold just clears the last one that left.
        return max(last_out, 0.0)
    if last_out == -torch.inf:
        return 0.0
    return (last_out + first_in) / 2 if leave else 0.0


def unreachable(asked: str, low: str, high: str) -> BudgetError:
    """The error for a budget outside what the rules and the protected weights allow."""
    return BudgetError(
        f"budget {asked}, which these rules cannot reach",
        f"from {low} to {high}",
        "change the budget, loosen the rules, or include more layers",
    )


def fewest(low: int, high: int, met: Callable[[int], bool]) -> int | None:
    """The least count from `low` to `high` that `met`, which holds from some count on; None when none does."""
    if met(low):
        return low
    if not met(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if met(middle) else (middle, high)
    return high


def first_reaching(cumulative: Tensor, needed: float) -> int:
    """How many must leave until `cumulative` reaches `needed`."""
    if needed <= 0:
        return 0
    return min(int(torch.searchsorted(cumulative, needed - 1e-6)) + 1, len(cumulative))


def rank_within(score: Tensor) -> Tensor:
    """Score -> share of the tensor's entries that rank at or below it, in (0, 1]: makes layers comparable, so that a
    global ranking prunes each to the same sparsity.

    >>> rank_within(torch.tensor([3.0, 1.0, 2.0, 5.0])).tolist()
    [0.75, 0.25, 0.5, 1.0]
    """
    flat = score.flatten()
    ranks = torch.empty(len(flat), dtype=torch.float32, device=score.device)
    order = torch.sort(flat, stable=True).indices
    ranks[order] = torch.arange(1, len(flat) + 1, device=score.device) / len(flat)
    return ranks.reshape(score.shape)
