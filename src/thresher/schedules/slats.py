"""f(x) = x + sin(πx)/π: the threshold follows the integral of a cosine learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .schedule import Curve


@dataclass(frozen=True, kw_only=True)
class SLats(Curve):
    """f(x) = x + sin(πx)/π.

    Under a cosine learning rate without warm-up the L1 penalty λ = (1 − μ)·Δd/η is then constant.

    Shapes: `table(steps)` is (steps + 1,), float64. Units: fraction of the final threshold. Gradient: none.
    Errors: InputError for steps < 1 or a NaN progress. Source: S-LATS, closed form.

    >>> round(SLats()(0.25), 10)
    0.475079079
    """

    name: ClassVar[str] = "slats"

    def curve(self, x: Tensor) -> Tensor:
        return x + torch.sin(math.pi * x) / math.pi
