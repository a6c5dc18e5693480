"""i-SpaSP: identify 2s units by what they would do to the residual, merge, keep the s largest, again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from thresher.errors import InputError
from thresher.recovery.problem import Problem, check_size, top


@dataclass(frozen=True, kw_only=True, eq=False)
class Recovery:
    """Units chosen, and how the residual went.

    support: int64 indices in rising order, the best seen. loss: its ½‖V‖². losses: ½‖V‖² after each iteration.
    energy: ½‖U‖², the loss of keeping nothing. scale: factor on each kept unit's outgoing weights, None for 1.
    """

    support: Tensor
    loss: float
    losses: tuple[float, ...]
    energy: float
    scale: Tensor | None = None

    @property
    def relative(self) -> float:
        """‖V‖² / ‖U‖²; 0 when U is 0."""
        return self.loss / self.energy if self.energy > 0 else 0.0


def ispasp(problem: Problem, size: int, *, iterations: int = 20) -> Recovery:
    """S ← the s largest units of (top 2s of ‖W1ᵀV‖) ∪ S, V ← U − W1[:, S] H[S], repeated; l2 scores, exact from C.

    Args:
        problem: second moments of the hidden units and the weights that read them.
        size: s, units to keep; at least the number of units is the identity.
        iterations: T; ended earlier as soon as a support comes back, because everything after it would repeat.

    The loss is not monotone in the iterations, so the best support seen is returned. Units whose hidden values are all
    zero are not candidates while s live ones exist: they can score high and still contribute nothing.
    Source: Wolfe and Kyrillidis, arXiv 2112.04905, algorithm 1.

    >>> found = ispasp(Problem.of(torch.diag(torch.tensor([1.0, 9.0, 4.0])), torch.ones(1, 3)), 1)
    >>> found.support.tolist(), found.losses
    ([1], (2.5, 2.5))
    """
    size = check_size(size, problem.units)
    if type(iterations) is not int or iterations < 1:
        raise InputError(f"iterations={iterations!r}", "a whole number, at least 1", "correct iterations")
    if size == problem.units:
        everything = torch.arange(size, device=problem.sizes.device)
        return Recovery(support=everything, loss=0.0, losses=(0.0,), energy=problem.energy)
    live = problem.sizes > 0
    barred = ~live if int(live.sum()) >= size else torch.zeros_like(live)
    if 2 * size >= int((~barred).sum()):
        # Every candidate is among the 2s: the largest hidden values win, at once and for good.
        support = top(problem.sizes.masked_fill(barred, -1.0), size)
        loss = problem.loss(support)
        return Recovery(support=support, loss=loss, losses=(loss,) * min(2, iterations), energy=problem.energy)
    support = torch.empty(0, dtype=torch.int64, device=live.device)
    best, best_loss, losses = support, float("inf"), []
    seen: set[tuple[int, ...]] = set()
    for _ in range(iterations):
        scores = problem.importance(support).masked_fill(barred, -1.0)
        merged = torch.zeros_like(live)
        merged[top(scores, min(2 * size, int((~barred).sum())))] = True
        merged[support] = True
        support = top(problem.sizes.masked_fill(~merged, -1.0), size)
        losses.append(problem.loss(support))
        if losses[-1] < best_loss:
            best, best_loss = support, losses[-1]
        key = tuple(support.tolist())
        if key in seen:
            break
        seen.add(key)
    return Recovery(support=best, loss=best_loss, losses=tuple(losses), energy=problem.energy)


def residual_curve(problem: Problem, sizes: Iterable[int] | None = None, *, iterations: int = 20) -> dict[int, float]:
    """s ↦ ½‖V‖² of the support that i-SpaSP finds for s, for each of `sizes` (default: 1 to all units).

    No data is read: one pass of moments serves every size. Not monotone in s, as the method is not.
    """
    chosen = range(1, problem.units + 1) if sizes is None else sizes
    return {size: ispasp(problem, size, iterations=iterations).loss for size in chosen}
