"""forward: a given value; backward: a stated rule instead of the derivative (straight-through)."""

from __future__ import annotations

from torch import Tensor


def straight_through(
    theta: Tensor,
    value: Tensor,
    *,
    share: Tensor | None = None,
    threshold: Tensor | None = None,
    slope: Tensor | None = None,
) -> Tensor:
    """w = value; ∂L/∂θ := G·share; ∂L/∂d := Σ G·slope.

    As value + (θ − sg(θ)): the bracket is 0, so nothing is rounded, as it would be in θ + sg(value − θ), and -0 becomes
    0. Ordinary operations, so that compilers, exporters and torch.func see through them.

    Shapes: value and share as θ; slope broadcasts to θ; threshold broadcasts to θ, its gradient is summed to its shape.
    Units: value in weight units; share a pure number; slope in weight units per threshold unit.
    Gradient: as in line 1; without `share` every entry receives G; without `slope` the threshold receives nothing.
    Errors: none. The value comes back in θ's dtype; where θ is not finite, neither is w.
    Source: choice, the shared form of the backward rules of LATS, ASL and power-p.

    >>> import torch
    >>> theta = torch.tensor([0.5, 0.0], requires_grad=True)
    >>> straight_through(theta, torch.tensor([0.3, 0.0])).sum().backward()
    >>> theta.grad.tolist()
    [1.0, 1.0]
    """
    still = theta - theta.detach()
    result = value.detach().to(theta.dtype) + (still if share is None else (still * share).to(theta.dtype))
    if threshold is not None and slope is not None:
        result = result + (slope * (threshold - threshold.detach())).to(theta.dtype)
    return result
