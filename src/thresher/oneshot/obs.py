"""w ← w − (w_j / [H⁻¹]_jj) [H⁻¹]_j: what the remaining weights do for one that leaves, column by column."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thresher.errors import NumericsError


def inverse_factor(moments: Tensor, damping: float) -> Tensor:
    """Upper triangular U with UᵀU = (H + λI)⁻¹, λ = damping · mean(diag H).

    Row j of U, over U_jj, is row 0 of the inverse of H[j:, j:] over its corner: everything that a sweep from left to
    right needs, for all columns at once.

    Args:
        moments: H = X Xᵀ, (groups, columns, columns). Columns of a dead input (H_jj = 0) count as H_jj = 1.

    Errors: NumericsError when H + λI is not positive definite.
    Source: Frantar and Alistarh 2023 (arXiv 2301.00774), section 3; here by one Cholesky factor and its inverse.

    >>> inverse_factor(torch.tensor([[[4.0, 0.0], [0.0, 0.25]]]), 0.0).tolist()
    [[[0.5, 0.0], [0.0, 2.0]]]
    """
    diagonal = moments.diagonal(dim1=-2, dim2=-1)
    extra = (damping * diagonal.mean(-1, keepdim=True)).expand_as(diagonal)
    extra = torch.where(diagonal == 0, 1.0, extra)
    damped = moments + torch.diag_embed(extra)
    # H = R Rᵀ with R upper triangular: the factor of H read backwards. Then H⁻¹ = UᵀU with U = R⁻¹.
    lower, info = torch.linalg.cholesky_ex(damped.flip(-2, -1))
    if int(info.max()) > 0:
        raise NumericsError(
            f"second moments that are not positive definite with damping={damping}",
            "inputs with some variation in every direction, or damping",
            "raise damping, or calibrate on more samples",
        )
    identity = torch.eye(moments.shape[-1], dtype=moments.dtype, device=moments.device).expand_as(moments)
    inverse: Tensor = torch.linalg.solve_triangular(lower.flip(-2, -1), identity, upper=True)
    return inverse


def sweep(
    weight: Tensor, factor: Tensor, choose: Callable[[int, Tensor], Tensor], *, block: int, every: int
) -> tuple[Tensor, Tensor]:
    """W with the columns gone over from left to right: what leaves becomes 0, and columns to the right make up for it.

    Args:
        weight: (groups, rows, columns), not changed. factor: U of `inverse_factor`.
        choose: asked at every column that is a multiple of `every` (a divisor of `block`): (column, w² / U_jj² of the
            entries from there to the next such column, the error that each would cause) -> True for what leaves.
        block: columns whose updates are applied one by one; those further right get them block by block, which changes
            the order of the sums and nothing else.

    Returns: the new weight, and True where an entry left. Source: Frantar and Alistarh 2023, algorithm 1.
    """
    weight, left = weight.clone(), torch.zeros(weight.shape, dtype=torch.bool, device=weight.device)
    columns = weight.shape[-1]
    size = factor.diagonal(dim1=-2, dim2=-1)[:, None, :]
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        inside, gone = weight[..., start:stop], left[..., start:stop]
        upper = factor[:, None, start:stop, start:stop]
        errors = torch.zeros_like(inside)
        for j in range(stop - start):
            if j % every == 0:
                end = min(j + every, stop - start)
                costs = (inside[..., j:end] / size[..., start + j : start + end]).square()
                gone[..., j:end] = choose(start + j, costs)
            errors[..., j] = torch.where(gone[..., j], inside[..., j] / upper[..., j, j], 0.0)
            inside[..., j:] -= errors[..., j, None] * upper[..., j, j:]
            inside[..., j].masked_fill_(gone[..., j], 0.0)
        weight[..., stop:] -= errors @ factor[:, start:stop, stop:]
    return weight, left
