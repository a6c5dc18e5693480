"""H_d(θ) = θ·1[|θ| > d], straight-through, with the threshold gradient of ASL."""

from __future__ import annotations

import torch
from torch import Tensor

from .groups import UNSTRUCTURED, Groups
from .precision import widen
from .through import straight_through


def hard_threshold(theta: Tensor, threshold: Tensor, *, groups: Groups = UNSTRUCTURED) -> Tensor:
    """w = θ·1[|θ| > d]; ∂L/∂θ := G; ∂L/∂d := −(1/d)·Σ_{pruned} G·θ, and 0 where d = 0.

    The threshold gradient is that of `d·STE(θ/d)`. With d = b·σ it gives ASL's ∂L/∂b = −(1/b)·Σ_{pruned} G·θ; the
    ε = 1e-6 that the released code adds to d is left out, because d = 0 has its own case here.

    Shapes: θ any; d `(1,)` or anything that broadcasts to θ; w as θ; ∂L/∂d as d.
    Units: weight units. Strictly larger magnitudes survive; survivors keep their bits.
    Gradient: as in line 1; G reaches every entry, pruned or not.
    Errors: none; d must be ≥ 0 and finite, `groups.fits(θ.shape)` must hold.
    Source: Retsinas et al., Weight Pruning via Adaptive Sparsity Loss (arXiv 2006.02768); the threshold gradient is
    derived from the released code.

    >>> d = torch.tensor([1.0], requires_grad=True)
    >>> w = hard_threshold(torch.tensor([2.0, -0.5, 1.0]), d)
    >>> w.sum().backward(); w.tolist(), d.grad.tolist()
    ([2.0, 0.0, 0.0], [-0.5])
    """
    source, level = theta.detach(), threshold.detach()
    pruned = (groups.cap(source, level) - groups.magnitude(source)).ge_(0)  # as numbers, see `precision.above`
    if not threshold.requires_grad:
        # theta - theta is exactly 0; the part that goes is a constant, so the derivative is the identity.
        return theta - pruned.mul_(source).to(theta.dtype)
    wide = widen(source)
    level = level.to(wide.dtype)
    slope = -wide * pruned / torch.where(level == 0, torch.inf, level)
    return straight_through(theta, source * (1 - pruned), threshold=threshold, slope=slope)
