"""w = sign(theta) * (|theta|^p - d^p)^(1/p), d the quantile that a cubic curve asks for: power-p thresholding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from thresher.config import check_positive
from thresher.contracts import Job
from thresher.errors import InputError
from thresher.methods.scheduled.quantile import Operator, QuantileProcess, check_window
from thresher.operators import power_threshold
from thresher.schedules import Cubic

# Above this sparsity the published gradient scale for pruned entries is 0.5, up to it 1.
_SCALED_ABOVE = 0.95 + 1e-6


@dataclass(frozen=True, kw_only=True)
class Power:
    """Power-p threshold with a scaled gradient for pruned entries; all may regrow.

    Args:
        p: 1 is the soft threshold, infinity the hard one.
        pruned_gradient: factor on the gradient of pruned entries; None: 1 up to 95 % zeros and 0.5 above.
        end: share of the run at which the cubic curve reaches the budget.
        settle: share of the run at which the support is frozen (1: entries may regrow to the last step).
        updates: how often the threshold is taken over the whole run; None: 2000 times, or 200 under a `bytes` budget,
            where each time costs an encoding of the masks.

    Source: Feather (arXiv 2310.02448).

    >>> Power(p=3)
    Power(p=3, pruned_gradient=None, end=0.5, settle=1.0, updates=None)

    Errors: InputError on p < 1, shares outside (0, 1], a negative gradient factor, settle before end.
    """

    name: ClassVar[str] = "power"
    p: float = 3.0
    pruned_gradient: float | None = None
    end: float = 0.5
    settle: float = 1.0
    updates: int | None = None

    def __post_init__(self) -> None:
        if not self.p >= 1:
            raise InputError(f"p={self.p!r}", "at least 1", "p=1 is the soft threshold, p=3 the published default")
        if self.pruned_gradient is not None and self.pruned_gradient != 0:
            check_positive("pruned_gradient", self.pruned_gradient)
        check_window(self.end, self.settle, self.updates)

    def begin(self, job: Job) -> QuantileProcess:
        """Start on a model."""
        return QuantileProcess(
            job, self._operator, curve=Cubic(), end=self.end, settle=self.settle, updates=self.updates
        )

    def _operator(self, sparsity: float) -> Operator:
        factor = self.pruned_gradient
        if factor is None:
            factor = 0.5 if sparsity > _SCALED_ABOVE else 1.0
        return partial(power_threshold, p=self.p, pruned_gradient=factor)
