"""w = sign(theta)*max(|theta| - sigmoid(s), 0), s learned by its true gradient: soft threshold reparameterization."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from thresher.budget.steering import check_course, multiplier
from thresher.config import check_share
from thresher.contracts import Job
from thresher.errors import InputError
from thresher.methods.learning.descent import Momentum
from thresher.methods.learning.law import Course
from thresher.methods.learning.process import LearnedProcess
from thresher.methods.learning.shells import LearnedShell, inner, largest
from thresher.operators import UNSTRUCTURED, Groups, soft_threshold_autograd
from thresher.operators.precision import widen
from thresher.targets import Target

_FAR = -30.0  # sigmoid(-30) = 1e-13: below every weight that matters, and its slope is not 0 yet


@dataclass(frozen=True, kw_only=True)
class Str:
    """A soft threshold alpha = sigmoid(s) per tensor; s learns, and weight decay or a budget drives it.

    Args:
        s_init: where every s starts without a budget. decay: weight decay on s without a budget, its only drive at
            first; the published knob for sparsity.
        lr: learning rate of s, as a share of that of its weights; None: 1 without a budget, as published, and 0.1 with
            one, where the task has to order the tensors and not to prune them. momentum: that of s.
        end: share of the run at which the budget is in force. settle: share at which the support is frozen (1: never).
        plans: how often the sparsity is measured over the whole run.

    With a budget every s starts where a first few weights fall, and is moved from there by the task and by a common
    pull: equal moves of s are equal factors on the thresholds.

    Source: Soft Threshold Weight Reparameterization (arXiv 2002.03231).

    >>> Str(s_init=-12800.0, decay=3.7517578e-5).settle_at
    0.7

    Errors: InputError on shares outside (0, 1], a decay that is negative, an s_init that is not finite.
    """

    name: ClassVar[str] = "str"
    s_init: float = -3200.0
    decay: float = 2.2517578e-5
    lr: float | None = None
    momentum: float = 0.9
    end: float = 0.5
    settle: float = 0.7
    plans: int = 200

    def __post_init__(self) -> None:
        if not math.isfinite(self.s_init):
            raise InputError(f"s_init={self.s_init!r}", "a finite number", "correct it")
        if not 0 <= self.decay < math.inf or not 0 <= (self.lr or 0.0) < math.inf:
            raise InputError(f"decay={self.decay!r}, lr={self.lr!r}", "finite numbers, not negative", "correct them")
        check_share("momentum", self.momentum)
        if self.momentum == 1:
            raise InputError("momentum=1", "below 1", "lower it")
        check_course(self.end, self.settle, self.plans)

    @property
    def settle_at(self) -> float:
        """Share of the run at which the support is fixed."""
        return self.settle

    def begin(self, job: Job) -> LearnedProcess:
        """Start on a model."""
        start, decay = (_FAR, None) if job.planner else (self.s_init, self.decay)
        law = LogLaw(job.groups, start=start, decay=decay)
        rate = (0.1 if job.planner else 1.0) if self.lr is None else self.lr
        course = Course(end=self.end, settle=self.settle, plans=self.plans, rate=rate)
        return LearnedProcess(job, law, Momentum(self.momentum), course)


def shrink(theta: Tensor, threshold: Tensor, *, groups: Groups) -> Tensor:
    """`soft_threshold_autograd`; for single weights as theta - clip(theta, -d, d), the same in fewer passes.

    >>> from thresher.operators import UNSTRUCTURED
    >>> theta = torch.tensor([0.5, -0.25, 0.125], requires_grad=True)
    >>> w = shrink(theta, torch.tensor([0.25]), groups=UNSTRUCTURED)
    >>> w.sum().backward(); w.tolist(), theta.grad.tolist()
    ([0.25, 0.0, 0.0], [1.0, 0.0, 0.0])
    """
    if groups != UNSTRUCTURED:
        return soft_threshold_autograd(theta, threshold, groups=groups)
    wide = widen(theta)
    return (wide - torch.clamp(wide, -threshold, threshold)).to(theta.dtype)


class LogLaw:
    """x = s, thresholds top*sigmoid(s); the members of `thresher.methods.learning.law.Law`.

    top is 1, or twice the largest weight of a network that has weights above 1, so that every threshold is in reach.
    Args: start: of every s. decay: None with a budget.
    """

    def __init__(self, groups: Groups, *, start: float, decay: float | None) -> None:
        self._groups, self.start, self._decay = groups, start, decay
        self.low = _FAR if decay is None else -math.inf
        self.shares = torch.zeros(0)
        self._strength = torch.zeros(1)
        self._top = torch.ones(1)

    def shell(self, target: Target) -> LearnedShell:
        """The operator module of one tensor."""
        return LearnedShell(self._groups, target, shrink)

    def begin(self, thetas: Sequence[Tensor]) -> None:
        """The largest weight."""
        self._strength = self._strength.to(self.shares)
        top = torch.stack([largest(theta, self._groups).to(self.shares) for theta in thetas]).max().reshape(1)
        self._top = torch.where(top < 1, 1, 2 * top)

    def refresh(self, thetas: Sequence[Tensor], shells: Sequence[LearnedShell], *, due: bool) -> None:
        """Nothing is measured."""

    def thresholds(self, x: Tensor) -> Tensor:
        """alpha = top*sigmoid(s)."""
        return self._top * x.sigmoid()

    def level(self, magnitude: Tensor, number: int | None = None) -> Tensor:
        """s = log(p/(1 - p)), p = |theta|/top, within +-30."""
        share = (magnitude / self._top.to(magnitude)).clamp(max=1.0)
        return torch.logit(share, eps=1e-13).clamp(_FAR, -_FAR)

    def score(self, x: Tensor, magnitude: Tensor, number: int) -> Tensor:
        """|theta|/alpha, in units of the largest alpha."""
        thresholds = x.sigmoid()
        return (magnitude * (thresholds.max() / thresholds[number]).to(magnitude.device)).float()

    def shift(self, cut: float, x: Tensor, thetas: Sequence[Tensor]) -> Tensor:
        """The common move of s."""
        return self.level(x.new_full((1,), cut)) - x.max()

    def place(self, x: Tensor, shift: Tensor) -> Tensor:
        """At the first measurement all of the way at once: from where no weight falls to where the first ones do."""
        return x + shift

    def task(
        self, x: Tensor, thetas: Sequence[Tensor], gradients: Sequence[Tensor], shells: Sequence[LearnedShell]
    ) -> Tensor:
        """dL/ds = -top*g'(s) * sum over kept entries of dL/dtheta * sign(theta)."""
        sums = []
        for theta, gradient, shell in zip(thetas, gradients, shells, strict=True):
            if shell.simple:  # pruned entries receive no gradient, so they need no mask
                sums.append(torch.where(shell.threshold > 0, inner(theta.sign(), gradient), 0).sum().to(x))
                continue
            level = shell.level(theta, self._groups)
            magnitude, cap = self._groups.magnitude(theta), self._groups.cap(theta, level)
            # At threshold 0 the forward pass does not know s yet; where a filter or pattern has its own level, never.
            kept = (magnitude > cap) & (cap == shell.threshold.to(cap.dtype)) & (cap > 0)
            unit = widen(theta) / torch.where(magnitude > 0, magnitude, 1)  # sign(theta), or theta/rms of its group
            sums.append(torch.where(kept, widen(gradient) * unit, 0).sum().to(x))
        share = x.sigmoid()
        return -self._top * share * (1 - share) * torch.stack(sums)

    def aim(self, x: Tensor, shift: Tensor, drift: Tensor, rate: float, gain: float, thetas: Sequence[Tensor]) -> None:
        """The same pull on every s."""
        self._strength = multiplier(shift, drift, self.shares, torch.full_like(x, gain), rate).reshape(1)

    def metric(self, x: Tensor) -> Tensor:
        """1: the pull is the same for every s as it is."""
        return torch.ones_like(x)

    def penalty(self, x: Tensor, thetas: Sequence[Tensor]) -> Tensor:
        """-lambda * sum of s with a budget, decay/2 * sum of s^2 without."""
        if self._decay is None:
            return -(self._strength * x).sum()
        return self._decay / 2 * x.square().sum()

    def pull(self, x: Tensor, thetas: Sequence[Tensor]) -> Tensor:
        """Minus the derivative of `penalty`."""
        return self._strength.expand_as(x) if self._decay is None else -self._decay * x

    def diagnostics(self, x: Tensor, thetas: Sequence[Tensor]) -> dict[str, float]:
        """Mean s, and the common pull."""
        return {"s": float(x.mean()), "pull": float(self._strength)}

    def state_dict(self) -> dict[str, Any]:
        """The common pull, the reach of the thresholds."""
        return {"strength": self._strength.clone(), "top": self._top.clone()}

    def load_state_dict(self, state: Mapping[str, Any], like: Tensor) -> None:
        """Resume."""
        self._strength, self._top = state["strength"].to(like).clone(), state["top"].to(like).clone()
