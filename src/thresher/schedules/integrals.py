"""∫ β^t dt and ∫ β^t cos πt dt: the two integrals that S-LATS, PGH and the lr-coupled curve are made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def decay_integral(x: Tensor, beta: float) -> Tensor:
    """∫₀ˣ β^t dt = (β^x − 1)/ln β, and x where β = 1.

    expm1 keeps full precision as β → 1, so only β = 1 itself needs a case of its own.

    Shapes: x any, kept. Units: fractions of the run. Gradient: none used. Errors: none; β > 0.
    Source: the geometric penalty of PGH.

    >>> decay_integral(torch.tensor(1.0), 1.0).item()
    1.0
    """
    rate = math.log(beta)
    return x.clone() if rate == 0 else torch.expm1(rate * x) / rate


def cosine_integral(x: Tensor, beta: float) -> Tensor:
    """∫₀ˣ β^t cos πt dt = (β^x (L cos πx + π sin πx) − L)/(L² + π²), L = ln β.

    Shapes: x any, kept. Units: fractions of the run. Gradient: none used. Errors: none; β > 0.
    Source: the geometric penalty of PGH under a cosine learning rate.

    >>> round(cosine_integral(torch.tensor(0.5), 1.0).item(), 6)  # 1/π
    0.31831
    """
    rate = math.log(beta)
    wave = rate * torch.cos(math.pi * x) + math.pi * torch.sin(math.pi * x)
    return (torch.exp(rate * x) * wave - rate) / (rate**2 + math.pi**2)
