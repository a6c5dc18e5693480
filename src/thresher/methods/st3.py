"""w = c_o * S_d(theta), d a quantile, c_o the factor that gives each output channel its size back: ST-3."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from thresher.contracts import Job
from thresher.errors import InputError
from thresher.methods.scheduled.quantile import Operator, QuantileProcess, check_window
from thresher.operators import rescaled_soft_threshold, soft_threshold
from thresher.schedules import Cubic

Scope = Literal["global", "sigma"]


@dataclass(frozen=True, kw_only=True)
class St3:
    """Straight-through soft threshold with magnitude re-scaling; all entries may regrow.

    Args:
        scope: "global", one threshold for all tensors (best accuracy); "sigma", d_l proportional to
            1/sqrt(sum of the shape) (fewer multiply-adds at the same zeros).
        rescale: the factor per output channel; without it this is a plain soft threshold on a cubic quantile.
        end: share of the run at which the cubic curve reaches the budget.
        settle: share of the run at which the support is frozen (1: entries may regrow to the last step).
        updates: how often the threshold is taken over the whole run; None: 2000 times, or 200 under a `bytes` budget,
            where each time costs an encoding of the masks.

    Source: ST-3 (arXiv 2212.01076).

    >>> St3(scope="sigma").rescale
    True

    Errors: InputError on an unknown scope, shares outside (0, 1], settle before end.
    """

    name: ClassVar[str] = "st3"
    scope: Scope = "global"
    rescale: bool = True
    end: float = 0.5
    settle: float = 1.0
    updates: int | None = None

    def __post_init__(self) -> None:
        if self.scope not in ("global", "sigma"):
            raise InputError(f"scope={self.scope!r}", "'global' or 'sigma'", "correct the scope")
        check_window(self.end, self.settle, self.updates)

    def begin(self, job: Job) -> QuantileProcess:
        """Start on a model."""
        ratios = None
        if self.scope == "sigma":
            sizes = [1 / math.sqrt(sum(target.shape)) for target in job.targets]
            ratios = [size / max(sizes) for size in sizes]
        return QuantileProcess(
            job,
            self._operator,
            curve=Cubic(),
            end=self.end,
            settle=self.settle,
            updates=self.updates,
            ratios=ratios,
        )

    def _operator(self, sparsity: float) -> Operator:
        return rescaled_soft_threshold if self.rescale else soft_threshold
