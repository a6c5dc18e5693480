"""What a method with learned thresholds has to say for itself, and when and how fast its thresholds move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from thresher.errors import InputError
from thresher.methods.learning.shells import LearnedShell
from thresher.targets import Target

Scope = Literal["layer", "global"]


@dataclass(frozen=True, kw_only=True)
class Course:
    """When and how fast: shares of the run, measurements, limits that share the pull, learning rate of the thresholds.

    rate: effective learning rate of a threshold per effective learning rate of its weight. gain: step of x per unit of
    the penalty's pull; None: that of the task's pull at the highest learning rate of the run. travel: how far the task
    can carry x away from where it carries the others.
    """

    end: float
    settle: float
    plans: int
    rate: float
    initial: float = 0.0
    weight: str | None = None
    gain: float | None = None
    travel: float = math.inf


def check_scope(scope: str) -> None:
    """Refuse what is neither "layer" nor "global"."""
    if scope not in ("layer", "global"):
        raise InputError(f"scope={scope!r}", "'layer' or 'global'", "correct the scope")


def even(slope: Tensor) -> Tensor:
    """Mean slope over slope, 0 where there is none: times a pull that goes with the slope, the same for every tensor.

    >>> even(torch.tensor([1.0, 3.0, 0.0])).tolist()
    [2.0, 0.6666666865348816, 0.0]
    """
    there = slope > 0
    mean = slope.sum() / there.sum().clamp(min=1)
    return torch.where(there, mean / torch.where(there, slope, 1), 0)


class Law(Protocol):
    """What differs between methods whose thresholds learn.

    x is the learned variable, one per tensor, shape (L,), float64 (float32 on devices without); everything a law is
    asked for is a tensor of that shape unless said otherwise. `shares`: how the pull divides among the tensors.
    """

    shares: Tensor
    start: float
    low: float

    def shell(self, target: Target) -> LearnedShell:
        """The operator module of one tensor."""

    def begin(self, thetas: Sequence[Tensor]) -> None:
        """Measure what stays fixed from the start of pruning on."""

    def refresh(self, thetas: Sequence[Tensor], shells: Sequence[LearnedShell], *, due: bool) -> None:
        """Measure what follows the weights: after each step; `due`: at steps that also measure the budget."""

    def thresholds(self, x: Tensor) -> Tensor:
        """Thresholds in weight units."""

    def level(self, magnitude: Tensor, number: int | None = None) -> Tensor:
        """The x at which entries of this magnitude fall; of tensor `number`, or of every tensor, one magnitude each."""

    def score(self, x: Tensor, magnitude: Tensor, number: int) -> Tensor:
        """How strongly each entry of a tensor stays, not negative, comparable between tensors."""

    def shift(self, cut: float, x: Tensor, thetas: Sequence[Tensor]) -> Tensor:
        """How far x has to move for exactly the entries below score `cut` to fall: shape (1,) or (L,)."""

    def place(self, x: Tensor, shift: Tensor) -> Tensor:
        """x at the first measurement, for laws that cannot start from their lower end."""

    def task(
        self, x: Tensor, thetas: Sequence[Tensor], gradients: Sequence[Tensor], shells: Sequence[LearnedShell]
    ) -> Tensor:
        """dL/dx, from the weights' gradients."""

    def aim(self, x: Tensor, shift: Tensor, drift: Tensor, rate: float, gain: float, thetas: Sequence[Tensor]) -> None:
        """Set the penalty so that `gain * pull` covers `rate * shift` per step, and makes up for `drift`."""

    def pull(self, x: Tensor, thetas: Sequence[Tensor]) -> Tensor:
        """-d penalty / dx in closed form."""

    def metric(self, x: Tensor) -> Tensor:
        """Factors on the penalty's pull under a budget: 1, or those of `even`."""

    def penalty(self, x: Tensor, thetas: Sequence[Tensor]) -> Tensor:
        """The penalty, differentiable in x, a scalar."""

    def diagnostics(self, x: Tensor, thetas: Sequence[Tensor]) -> dict[str, float]:
        """Numbers to log."""

    def state_dict(self) -> dict[str, Any]:
        """Copies of what `begin`, `refresh` and `aim` set."""

    def load_state_dict(self, state: Mapping[str, Any], like: Tensor) -> None:
        """Resume, on the device of `like`."""
