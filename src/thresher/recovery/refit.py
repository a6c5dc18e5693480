"""W1' = U H_Sᵀ (H_S H_Sᵀ + εI)⁻¹: the outgoing weights fitted anew to what the whole layer gave (debias)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from thresher.recovery.problem import Part, Problem

RIDGE = 1e-6


def refit(part: Part, support: Tensor, *, ridge: float = RIDGE) -> Tensor:
    """W1' of shape (out, kept rows), with ε = ridge · tr(C_SS) / rows. All from the moments.

    Where the kept rows are all zero the old weights stay. With `ridge=0` the kept rows must be independent.

    >>> part = Part(moments=torch.tensor([[1.0, 1.0], [1.0, 1.0]]), weight=torch.tensor([[1.0, 2.0]]))
    >>> round(refit(part, torch.tensor([0])).item(), 4)
    3.0
    """
    rows = part.rows(torch.as_tensor(support, dtype=torch.int64))
    own, epsilon = _own(part, rows, ridge)
    if epsilon is None:
        return part.weight[:, rows].clone()
    lower = torch.linalg.cholesky(own)
    return torch.cholesky_solve(part.across[:, rows].T, lower).T


def refit_loss(problem: Problem, support: Tensor, *, ridge: float = RIDGE) -> float:
    """½‖U − W1' H_S‖² with the refitted weights of every reader."""
    total = 0.0
    for part in problem.parts:
        rows = part.rows(torch.as_tensor(support, dtype=torch.int64))
        new, common = refit(part, support, ridge=ridge), part.across[:, rows]
        own = part.moments[rows][:, rows]
        total += max(part.energy - float((new * common).sum()) + float(((new @ own) * new).sum()) / 2, 0.0)
    return total


def refit_prefixes(problem: Problem, order: Sequence[int] | Tensor, *, ridge: float = RIDGE) -> Tensor:
    """½‖V‖² after the refit for the first 1, 2, ... units of `order`, all from one Cholesky factorisation.

    With C = L Lᵀ in that order and Z = L⁻¹ C W1ᵀ, the first m rows leave ½‖U‖² − ½‖Z[:m]‖². The ridge is that of the
    whole order for every prefix, so a loss is an upper bound of its own ridge's up to ε‖W1'‖²/2.

    >>> problem = Problem.of(torch.diag(torch.tensor([1.0, 4.0])), torch.ones(1, 2))
    >>> [round(loss, 5) for loss in refit_prefixes(problem, [1, 0]).tolist()]
    [0.5, 0.0]
    """
    units = torch.as_tensor(order, dtype=torch.int64)
    total = torch.zeros(len(units), dtype=torch.float64)
    for part in problem.parts:
        rows = part.rows(units.to(part.moments.device))
        own, epsilon = _own(part, rows, ridge)
        if epsilon is None:
            total += part.energy
            continue
        common = part.across[:, rows].T
        whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(own), common, upper=False)
        gained = whitened.square().sum(1).reshape(len(units), part.block).sum(1).cumsum(0)
        total += (part.energy - gained.cpu() / 2).clamp_min(0)
    return total


def _own(part: Part, rows: Tensor, ridge: float) -> tuple[Tensor, Tensor | None]:
    """C_SS with ε on its diagonal, and ε; None when nothing in it is above zero."""
    own = part.moments[rows][:, rows]
    trace = own.diagonal().sum()
    if not float(trace) > 0:
        return own, None
    epsilon = ridge * trace / len(rows)
    own.diagonal().add_(epsilon)  # a copy already, by the indexing
    return own, epsilon
