"""sign(θ)·(|θ|^p − t^p)^(1/p): between the soft (p = 1) and the hard (p = ∞) threshold."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .groups import UNSTRUCTURED, Groups
from .precision import above, widen
from .through import straight_through


def power_threshold(
    theta: Tensor,
    threshold: Tensor,
    *,
    p: float = 3.0,
    pruned_gradient: float = 1.0,
    groups: Groups = UNSTRUCTURED,
) -> Tensor:
    """w = sign(θ)·(|θ|^p − t^p)^(1/p) where |θ| > t, else 0; ∂L/∂θ := G where kept, κ·G where pruned.

    Computed as θ·(1 − (1 − x)^p)^(1/p) with x = 1 − t/|θ|, from x alone: |θ|^p underflows for tiny weights, and
    1 − (t/|θ|)^p cancels near the threshold. The derivative of the map is unbounded at t⁺, so it is never used.

    Shapes: θ any; t `(1,)` or anything that broadcasts to θ; w as θ.
    Units: weight units; p ≥ 1 and κ are pure numbers. w has θ's dtype, computed in float32 or wider.
    Gradient: as in line 1; none to t. κ = `pruned_gradient`, 1 up to 95 % zeros and 0.5 above in the paper.
    Errors: none; t must be ≥ 0 and finite, `groups.fits(θ.shape)` must hold.
    Source: Feather (arXiv 2310.02448), thresholding operator and gradient scale.

    >>> w = power_threshold(torch.tensor([2.0, 0.5]), torch.tensor([1.0]), p=3.0)
    >>> round(w[0].item() ** 3, 5), w[1].item()  # 2³ − 1³
    (7.0, 0.0)
    """
    source = theta.detach()
    wide, magnitude = widen(source), groups.magnitude(source)
    cap = groups.cap(source, threshold.detach())
    kept = above(magnitude, cap)
    least = torch.finfo(magnitude.dtype).tiny
    value = wide * kept
    if p != math.inf:
        value = value.mul_(_factor((magnitude - cap).div_(magnitude.clamp(min=least)).clamp_(min=least), p))
    share = None if pruned_gradient == 1 else kept + pruned_gradient * (1 - kept)
    return straight_through(theta, value, share=share)


def _factor(x: Tensor, p: float) -> Tensor:
    """(1 − (1 − x)^p)^(1/p) for 0 < x ≤ 1, without cancellation where x is small; x is written over.

    >>> round(_factor(torch.tensor([0.5]), 3.0).item() ** 3, 5)  # 1 − 1/8
    0.875
    """
    whole = (x - 3).mul_(x).add_(3).mul_(x) if p == 3 else x.neg_().log1p_().mul_(p).expm1_().neg_()
    return whole.log_().div_(p).exp_()  # torch.pow takes five times as long
