"""f(x) ∝ ∫ β^t (1 + cos πt) dt: the L1 penalty decays geometrically under a cosine learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .integrals import cosine_integral, decay_integral
from .schedule import Curve, check_share


@dataclass(frozen=True, kw_only=True)
class Pgh(Curve):
    """f(x) = F(x)/F(1), F(x) = (β^x − 1)/L + (β^x (L cos πx + π sin πx) − L)/(L² + π²), L = ln β.

    β = λ_end/λ_start. β < 1 sparsifies early: β = 0.01 reaches 78 % of the final threshold in the first quarter, so
    the support settles early. β = 1 is S-LATS.

    Shapes: `table(steps)` is (steps + 1,), float64. Units: fraction of the final threshold. Gradient: none.
    Errors: InputError unless 1e-100 ≤ β ≤ 1e100. Source: PGH; the normalised closed form is derived.

    >>> round(Pgh(beta=0.01)(0.25), 10)
    0.7846956749
    """

    name: ClassVar[str] = "pgh"
    beta: float = 0.01

    def __post_init__(self) -> None:
        check_share("Pgh", "beta", self.beta, 1e-100, 1e100)

    def curve(self, x: Tensor) -> Tensor:
        return self._integral(x) / self._integral(torch.ones((), dtype=torch.float64))

    def _integral(self, x: Tensor) -> Tensor:
        return decay_integral(x, self.beta) + cosine_integral(x, self.beta)
