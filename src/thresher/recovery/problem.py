"""What sparse recovery works on: second moments of hidden units, and the weights that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from thresher.errors import InputError, NumericsError

# Entries of W1ᵀ W1 that are held at once.
STRIP = 1 << 22


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """U = W1 H of one reader of the hidden units, with H known only through C = H Hᵀ.

    Args:
        moments: C, shape (units * block, units * block), symmetric.
        weight: W1, shape (out, units * block).
        block: rows of one unit, which lie together: 1 for neurons, k * k for the taps of a channel.

    Both are kept in float64. Errors: InputError for shapes that do not fit, NumericsError for NaN or infinity.
    """

    moments: Tensor
    weight: Tensor
    block: int = 1

    def __post_init__(self) -> None:
        rows = self.moments.shape[0] if self.moments.ndim else 0
        if self.moments.shape != (rows, rows) or self.weight.ndim != 2 or self.weight.shape[1] != rows or not rows:
            raise InputError(
                f"moments of shape {tuple(self.moments.shape)} and a weight of shape {tuple(self.weight.shape)}",
                "moments (rows, rows) and weight (out, rows), with at least one row",
                "give W1 as (outputs, hidden rows)",
            )
        if self.block < 1 or rows % self.block:
            raise InputError(f"block={self.block} for {rows} rows", "a divisor of the rows", "correct the block")
        for name in ("moments", "weight"):
            tensor = getattr(self, name).detach().to(torch.float64)
            if not torch.isfinite(tensor.sum()):  # of infinities of both signs the sum is NaN
                raise NumericsError(f"{name} with NaN or infinity", "finite numbers", "look at the inputs and weights")
            object.__setattr__(self, name, tensor)

    @property
    def units(self) -> int:
        """Number of hidden units."""
        return self.moments.shape[0] // self.block

    @cached_property
    def gram(self) -> Tensor:
        """G = W1ᵀ W1, shape (rows, rows)."""
        return self.weight.T @ self.weight

    @cached_property
    def factor(self) -> Tensor:
        """A matrix F of at most `rows` rows with Fᵀ F = G: all that scores and residuals need of W1."""
        if self.weight.shape[0] <= self.weight.shape[1]:
            return self.weight
        return torch.linalg.qr(self.weight, mode="r").R  # type: ignore[no-any-return]

    @cached_property
    def across(self) -> Tensor:
        """W1 C, shape (out, rows): what the outputs and the hidden rows have in common."""
        return self.weight @ self.moments

    @cached_property
    def shown(self) -> Tensor:
        """F C, shape (rows of F, rows): `across` as far as scores need it."""
        return self.across if self.factor is self.weight else self.factor @ self.moments

    @cached_property
    def energy(self) -> float:
        """½‖U‖² of this reader."""
        return max(float((self.across * self.weight).sum()) / 2, 0.0)

    @cached_property
    def outer(self) -> Tensor:
        """F C Fᵀ: U Uᵀ seen through the factor."""
        return self.shown @ self.factor.T

    def spread(self, rest: Tensor) -> Tensor:
        """F_R C_RR F_Rᵀ: V Vᵀ seen through the factor, with `rest` (boolean over the units) the units that are gone."""
        if 2 * int(rest.sum()) <= self.units:
            rows = self.rows(rest)
            left = self.factor[:, rows]
            return left @ self.moments[rows][:, rows] @ left.T
        # Few are kept: what they give is taken from the whole.
        rows = self.rows(~rest)
        left, common = self.factor[:, rows], self.shown[:, rows]
        both = common @ left.T
        return self.outer - both - both.T + left @ self.moments[rows][:, rows] @ left.T

    def rows(self, units: Tensor) -> Tensor:
        """The rows of `units` (int64 indices, or a boolean mask over the units)."""
        if units.dtype == torch.bool:
            return units.repeat_interleave(self.block).nonzero().flatten()
        return (units[:, None] * self.block + torch.arange(self.block, device=units.device)).flatten()


@dataclass(frozen=True, eq=False)
class Problem:
    """Choose units S so that V = U - W1[:, S] H[S] is small, summed over all readers of the units.

    >>> pair = Problem.of(torch.eye(2), torch.tensor([[3.0, 4.0]]))
    >>> pair.energy, pair.loss(torch.tensor([1]))
    (12.5, 4.5)
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not self.parts or len({part.units for part in self.parts}) != 1:
            raise InputError(
                f"parts with {[part.units for part in self.parts]} units", "one number of units", "match the parts"
            )

    @classmethod
    def of(cls, moments: Tensor, weight: Tensor, *, block: int = 1) -> Problem:
        """The problem of a single reader: C (rows, rows) and W1 (out, rows)."""
        return cls((Part(moments=moments, weight=weight, block=block),))

    @classmethod
    def from_gram(cls, moments: Tensor, gram: Tensor, *, block: int = 1) -> Problem:
        """The same from G = W1ᵀ W1 instead of W1: every score and residual is equal, a refit is not defined."""
        values, vectors = torch.linalg.eigh(gram.detach().to(torch.float64))
        return cls.of(moments, (vectors * values.clamp_min(0).sqrt()).T, block=block)

    @property
    def units(self) -> int:
        """Number of hidden units."""
        return self.parts[0].units

    @cached_property
    def quadratic(self) -> Tensor:
        """Q, (units, units): the sum of G * C over the rows of two units, so that ½‖V‖² = ½ Σ_{i,j not in S} Q_ij."""
        total = torch.zeros(self.units, self.units, dtype=torch.float64, device=self.parts[0].moments.device)
        for part in self.parts:
            # G in strips: whole, it would need as much memory as C.
            step = max(STRIP // part.moments.shape[0] // part.block, 1)
            for start in range(0, part.units, step):
                rows = slice(start * part.block, (start + step) * part.block)
                product = (part.weight[:, rows].T @ part.weight).mul_(part.moments[rows])
                total[start : start + step] += product.reshape(-1, part.block, part.units, part.block).sum((1, 3))
        return total

    @cached_property
    def sizes(self) -> Tensor:
        """l2 size of each unit's rows of H: sqrt of its diagonal of C."""
        squares = [part.moments.diagonal().reshape(part.units, part.block).sum(1) for part in self.parts]
        return torch.stack(squares).sum(0).clamp_min(0).sqrt()

    @cached_property
    def energy(self) -> float:
        """½‖U‖²: the loss when nothing is kept."""
        return max(float(self.quadratic.sum()) / 2, 0.0)

    def loss(self, support: Tensor | Sequence[int]) -> float:
        """½‖V‖² with exactly the units of `support` kept, weights unchanged."""
        rest = self.rest(support).to(torch.float64)
        return max(float(rest @ self.quadratic @ rest) / 2, 0.0)

    def rest(self, support: Tensor | Sequence[int]) -> Tensor:
        """Boolean mask of the units that are not in `support`."""
        mask = torch.ones(self.units, dtype=torch.bool, device=self.quadratic.device)
        mask[torch.as_tensor(support, dtype=torch.int64, device=mask.device)] = False
        return mask

    def importance(self, support: Tensor | Sequence[int]) -> Tensor:
        """‖Y_i‖ for Y = W1ᵀ V: how strongly each unit would act on the residual that `support` leaves.

        Exact without samples: ‖Y_i‖² = [G_{:,R} C_{R,R} G_{R,:}]_ii with R the units not in `support`.
        """
        rest = self.rest(support)
        total = torch.zeros(self.units, dtype=torch.float64, device=rest.device)
        for part in self.parts:
            total += ((part.spread(rest) @ part.factor) * part.factor).sum(0).reshape(part.units, part.block).sum(1)
        return total.clamp_min(0).sqrt()


def top(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest scores, in rising order; of equal scores the lowest index wins.

    >>> top(torch.tensor([1.0, 2.0, 2.0, 2.0]), 2).tolist()
    [1, 2]
    """
    order = scores.sort(descending=True, stable=True).indices
    return order[:count].sort().values


def check_size(size: int, units: int) -> int:
    """`size` capped at `units`. Errors: InputError below 1."""
    if isinstance(size, bool) or size != int(size) or size < 1:
        raise InputError(f"size={size!r} of {units} units", "at least one unit to keep", "raise the size")
    return min(int(size), units)
