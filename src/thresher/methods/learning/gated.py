"""v = w*m in training, w*1[|w| > t] in eval mode: the operator module of a gate whose threshold learns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from thresher.methods.learning.shells import LearnedShell
from thresher.operators import Groups, gate_values, hard_threshold
from thresher.operators.gate import LOGIT_LIMIT, TEMPERATURE_FLOOR
from thresher.operators.precision import widen
from thresher.targets import Target

_SHUT = 1e-12


class GateShell(LearnedShell):
    """The soft gate `m = sigmoid((w^2 - t^2)/T)` in training, the hard mask in eval mode, `w * mask` once frozen.

    temperature: buffer of shape (1,), T in squared weight units. At threshold 0 both forms are the identity.
    """

    temperature: Tensor

    def __init__(self, groups: Groups, target: Target, *, full_grad: bool, pruned_gradient: float) -> None:
        super().__init__(groups, target, hard_threshold)
        self.register_buffer("temperature", torch.ones_like(self.threshold))
        self.full_grad, self.pruned_gradient = full_grad, pruned_gradient
        self.soft = False  # True: the soft gate in eval mode too

    def _apply(self, fn: Any, recurse: bool = True) -> GateShell:
        exact = self.temperature
        super()._apply(fn, recurse)
        if not exact.is_meta:
            self.temperature = exact.to(self.temperature.device)
        return self

    def square(self, theta: Tensor, groups: Groups) -> Tensor:
        """tau = t^2; minus infinity at t = 0, so that the gate is exactly 1 for every weight, 0 included."""
        level = self.level(theta, groups)
        return torch.where(level > 0, level.square(), -torch.inf)

    def _thresholded(self, theta: Tensor, groups: Groups) -> Tensor:
        if not (self.training or self.soft):
            return super()._thresholded(theta, groups)
        square = self.square(theta, groups)
        if self.simple and not self.full_grad:
            with torch.no_grad():  # the same numbers as below, in place
                gate = widen(theta).square().sub_(square).div_(self.temperature.clamp(min=TEMPERATURE_FLOOR))
                gate = gate.clamp_(-LOGIT_LIMIT, LOGIT_LIMIT).sigmoid_()
        else:
            gate = gate_values(theta, square, self.temperature, full_gradient=self.full_grad, groups=groups)
        # A shut gate is 1e-35; its products with small weights and inputs are subnormal: CPUs slow down a hundredfold.
        gate, wide = nn.functional.threshold(gate, _SHUT, 0.0), widen(theta)
        weight = wide * gate
        if self.pruned_gradient:
            # The last factor is 0 in value and 1 in slope: what the gate holds back arrives in part nevertheless.
            weight = weight + self.pruned_gradient * (1 - gate) * (wide - wide.detach())
        return weight.to(theta.dtype)


@contextmanager
def soft_gates(model: nn.Module) -> Iterator[None]:
    """Inside the block, eval mode too uses the soft gates of LTP: what training sees, to be compared with what is kept.

    >>> from thresher.attach import attach
    >>> from thresher.operators import UNSTRUCTURED
    >>> from thresher.targets import select
    >>> layer = nn.Linear(1, 1, bias=False)
    >>> (target,) = select(layer).targets
    >>> _ = layer.weight.data.fill_(0.5)
    >>> shell = GateShell(UNSTRUCTURED, target, full_grad=False, pruned_gradient=0.0)
    >>> _ = shell.threshold.fill_(0.5)
    >>> attach(target, shell)
    >>> with soft_gates(layer.eval()):
    ...     layer.weight.item()
    0.25
    >>> layer.weight.item()
    0.0
    """
    shells = [module for module in model.modules() if isinstance(module, GateShell)]
    for shell in shells:
        shell.soft = True
    try:
        yield
    finally:
        for shell in shells:
            shell.soft = False
