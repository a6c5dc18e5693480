"""W1' = U H_Sᵀ (H_S H_Sᵀ + εI)⁻¹: the outgoing weights fitted anew to what the whole layer gave (debias)."""

from __future__ import annotations

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
    own = part.moments[rows][:, rows]
    trace = own.diagonal().sum()
    if not float(trace) > 0:
        return part.weight[:, rows].clone()
    own = own + torch.eye(len(rows), dtype=own.dtype, device=own.device) * (ridge * trace / len(rows))
    across = part.weight @ part.moments[:, rows]
    return torch.linalg.solve(own, across.T).T  # type: ignore[no-any-return]


def refit_loss(problem: Problem, support: Tensor, *, ridge: float = RIDGE) -> float:
    """½‖U − W1' H_S‖² with the refitted weights of every reader."""
    total = 0.0
    for part in problem.parts:
        rows = part.rows(torch.as_tensor(support, dtype=torch.int64))
        new = refit(part, support, ridge=ridge)
        change = part.weight.clone()
        change[:, rows] -= new
        total += float(((change @ part.moments) * change).sum()) / 2
    return max(total, 0.0)
