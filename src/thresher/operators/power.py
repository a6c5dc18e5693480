"""sign(θ)·(|θ|^p − t^p)^(1/p): between the soft (p = 1) and the hard (p = ∞) threshold."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .groups import UNSTRUCTURED, Groups
from .precision import widen
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

    Computed as θ·(1 − (t/|θ|)^p)^(1/p) with 1 − r^p = −expm1(p·log1p(r − 1)): |θ|^p underflows for tiny weights, and
    1 − r^p cancels near the threshold. The derivative of the map is unbounded at t⁺, so it is never used.

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
    kept = magnitude > cap
    least = torch.finfo(magnitude.dtype).tiny
    below = ((cap - magnitude) / magnitude.clamp(min=least)).clamp(max=0)  # t/|θ| − 1; 0 where pruned, as is the factor
    factor = kept if p == math.inf else (-torch.expm1(p * torch.log1p(below))) ** (1 / p)
    value = wide * factor + 0.0  # not -0
    return straight_through(theta, value, kept=None if pruned_gradient == 1 else kept, pruned_gradient=pruned_gradient)
