"""w = theta * 1[|theta| > b*sigma], b learned under a loss on the sparsity erf(b/sqrt 2): adaptive sparsity loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from thresher.budget.steering import check_course
from thresher.config import check_positive, check_share
from thresher.contracts import Job
from thresher.errors import BudgetError, InputError
from thresher.methods.learning.descent import Momentum
from thresher.methods.learning.erf import ErfLaw
from thresher.methods.learning.law import Course, Scope, check_scope
from thresher.methods.learning.process import LearnedProcess

Loss = Literal["global", "layer", "hinge", "density"]
Weight = Literal["entries", "flops", "bytes"]


@dataclass(frozen=True, kw_only=True)
class Asl:
    """A hard threshold in units of each tensor's standard deviation, learned; gradient straight through.

    Args:
        loss: "global", gamma*(s - s*)^2 on the sparsity s of all tensors together; "layer", the mean of that over
            tensors, each at the same sparsity; "hinge", gamma*max(s* - s, 0); "density", gamma*(1 - s), the only one
            that does without a budget.
        weight: what the sparsity counts: "entries", "flops" or "bytes"; None: what the budget names, several limits
            together by how much each is exceeded.
        gamma: weight of the loss; raised where a run is too short for it to follow the budget.
        lr: learning rate of b, as a share of that of its weights. momentum: that of b.
        center: subtract each tensor's mean at the start and after each step, as published for training from scratch.
            A trained network would lose a constant that it needs; depthwise convolutions are left alone.
        end: share of the run at which the budget is in force. settle: share at which the support is frozen (1: never).
        initial: share of the budget in force from the first step (published: 0.6); from there a cubic curve leads on.
        plans: how often the sparsity, and each standard deviation, is measured over the whole run.
        pruned_gradient: factor on the gradient of pruned entries.
        scope: "layer", b in units of its tensor's deviation, as published for training from scratch; "global", of the
            network's, and the loss moves every b alike: without a pull of the task that is global magnitude.
        travel: how far the task can carry a b away from where it carries the others, over the whole run.
        p: power of the threshold, 3 for that of `Power`; None: the hard threshold, as published.

    Source: Adaptive Sparsity Loss (arXiv 2006.02768); the correction by measured sparsity is this library's.

    >>> Asl(loss="hinge").settle_at
    0.7

    Errors: InputError on unknown losses or weights, shares outside (0, 1], numbers that are not positive.
    """

    name: ClassVar[str] = "asl"
    loss: Loss = "global"
    weight: Weight | None = None
    gamma: float = 10.0
    lr: float = 0.01
    momentum: float = 0.9
    center: bool = False
    end: float = 0.5
    settle: float = 0.7
    initial: float = 0.0
    plans: int = 200
    pruned_gradient: float = 1.0
    scope: Scope = "layer"
    travel: float = 1.0
    p: float | None = None

    def __post_init__(self) -> None:
        if self.loss not in ("global", "layer", "hinge", "density"):
            raise InputError(f"loss={self.loss!r}", "'global', 'layer', 'hinge' or 'density'", "correct the loss")
        if self.weight not in (None, "entries", "flops", "bytes"):
            raise InputError(f"weight={self.weight!r}", "'entries', 'flops', 'bytes' or None", "correct the weight")
        check_scope(self.scope)
        if self.scope == "global" and self.loss == "layer":
            raise InputError("scope='global' with loss='layer'", "one of them", "loss='layer' cuts each tensor alone")
        check_positive("gamma", self.gamma)
        if not self.travel > 0:  # infinity is allowed
            raise InputError(f"travel={self.travel!r}", "above 0", "give the deviations that a threshold may travel")
        check_course(self.end, self.settle, self.plans, self.initial)
        for name in ("lr", "momentum", "pruned_gradient"):
            check_share(name, getattr(self, name))
        if self.p is not None and not self.p >= 1:
            raise InputError(f"p={self.p!r}", "at least 1, or None", "p=3 is that of Power")
        if self.momentum == 1:
            raise InputError("momentum=1", "below 1", "lower it")

    @property
    def settle_at(self) -> float:
        """Share of the run at which the support is fixed."""
        return self.settle

    def begin(self, job: Job) -> LearnedProcess:
        """Start on a model."""
        if job.planner is None and self.loss != "density":
            raise BudgetError(
                f"loss={self.loss!r} without a budget",
                "a budget, or loss='density'",
                'pass budget="sparsity=90%" to thresher.prune',
            )
        if job.planner is None and self.weight is not None:
            raise BudgetError(f"weight={self.weight!r} without a budget", "a budget", "leave weight out, or give one")
        weight = "sparsity" if self.weight == "entries" else self.weight
        course = Course(
            end=self.end,
            settle=self.settle,
            plans=self.plans,
            rate=self.lr,
            initial=self.initial,
            weight=weight,
            travel=self.travel,
        )
        law = ErfLaw(
            job.groups,
            job.targets,
            loss=self.loss,
            gamma=self.gamma,
            center=self.center,
            jump=self.initial > 0,
            pruned_gradient=self.pruned_gradient,
            together=self.scope == "global",
            p=math.inf if self.p is None else self.p,
        )
        return LearnedProcess(job, law, Momentum(self.momentum), course)
