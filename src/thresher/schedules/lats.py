"""f = Σ of a per-epoch cosine learning rate: S-LATS in stairs of constant slope."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from thresher.errors import InputError

from .schedule import Curve


@dataclass(frozen=True, kw_only=True)
class LatsCurve(Curve):
    """f = [1 + 2e + sin(π(e − ½)/E)/sin(π/2E)]/(2(E + 1)) + (b/B)·(1 + cos(πe/E))/(E + 1).

    Epoch e of E, batch b of B: the learning rate is constant within an epoch, so f is a straight line there. A table
    whose steps are not divisible by E reads the same line at the fraction n·E/steps.

    Shapes: `table(steps)` is (steps + 1,), float64. Units: fraction of the final threshold. Gradient: none.
    Errors: InputError unless `epochs` is an integer ≥ 1. Source: LATS; 100 epochs as in the paper.

    >>> round(LatsCurve(epochs=100)(0.25), 10)
    0.4718069632
    """

    name: ClassVar[str] = "lats"
    epochs: int = 100

    def __post_init__(self) -> None:
        if isinstance(self.epochs, bool) or not isinstance(self.epochs, int) or self.epochs < 1:
            raise InputError(f"LatsCurve(epochs={self.epochs!r})", "an integer >= 1", "pass the epochs of the run")

    def curve(self, x: Tensor) -> Tensor:
        total = self.epochs
        position = x * total
        epoch = position.floor().clamp(max=total - 1)
        wave = torch.sin(math.pi * (epoch - 0.5) / total) / math.sin(math.pi / (2 * total))
        base = (1 + 2 * epoch + wave) / (2 * (total + 1))
        return base + (position - epoch) * (1 + torch.cos(math.pi * epoch / total)) / (total + 1)
