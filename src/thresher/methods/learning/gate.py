"""x = u, threshold^2 = u*sigma^2, penalty lambda * soft count: what moves the thresholds of LTP."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thresher.budget.steering import multiplier
from thresher.methods.learning.gated import GateShell
from thresher.methods.learning.law import even
from thresher.methods.learning.shells import LearnedShell, inner, put
from thresher.operators import Groups, gate_values
from thresher.operators.gate import LOGIT_LIMIT, TEMPERATURE_FLOOR
from thresher.operators.precision import widen
from thresher.targets import Target

_TINY = torch.finfo(torch.float32).tiny  # stands in for the mean square of a zero tensor
_BAND = 4.0  # |w^2 - tau| < 4T: outside, m(1 - m) is under 0.018


class GateLaw:
    """Thresholds sigma*sqrt(u) under a soft count of weights; the members of `thresher.methods.learning.law.Law`.

    sigma^2 is the tensor's mean square when pruning starts, frozen from there.
    Args: the fields of `thresher.Ltp`; together: whether sigma^2 is that of the network, and a steered penalty moves
        every u alike (scope "global").
    """

    start = low = 0.0

    def __init__(
        self,
        groups: Groups,
        *,
        l0: float | None,
        temperature: float,
        count_temperature: float,
        full_grad: bool,
        pruned_gradient: float,
        together: bool = False,
    ) -> None:
        self._groups, self._full, self._factor, self._together = groups, full_grad, pruned_gradient, together
        self._sharpness, self._width, self._steered = temperature, count_temperature, l0 is None
        self.shares = torch.zeros(0)
        self._scale = torch.zeros(0)
        self._temperature = torch.ones(0)
        self._strength = torch.full((1,), l0 or 0.0)
        self._tangent: tuple[Tensor, Tensor, Tensor] | None = None
        self._seen = self._expected = 0.0

    def shell(self, target: Target) -> GateShell:
        """The operator module of one tensor."""
        return GateShell(self._groups, target, full_grad=self._full, pruned_gradient=self._factor)

    def begin(self, thetas: Sequence[Tensor]) -> None:
        """sigma^2."""
        self._scale = torch.stack([widen(theta).square().mean().to(self.shares) for theta in thetas])
        if self._together:
            sizes = self._scale.new_tensor([float(theta.numel()) for theta in thetas])
            self._scale = ((sizes * self._scale).sum() / sizes.sum()).expand_as(self._scale).clone()
        self._temperature, self._strength = torch.ones_like(self._scale), self._strength.to(self._scale)

    def refresh(self, thetas: Sequence[Tensor], shells: Sequence[LearnedShell], *, due: bool) -> None:
        """T = T0*Var(|w|)."""
        if not due:
            return
        spread = [self._groups.magnitude(theta).var(unbiased=False).to(self._scale) for theta in thetas]
        self._temperature = (self._sharpness * torch.stack(spread)).clamp(min=TEMPERATURE_FLOOR)
        put(self._temperature, [shell.temperature for shell in shells if isinstance(shell, GateShell)])

    def thresholds(self, x: Tensor) -> Tensor:
        """sigma*sqrt(u)."""
        return (x * self._scale).sqrt()

    def level(self, magnitude: Tensor, number: int | None = None) -> Tensor:
        """w^2/sigma^2."""
        scale = self._scale if number is None else self._scale[number].to(magnitude.device)
        return (magnitude.square() / scale.clamp(min=_TINY)).clamp(max=1e6)

    def score(self, x: Tensor, magnitude: Tensor, number: int) -> Tensor:
        """w^2/sigma^2 - u, lifted above 0."""
        return (self.level(magnitude, number) - (x[number] - x.max()).to(magnitude.device)).float()

    def shift(self, cut: float, x: Tensor, thetas: Sequence[Tensor]) -> Tensor:
        """The common move of u."""
        return cut - x.max().reshape(1)

    def place(self, x: Tensor, shift: Tensor) -> Tensor:
        """u starts at 0, where the gate is open."""
        return x

    def task(
        self, x: Tensor, thetas: Sequence[Tensor], gradients: Sequence[Tensor], shells: Sequence[LearnedShell]
    ) -> Tensor:
        """dL/dtau = -sum of G*w*m*(1 - m)/T, where the weight's own gradient is G*m; times sigma^2."""
        pulls = []
        for theta, gradient, shell in zip(thetas, gradients, shells, strict=True):
            assert isinstance(shell, GateShell)
            if shell.simple and not self._full and not self._factor:
                # The gradient holds one factor m already: what is missing of w*m(1 - m)/T is w*(1 - m)/T.
                heat = shell.temperature.clamp(min=TEMPERATURE_FLOOR)
                shut = widen(theta).square().neg_().add_(shell.threshold.square()).div_(heat).sigmoid_()
                at_work = shell.threshold > 0
                pulls.append((torch.where(at_work, inner(shut.mul_(theta), gradient), 0) / heat).sum().to(x))
                continue
            square, inverse = shell.square(theta, self._groups), 1 / shell.temperature.clamp(min=TEMPERATURE_FLOOR)
            gate = gate_values(theta, square, shell.temperature, groups=self._groups)
            slope = gate * (1 - gate) * inverse
            through = gate + self._factor * (1 - gate)
            if self._full:
                # The gradient that arrived holds the derivative of the gate too, the same factor for all of a group.
                through = through + 2 * self._groups.magnitude(theta).square() * slope
            moved = torch.where(self._moves(theta, square, gate), slope * widen(theta) / through, 0)
            if square.shape != shell.threshold.shape:  # a filter at its own level does not follow u
                moved = torch.where(square == shell.threshold.square(), moved, 0)
            pulls.append((widen(gradient) * moved).sum().to(x))
        return -torch.stack(pulls) * self._scale

    def _moves(self, theta: Tensor, square: Tensor, gate: Tensor) -> Tensor:
        """Entries whose gate follows tau: those that no pattern holds, within the range where sigmoid has a slope."""
        limit = self._groups.cap(theta, square.new_full((1,), torch.inf)).square()
        edge = torch.sigmoid(torch.full((), LOGIT_LIMIT, dtype=gate.dtype, device=gate.device))
        return (square < limit) & (gate < edge) & (gate > 1 - edge)

    def _gates(self, x: Tensor, thetas: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Per tensor (tau, temperature of the count, gates): wider than in the forward pass, so never idle."""
        found = []
        for number, theta in enumerate(thetas):
            wide = widen(theta)
            square = (x[number] * self._scale[number]).reshape(1).to(wide)
            heat = torch.maximum(self._temperature[number], self._width * self._scale[number]).to(wide)
            found.append((square, heat, gate_values(wide, square, heat, groups=self._groups)))
        return found

    def _slope(self, x: Tensor, thetas: Sequence[Tensor]) -> Tensor:
        """-d count / du_l."""
        slopes = []
        for theta, (square, heat, gate) in zip(thetas, self._gates(x, thetas), strict=True):
            limit = self._groups.cap(theta, square.new_full((1,), torch.inf)).square()
            slopes.append((torch.where(square < limit, gate * (1 - gate), 0).mean() / heat).to(x))
        return self.shares * self._scale * torch.stack(slopes)

    def aim(self, x: Tensor, shift: Tensor, drift: Tensor, rate: float, gain: float, thetas: Sequence[Tensor]) -> None:
        """The lambda under which the soft count follows the budget."""
        slope = self._slope(x, thetas)
        self._tangent = (x.clone(), self._count(x, thetas), slope)
        self._strength = multiplier(shift, drift, slope, gain * self.metric(x) * slope, rate).reshape(1)
        if float(x.max()) > 0:
            self._watch(x, slope, thetas)

    def _watch(self, x: Tensor, slope: Tensor, thetas: Sequence[Tensor]) -> None:
        """Say so when training has pushed every weight out of the band in which the task sees the threshold."""
        sizes = x.new_tensor([float(theta.numel()) for theta in thetas])
        shares = torch.where(self.shares > 0, self.shares, 1)
        expected = (2 * _BAND * self._temperature / self._scale.clamp(min=1e-30) * sizes * slope / shares).sum()
        was_empty = self._expected > 20 and self._seen < 0.1 * self._expected
        self._expected = 0.95 * self._expected + float(expected)
        self._seen = 0.95 * self._seen + self._band(x, thetas) * float(sizes.sum())
        if not was_empty and self._expected > 20 and self._seen < 0.1 * self._expected:
            warnings.warn(
                "the transition band of the gates has emptied before the budget was reached; from here on the penalty "
                "alone moves the thresholds (raise temperature, or lower the learning rate)",
                stacklevel=2,
            )

    def _band(self, x: Tensor, thetas: Sequence[Tensor]) -> float:
        """Share of the weights within 4T of their threshold."""
        inside = torch.zeros_like(x[0])
        for number, theta in enumerate(thetas):
            square = (x[number] * self._scale[number]).to(theta.device)
            away = (self._groups.magnitude(theta).square() - square).abs()
            inside = inside + (away < _BAND * self._temperature[number].to(theta.device)).sum().to(inside)
        return float(inside) / sum(theta.numel() for theta in thetas)

    def penalty(self, x: Tensor, thetas: Sequence[Tensor]) -> Tensor:
        """lambda/N * sum of m, weighted as the budget counts; under a budget its tangent at the last measurement."""
        if not self._steered:
            return self._strength.sum() * self._count(x, thetas)
        if self._tangent is None:
            return 0 * x.sum()
        origin, count, slope = self._tangent
        return self._strength.sum() * (count - (slope * (x - origin)).sum())

    def _count(self, x: Tensor, thetas: Sequence[Tensor]) -> Tensor:
        means = [gate.mean().to(x) for _, _, gate in self._gates(x, thetas)]
        return (self.shares * torch.stack(means)).sum()

    def pull(self, x: Tensor, thetas: Sequence[Tensor]) -> Tensor:
        """Minus the derivative of `penalty`."""
        if not self._steered:
            return self._strength * self._slope(x, thetas)
        return torch.zeros_like(x) if self._tangent is None else self._strength * self._tangent[2]

    def metric(self, x: Tensor) -> Tensor:
        """1, or mean slope over slope at the last measurement, under which the penalty moves every u alike."""
        if not self._together or self._tangent is None:
            return torch.ones_like(x)
        return even(self._tangent[2])

    def diagnostics(self, x: Tensor, thetas: Sequence[Tensor]) -> dict[str, float]:
        """lambda, and the share of weights whose gate is neither open nor shut."""
        return {"l0": float(self._strength), "band_fraction": self._band(x, thetas)}

    def state_dict(self) -> dict[str, Any]:
        """sigma^2, T, lambda, and how full the band has been."""
        tensors = {"scale": self._scale, "temperature": self._temperature, "strength": self._strength}
        return {
            **{name: value.clone() for name, value in tensors.items()},
            "tangent": None if self._tangent is None else [value.clone() for value in self._tangent],
            "seen": self._seen,
            "expected": self._expected,
        }

    def load_state_dict(self, state: Mapping[str, Any], like: Tensor) -> None:
        """Resume."""
        self._scale, self._temperature, self._strength = (
            state[name].to(like).clone() for name in ("scale", "temperature", "strength")
        )
        tangent = state["tangent"]
        self._tangent = None if tangent is None else tuple(value.to(like).clone() for value in tangent)  # type: ignore[assignment]
        self._seen, self._expected = float(state["seen"]), float(state["expected"])
