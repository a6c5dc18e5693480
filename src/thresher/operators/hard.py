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
    kept = groups.magnitude(source) > groups.cap(source, level)
    slope = None
    if threshold.requires_grad:  # a static property, no data: a schedule's threshold saves nothing
        wide = widen(source)
        level = level.to(wide.dtype)
        slope = torch.where(kept | (level == 0), 0, -wide / torch.where(level == 0, 1, level))
    # Not torch.where, which the CPU does entry by entry; + 0 makes 0 of -0.
    return straight_through(theta, source * kept + 0.0, threshold=threshold, slope=slope)
