"""forward: a given value; backward: a stated rule instead of the derivative (straight-through)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Through(torch.autograd.Function):
    """The rule of `straight_through`; saves only what that rule reads."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        theta: Tensor,
        threshold: Tensor | None,
        value: Tensor,
        kept: Tensor | None,
        pruned_gradient: float,
        slope: Tensor | None,
    ) -> Tensor:
        return value.view_as(value)  # a fresh alias: a Function must not return its own input

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, threshold, _, kept, pruned_gradient, slope = inputs
        ctx.save_for_backward(kept, slope)
        ctx.pruned_gradient = pruned_gradient
        ctx.threshold_shape = None if threshold is None else threshold.shape
        ctx.threshold_dtype = None if threshold is None else threshold.dtype

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kept, slope = ctx.saved_tensors
        to_theta = gradient if kept is None else torch.where(kept, gradient, ctx.pruned_gradient * gradient)
        to_threshold = None
        if slope is not None:
            product = gradient.to(slope.dtype) * slope
            to_threshold = product.sum_to_size(ctx.threshold_shape).to(ctx.threshold_dtype)
        return to_theta, to_threshold, None, None, None, None


def straight_through(
    theta: Tensor,
    value: Tensor,
    *,
    kept: Tensor | None = None,
    pruned_gradient: float = 1.0,
    threshold: Tensor | None = None,
    slope: Tensor | None = None,
) -> Tensor:
    """w = value; ∂L/∂θ := G where kept, κ·G elsewhere; ∂L/∂d := Σ G·slope.

    A custom function and not `θ + (value − θ).detach()`: that sum rounds the value.

    Shapes: value and kept as θ; slope broadcasts to θ; threshold broadcasts to θ, its gradient is summed to its shape.
    Units: value in weight units; slope in weight units per threshold unit.
    Gradient: as in line 1; without `kept` every entry receives G; without `slope` the threshold receives nothing.
    Errors: none. The value comes back in θ's dtype.
    Source: choice, the shared form of the backward rules of LATS, ASL and power-p.

    >>> theta = torch.tensor([0.5, 0.0], requires_grad=True)
    >>> straight_through(theta, torch.tensor([0.3, 0.0])).sum().backward()
    >>> theta.grad.tolist()
    [1.0, 1.0]
    """
    result: Tensor = _Through.apply(theta, threshold, value.to(theta.dtype), kept, pruned_gradient, slope)  # type: ignore[no-untyped-call]
    return result
