"""G = -lambda * sign(w) on the support, |G| <= lambda off it: how far a weight is from an L1 optimum."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from thresher.config import check_positive
from thresher.errors import InputError


@dataclass(frozen=True, kw_only=True)
class OptimalityGap:
    """Violations of the two conditions, in units of the gradient.

    on_max, on_mean: |G + lambda * sign(w)| where w is not zero. off_max, off_mean: max(|G| - lambda, 0) where it is.
    max, mean: over all entries. A part without entries has violation 0.
    """

    on_max: float
    on_mean: float
    off_max: float
    off_mean: float
    max: float
    mean: float


def optimality_gap(weight: Tensor, gradient: Tensor, l1: float) -> OptimalityGap:
    """How far `weight` is from a stationary point of loss + lambda * sum |w|.

    Args:
        weight: w as the forward pass uses it, with exact zeros. gradient: G = dL/dw at w, dense, of the loss alone.
        l1: lambda.

    Shapes: weight and gradient alike. Units: gradient and lambda in loss per weight unit. Gradient: none.
    The condition on the support knows signs: G = +lambda at a positive weight is a violation of 2 lambda.
    Errors: InputError when shapes differ, when lambda is not a finite number above 0, or when something is NaN.
    Source: subgradient condition of the lasso; the fixed points of a scheduled soft threshold are its solutions.

    >>> import torch
    >>> gap = optimality_gap(torch.tensor([2.0, -1.0, 0.0]), torch.tensor([-0.5, 0.25, 0.75]), l1=0.5)
    >>> gap.on_max, gap.on_mean, gap.off_max
    (0.25, 0.125, 0.25)
    """
    check_positive("l1", l1)
    if weight.shape != gradient.shape:
        raise InputError(
            f"a weight of shape {tuple(weight.shape)} and a gradient of shape {tuple(gradient.shape)}",
            "the gradient of this weight",
            "pass the gradient of the loss with respect to the effective weight",
        )
    w, slope = weight.detach().double(), gradient.detach().double()
    alive = w != 0
    violation = (slope + l1 * w.sign()).abs().where(alive, (slope.abs() - l1).clamp(min=0))
    if bool(violation.isnan().any()) or bool(w.isnan().any()):
        raise InputError("NaN in the weight or its gradient", "finite numbers", "find where the loss became NaN")
    on, off = violation[alive], violation[~alive]
    return OptimalityGap(
        on_max=_max(on),
        on_mean=_mean(on),
        off_max=_max(off),
        off_mean=_mean(off),
        max=_max(violation),
        mean=_mean(violation),
    )


def _max(values: Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else 0.0
