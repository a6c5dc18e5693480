"""i-SpaSP on the hidden values themselves, for small problems and for scores that moments do not hold."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from thresher.errors import InputError
from thresher.recovery.ispasp import Recovery
from thresher.recovery.problem import check_size, top

Score = Literal["l2", "l1", "sum"]


def score_rows(values: Tensor, score: Score) -> Tensor:
    """One number per row: Σx² under the root (l2), Σ|x| (l1), or the signed Σx (sum), over samples.

    >>> [score_rows(torch.tensor([[3.0, -4.0]]), kind).item() for kind in ("l2", "l1", "sum")]
    [5.0, 7.0, -1.0]
    """
    if score == "l2":
        return torch.linalg.vector_norm(values, dim=1)  # type: ignore[no-any-return]
    if score == "l1":
        return values.abs().sum(1)
    if score == "sum":
        return values.sum(1)
    raise InputError(f"score={score!r}", "'l2', 'l1' or 'sum'", "correct the score")


def ispasp_samples(
    hidden: Tensor, weight: Tensor, size: int, *, iterations: int = 20, score: Score = "l2", hidden_score: Score = "l2"
) -> Recovery:
    """The iteration of `ispasp` with H itself: Y = W1ᵀV, Ω = top 2s rows of Y, S = top s rows of H in Ω ∪ S.

    Args:
        hidden: H, shape (units, samples). weight: W1, shape (out, units).
        score, hidden_score: row scores of Y and of H. The signed sum is that of the published code; it cancels where
            Y or H have both signs.

    With l2 scores the outcome is that of `ispasp` on `hidden @ hidden.T`.
    """
    hidden, weight = hidden.detach().to(torch.float64), weight.detach().to(torch.float64)
    size = check_size(size, len(hidden))
    target = weight @ hidden
    energy = float(target.square().sum()) / 2
    if size == len(hidden):
        return Recovery(support=torch.arange(size), loss=0.0, losses=(0.0,), energy=energy)
    worth = score_rows(hidden, hidden_score)
    live = hidden.ne(0).any(1)
    barred = ~live if int(live.sum()) >= size else torch.zeros_like(live)
    support = torch.empty(0, dtype=torch.int64, device=hidden.device)
    residual, best, best_loss = target, support, float("inf")
    losses: list[float] = []
    seen: set[tuple[int, ...]] = set()
    for _ in range(iterations):
        scores = score_rows(weight.T @ residual, score).masked_fill(barred, -torch.inf)
        merged = torch.zeros_like(live)
        merged[top(scores, min(2 * size, int((~barred).sum())))] = True
        merged[support] = True
        support = top(worth.masked_fill(~merged, -torch.inf), size)
        residual = target - weight[:, support] @ hidden[support]
        losses.append(float(residual.square().sum()) / 2)
        if losses[-1] < best_loss:
            best, best_loss = support, losses[-1]
        key = tuple(support.tolist())
        if key in seen:
            break
        seen.add(key)
    return Recovery(support=best, loss=best_loss, losses=tuple(losses), energy=energy)
