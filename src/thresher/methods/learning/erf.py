"""x = b, threshold b*sigma, sparsity erf(b/sqrt 2): the Gaussian model that moves the thresholds of ASL."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from thresher.budget.ranking import rank_within
from thresher.budget.steering import multiplier
from thresher.methods.learning.law import even
from thresher.methods.learning.shells import LearnedShell, inner
from thresher.operators import Groups, hard_threshold, power_threshold
from thresher.operators.precision import widen
from thresher.targets import Target

_HIGH = 5.0  # erf(5/sqrt 2) = 0.99999943: covers every budget, and beyond it the slope of erf is lost
_TINY = torch.finfo(torch.float32).tiny  # stands in for the deviation of a constant tensor
_SLOPE = math.sqrt(2 / math.pi)


def sparsity_of(b: Tensor) -> Tensor:
    """s = erf(b/sqrt 2), the share of a Gaussian tensor within b standard deviations; ds/db = sqrt(2/pi)*exp(-b^2/2).

    >>> round(sparsity_of(torch.tensor(1.0)).item(), 6)
    0.682689
    """
    return torch.erf(b / math.sqrt(2))


def deviation(theta: Tensor) -> Tensor:
    """The unbiased standard deviation of all entries, 0 for a single one; from two sums, since every step asks for it.

    >>> round(deviation(torch.tensor([1.0, -2.0, 0.5, -0.25, 3.0, -2.25])).item(), 4)
    1.9685
    """
    count = theta.numel()
    if count < 2:
        return theta.new_zeros(())
    mean = widen(theta).mean()
    return ((inner(theta, theta) - count * mean.square()).clamp(min=0) / (count - 1)).sqrt()


def b_of(sparsity: Tensor) -> Tensor:
    """b = sqrt(2)*erfinv(s), the inverse of `sparsity_of`.

    >>> round(b_of(torch.tensor(0.95, dtype=torch.float64)).item(), 6)
    1.959964
    """
    return math.sqrt(2) * torch.erfinv(sparsity)


class ErfLaw:
    """Thresholds b*sigma under a loss on erf(b/sqrt 2); the members of `thresher.methods.learning.law.Law`.

    Args: the fields of `thresher.Asl`; jump: whether the first share of the budget is put in force at once; together:
        whether b is in units of the network's deviation, and the loss moves every b alike (scope "global").
    """

    start = low = 0.0

    def __init__(
        self,
        groups: Groups,
        targets: Sequence[Target],
        *,
        loss: str,
        gamma: float,
        center: bool,
        jump: bool,
        pruned_gradient: float,
        p: float = math.inf,
        together: bool = False,
    ) -> None:
        self._groups, self._targets, self._loss, self._together = groups, targets, loss, together
        self._least, self._center, self._jump, self._factor = gamma, center, jump, pruned_gradient
        self._p = p
        self.shares = torch.zeros(0)
        self._scale = self._unit = torch.zeros(0)
        self._ratio = torch.ones(1)
        self._gamma = torch.full((1,), gamma)
        self._goal = torch.zeros(1)

    def shell(self, target: Target) -> LearnedShell:
        """The operator module of one tensor."""
        plain = self._p == math.inf and self._factor == 1
        operator = hard_threshold if plain else partial(power_threshold, p=self._p, pruned_gradient=self._factor)
        return LearnedShell(self._groups, target, operator)

    def begin(self, thetas: Sequence[Tensor]) -> None:
        """Standard deviations."""
        self._measure(torch.stack([deviation(theta).to(self.shares) for theta in thetas]))
        self._gamma, self._goal = self._gamma.to(self._scale), self._goal.to(self._scale)

    def _measure(self, scale: Tensor) -> None:
        self._scale = self._unit = scale
        self._ratio = torch.ones_like(scale)
        if self._together:
            sizes = scale.new_tensor([float(target.numel) for target in self._targets])
            self._unit = ((sizes * scale.square()).sum() / sizes.sum()).sqrt().expand_as(scale)
            self._ratio = self._unit / scale.clamp(min=_TINY)

    def refresh(self, thetas: Sequence[Tensor], shells: Sequence[LearnedShell], *, due: bool) -> None:
        """Center if asked; standard deviations, as often as the budget is measured."""
        if self._center:
            for theta, target in zip(thetas, self._targets, strict=True):
                if not target.depthwise and target.shape[0] > 1:
                    theta.sub_(widen(theta).mean().to(theta.dtype))
        if due:
            self.begin(thetas)

    def thresholds(self, x: Tensor) -> Tensor:
        """b*sigma, sigma that of the tensor or of the network."""
        return x * self._unit

    def level(self, magnitude: Tensor, number: int | None = None) -> Tensor:
        """|theta|/sigma, for whole tensors at most 5 of their own deviations."""
        unit = self._unit if number is None else self._unit[number].to(magnitude.device)
        found = magnitude / unit.clamp(min=_TINY)
        return found.clamp(max=1e6) if number is not None else self._within(found)  # a constant tensor leaves last

    def _within(self, x: Tensor) -> Tensor:
        """x where erf has a slope."""
        return torch.minimum(x.clamp(min=0), _HIGH / self._ratio)

    def score(self, x: Tensor, magnitude: Tensor, number: int) -> Tensor:
        """|theta|/sigma - b, lifted above 0; the rank within the tensor for loss "layer"."""
        if self._loss == "layer":
            return rank_within(magnitude)
        return (self.level(magnitude, number) - (x[number] - x.max()).to(magnitude.device)).float()

    def shift(self, cut: float, x: Tensor, thetas: Sequence[Tensor]) -> Tensor:
        """The common move of b, or that of each tensor for loss "layer"."""
        if self._loss != "layer":
            return cut - x.max().reshape(1)
        found = []
        for theta in thetas:
            count = int(cut * theta.numel())
            magnitude = self._groups.magnitude(theta).flatten()
            found.append(magnitude.kthvalue(count).values if count else magnitude.new_zeros(()))
        return self.level(torch.stack([one.to(x) for one in found])) - x

    def place(self, x: Tensor, shift: Tensor) -> Tensor:
        """All of the way at once if a share of the budget shall hold from the start."""
        return self._within(x + shift) if self._jump else x

    def task(
        self, x: Tensor, thetas: Sequence[Tensor], gradients: Sequence[Tensor], shells: Sequence[LearnedShell]
    ) -> Tensor:
        """dL/db = -(1/b)*sum of G*theta over pruned entries; 0 where b is 0 or at its limit."""
        if self._factor == 0:  # nothing arrives at pruned entries, so there is nothing to read
            return torch.zeros_like(x)
        pulls = []
        for theta, gradient, shell in zip(thetas, gradients, shells, strict=True):
            if shell.simple:
                pruned = (shell.threshold - theta.abs()).ge_(0)  # as numbers: see `operators.precision.above`
                pulls.append(inner(pruned.mul_(theta), gradient).to(x))
                continue
            magnitude, level = self._groups.magnitude(theta), shell.level(theta, self._groups)
            pruned = magnitude <= self._groups.cap(theta, level)
            if level.shape != shell.threshold.shape:  # a filter at its own level does not follow b
                pruned &= level == shell.threshold
            pulls.append(torch.where(pruned, widen(gradient) * widen(theta), 0).sum().to(x))
        free = (x > 0) & (x * self._ratio < _HIGH)
        return torch.where(free, -torch.stack(pulls) / (self._factor * torch.where(free, x, 1)), 0)

    def aim(self, x: Tensor, shift: Tensor, drift: Tensor, rate: float, gain: float, thetas: Sequence[Tensor]) -> None:
        """The goal of the loss is the model's sparsity at the b that was measured to be right: no model error stays."""
        aimed, gain_of = self._within(x + shift), gain * self.metric(x)
        if self._loss in ("global", "layer"):
            slope = self._slope(x)
            # Moving b by gain * metric * 2*gamma*gap*slope moves the model by `response` * 2*gamma*gap.
            response = (gain_of * slope.square() * self._mean(x)).clamp(min=1e-30)
            response = response.sum().reshape(1) if self._loss == "global" else response
            self._gamma = torch.minimum((rate / (2 * response)).clamp(min=self._least), 1 / (2 * response))
            lost = slope * drift if self._loss == "layer" else (slope * drift).sum()
            self._goal = self._model(aimed) + lost / (2 * self._gamma * response)
        else:
            slope = self._slope(x)
            self._gamma = multiplier(shift, drift, slope, gain_of * slope, rate).reshape(1)
            if self._loss == "hinge":
                self._gamma = self._gamma.clamp(min=0)
                self._goal = self._model(x) + 1e-3

    def _model(self, x: Tensor) -> Tensor:
        """Sparsity by the model: of all tensors together, of each for loss "layer"."""
        each = sparsity_of(x * self._ratio)
        return each if self._loss == "layer" else (self.shares * each).sum().reshape(1)

    def _slope(self, x: Tensor) -> Tensor:
        """d model / db_l."""
        slope = _SLOPE * torch.exp(-(x * self._ratio).square() / 2) * self._ratio
        return slope if self._loss == "layer" else self.shares * slope

    def metric(self, x: Tensor) -> Tensor:
        """1, or mean slope over slope, under which the loss moves every b alike."""
        return even(self._slope(x)) if self._together else torch.ones_like(x)

    def _mean(self, x: Tensor) -> float:
        return 1 / len(x) if self._loss == "layer" else 1.0

    def penalty(self, x: Tensor, thetas: Sequence[Tensor]) -> Tensor:
        """The loss that the configuration names."""
        short = self._goal - self._model(x)
        if self._loss in ("global", "layer"):
            return (self._gamma * short.square()).sum() * self._mean(x)
        return (self._gamma * (short.relu() if self._loss == "hinge" else 1 - self._model(x))).sum()

    def pull(self, x: Tensor, thetas: Sequence[Tensor]) -> Tensor:
        """Minus the derivative of `penalty`."""
        short = self._goal - self._model(x)
        if self._loss in ("global", "layer"):
            return 2 * self._gamma * short * self._slope(x) * self._mean(x)
        return self._gamma * self._slope(x) * (short > 0 if self._loss == "hinge" else 1)

    def diagnostics(self, x: Tensor, thetas: Sequence[Tensor]) -> dict[str, float]:
        """gamma, and the sparsity by the erf model."""
        return {
            "gamma": float(self._gamma.mean()),
            "model_sparsity": float((self.shares * sparsity_of(x * self._ratio)).sum()),
        }

    def state_dict(self) -> dict[str, Any]:
        """Standard deviations, gamma, goal."""
        return {"scale": self._scale.clone(), "gamma": self._gamma.clone(), "goal": self._goal.clone()}

    def load_state_dict(self, state: Mapping[str, Any], like: Tensor) -> None:
        """Resume."""
        scale, self._gamma, self._goal = (state[name].to(like).clone() for name in ("scale", "gamma", "goal"))
        self._measure(scale)
