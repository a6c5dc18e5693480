"""f_n = Σ_{k<n} η_k β^(k/N) / Σ_{k<N} η_k β^(k/N): the threshold follows the learning rates actually used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from thresher.errors import InputError

from .integrals import cosine_integral, decay_integral
from .schedule import Curve, check_share, ends, grid


@dataclass(frozen=True, kw_only=True)
class Coupled(Curve):
    """f_n = Σ_{k<n} η_k β^(k/N) / Σ_{k<N} η_k β^(k/N); without rates the cosine form with floor r = η_min/η_max.

    The cosine form is [r·D + (1 − r)·(D + C)/2]/(the same at 1) with D = ∫₀ˣ β^t dt, C = ∫₀ˣ β^t cos πt dt; for β = 1
    that is [r x + (1 − r)(x + sin πx/π)/2]/[r + (1 − r)/2].

    β = 1 (default) keeps the L1 penalty λ constant under any scheduler, warm-up and restarts included. β < 1 lets λ
    decay geometrically and sparsifies early under any scheduler.

    Shapes: rates (steps,) → table (steps + 1,), float64. Units: rates in any unit, only their ratios count; f is the
    fraction of the final threshold. Gradient: none.
    Errors: InputError unless 1e-100 ≤ β ≤ 1e100, 0 ≤ floor ≤ 1, and the rates are `steps` finite numbers ≥ 0 with a
    sum > 0. Source: derived from λ = (1 − μ)·Δd/η.

    >>> [round(f, 4) for f in Coupled().table(4, [0.1, 0.1, 0.01, 0.01]).tolist()]
    [0.0, 0.4545, 0.9091, 0.9545, 1.0]
    """

    name: ClassVar[str] = "coupled"
    beta: float = 1.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        check_share("Coupled", "beta", self.beta, 1e-100, 1e100)
        check_share("Coupled", "floor", self.floor)

    def curve(self, x: Tensor) -> Tensor:
        return self._integral(x) / self._integral(torch.ones((), dtype=torch.float64))

    def table(self, steps: int, rates: Sequence[float] | Tensor | None = None) -> Tensor:
        """f after 0 … steps steps of the given learning rates; the cosine form without them."""
        progress = grid(steps)
        if rates is None:
            return ends(self.curve(progress))
        used = torch.as_tensor(rates, dtype=torch.float64, device="cpu").detach()
        if used.shape != (steps,) or not bool((used >= 0).all()) or not math.isfinite(total := float(used.sum())):
            raise InputError(
                f"rates of shape {tuple(used.shape)} for steps={steps}",
                f"{steps} finite learning rates >= 0, one for each step",
                "pass one learning rate for each optimizer step, or none for a cosine",
            )
        if total <= 0:
            raise InputError(
                "rates that are all 0", "at least one learning rate > 0", "start pruning where training is"
            )
        weights = used / total * torch.exp(math.log(self.beta) * progress[:-1])
        sums = torch.cat([torch.zeros(1, dtype=torch.float64), weights.cumsum(0)])
        return ends(sums / sums[-1])

    def _integral(self, x: Tensor) -> Tensor:
        decay = decay_integral(x, self.beta)
        return self.floor * decay + (1 - self.floor) * (decay + cosine_integral(x, self.beta)) / 2
