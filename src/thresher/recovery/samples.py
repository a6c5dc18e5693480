"""i-SpaSP on the hidden values themselves, for small problems and for scores that moments do not hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thresher.errors import InputError
from thresher.recovery.ispasp import Recovery
from thresher.recovery.problem import check_size, top

Score = Literal["l2", "l1", "sum"]
SCORES = ("l2", "l1", "sum")


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampled:
    """One reader with samples: hidden H, (units · block, samples), weight W1, (out, units · block)."""

    hidden: Tensor
    weight: Tensor
    block: int = 1

    def __post_init__(self) -> None:
        for name in ("hidden", "weight"):
            object.__setattr__(self, name, getattr(self, name).detach().to(torch.float64))

    @property
    def units(self) -> int:
        """Number of hidden units."""
        return self.hidden.shape[0] // self.block


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


def _unit_scores(parts: Sequence[Sampled], values: Sequence[Tensor], score: Score) -> Tensor:
    """`score_rows` over all rows of a unit, in all readers."""
    total = torch.zeros(parts[0].units, dtype=torch.float64, device=values[0].device)
    for part, rows in zip(parts, values, strict=True):
        found = score_rows(rows, score)
        total += (found.square() if score == "l2" else found).reshape(-1, part.block).sum(1)
    return total.sqrt() if score == "l2" else total


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
    parts = (Sampled(hidden=hidden, weight=weight),)
    return ispasp_sampled(parts, size, iterations=iterations, score=score, hidden_score=hidden_score)


def ispasp_sampled(
    parts: Sequence[Sampled],
    size: int,
    *,
    iterations: int = 20,
    score: Score = "l2",
    hidden_score: Score = "l2",
    loss_of: Callable[[Tensor], float] | None = None,
) -> Recovery:
    """`ispasp_samples` for units of several rows and several readers, whose scores and losses add up.

    loss_of: ½‖V‖² of a support, when it is known from more samples than these.
    """
    first = parts[0]
    units, size = first.units, check_size(size, first.units)
    targets = [part.weight @ part.hidden for part in parts]
    energy = sum(float(target.square().sum()) for target in targets) / 2
    if loss_of is not None:
        energy = loss_of(torch.empty(0, dtype=torch.int64))
    if size == units:
        return Recovery(support=torch.arange(size), loss=0.0, losses=(0.0,), energy=energy)
    worth = _unit_scores(parts, [part.hidden for part in parts], hidden_score)
    live = torch.stack([part.hidden.ne(0).any(1).reshape(-1, part.block).any(1) for part in parts]).any(0)
    barred = ~live if int(live.sum()) >= size else torch.zeros_like(live)
    support = torch.empty(0, dtype=torch.int64, device=live.device)
    residuals, best, best_loss = targets, support, float("inf")
    losses: list[float] = []
    seen: set[tuple[int, ...]] = set()
    for _ in range(iterations):
        pulls = [part.weight.T @ residual for part, residual in zip(parts, residuals, strict=True)]
        scores = _unit_scores(parts, pulls, score).masked_fill(barred, -torch.inf)
        merged = torch.zeros_like(live)
        merged[top(scores, min(2 * size, int((~barred).sum())))] = True
        merged[support] = True
        support = top(worth.masked_fill(~merged, -torch.inf), size)
        residuals = [target - _of(part, support) for part, target in zip(parts, targets, strict=True)]
        own = sum(float(residual.square().sum()) for residual in residuals) / 2
        losses.append(own if loss_of is None else loss_of(support))
        if losses[-1] < best_loss:
            best, best_loss = support, losses[-1]
        key = tuple(support.tolist())
        if key in seen:
            break
        seen.add(key)
    return Recovery(support=best, loss=best_loss, losses=tuple(losses), energy=energy)


def _of(part: Sampled, support: Tensor) -> Tensor:
    """W1[:, S] H[S]."""
    steps = torch.arange(part.block, device=support.device)
    rows = (support[:, None] * part.block + steps).flatten()
    return part.weight[:, rows] @ part.hidden[rows]
