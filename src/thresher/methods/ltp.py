"""v = w * sigmoid((w^2 - tau)/T), tau learned under a penalty on the number of weights: learned threshold pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from thresher.budget.steering import check_course
from thresher.config import check_positive, check_share
from thresher.contracts import Job
from thresher.errors import BudgetError, InputError
from thresher.methods.learning.descent import Normalised
from thresher.methods.learning.gate import GateLaw
from thresher.methods.learning.law import Course, Scope, check_scope
from thresher.methods.learning.process import LearnedProcess

Weight = Literal["entries", "flops", "bytes"]


@dataclass(frozen=True, kw_only=True)
class Ltp:
    """A soft gate on squared weights in training, a hard mask in eval mode; the threshold learns, in units of sigma^2.

    Args:
        l0: weight lambda of the soft count lambda/N * sum(m), in place of a budget.
        temperature: T0; T = T0 * Var(|w|) per tensor.
        count_temperature: least temperature of the soft count, in units of sigma^2. For a small T the count's pull
            does not depend on it; a wider one takes its noise away and keeps it alive where no weight is near tau.
            0: that of the gate, as published.
        travel: how far the task alone can move a threshold over the run, in units of sigma^2.
        full_grad: keep the derivative of the gate in the weight's gradient, which the method drops.
        pruned_gradient: share of the gradient that reaches a weight through a closed gate (published: 0).
        scope: "layer", sigma^2 of each tensor; "global", of the network, and under a budget the count moves every
            threshold alike: without a pull of the task that is global magnitude.
        weight: what the count counts: "entries", "flops" or "bytes"; None: what the budget names.
        end: share of the run at which the budget is in force. settle: share at which the support is frozen (1: never).
        plans: how often the sparsity is measured over the whole run.

    Source: Learned Threshold Pruning (arXiv 2003.00075); patented, see the docs page.

    >>> Ltp(temperature=1e-2).settle_at
    0.7

    Errors: InputError on shares outside (0, 1], negative numbers, full_grad together with pruned_gradient.
    """

    name: ClassVar[str] = "ltp"
    l0: float | None = None
    temperature: float = 1e-3
    count_temperature: float = 0.1
    travel: float = 1.0
    full_grad: bool = False
    pruned_gradient: float = 0.0
    scope: Scope = "layer"
    weight: Weight | None = None
    end: float = 0.5
    settle: float = 0.7
    plans: int = 200

    def __post_init__(self) -> None:
        if self.l0 is not None:
            check_positive("l0", self.l0)
        check_positive("temperature", self.temperature)
        for name in ("count_temperature", "travel"):
            if getattr(self, name) != 0:
                check_positive(name, getattr(self, name))
        check_share("pruned_gradient", self.pruned_gradient)
        if self.full_grad and self.pruned_gradient:
            raise InputError(
                f"full_grad=True with pruned_gradient={self.pruned_gradient}", "one of them", "drop the other"
            )
        if self.weight not in (None, "entries", "flops", "bytes"):
            raise InputError(f"weight={self.weight!r}", "'entries', 'flops', 'bytes' or None", "correct the weight")
        check_scope(self.scope)
        check_course(self.end, self.settle, self.plans)

    @property
    def settle_at(self) -> float:
        """Share of the run at which the support is fixed."""
        return self.settle

    def begin(self, job: Job) -> LearnedProcess:
        """Start on a model."""
        if (job.planner is None) == (self.l0 is None):
            raise BudgetError(
                f"l0={self.l0} {'without' if job.planner is None else 'and'} a budget",
                "one of the two",
                'pass budget="sparsity=90%" to thresher.prune, or thresher.Ltp(l0=...)',
            )
        if job.planner is None and self.weight is not None:
            raise BudgetError(f"weight={self.weight!r} without a budget", "a budget", "leave weight out, or give one")
        law = GateLaw(
            job.groups,
            l0=self.l0,
            temperature=self.temperature,
            count_temperature=self.count_temperature,
            full_grad=self.full_grad,
            pruned_gradient=self.pruned_gradient,
            together=self.scope == "global",
        )
        peak = max(job.forecast, default=0.0) or 1.0
        course = Course(
            end=self.end,
            settle=self.settle,
            plans=self.plans,
            rate=self.travel / (peak * max(job.steps, 1)),
            gain=1 / max(job.steps, 1),
            weight="sparsity" if self.weight == "entries" else self.weight,
        )
        return LearnedProcess(job, law, Normalised(), course)
