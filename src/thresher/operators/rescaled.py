"""c_o·S_d(θ): the soft threshold with each output channel scaled back to the size it had."""

from __future__ import annotations

from torch import Tensor

from .groups import UNSTRUCTURED, Groups
from .precision import above, widen
from .soft import soft_threshold
from .through import straight_through


def channel_rescale(theta: Tensor, threshold: Tensor, *, groups: Groups = UNSTRUCTURED) -> Tensor:
    """c_o = 1.01/(r_o + 0.01), r_o = (mean(|θ|·m) + 1e-6)/(mean(|θ|) + 1e-6) over output channel o, m = 1[|θ| > d].

    Shapes: θ `(out, in, *kernel)` or any; d `(1,)` or anything that broadcasts to θ; c `(out, 1, ..., 1)`.
    Units: a pure number, from 1 (nothing pruned) to about 101 (no survivor: harmless, the channel is 0 anyway).
    Gradient: none. Errors: none; d must be ≥ 0 and finite.
    Source: ST-3 (arXiv 2212.01076), magnitude re-scaling, with the constants of its released code.

    >>> import torch
    >>> factor = channel_rescale(torch.tensor([[3.0, 1.0], [2.0, 2.0]]), torch.tensor([1.0]))
    >>> [round(value, 4) for value in factor.flatten().tolist()]
    [1.3289, 1.0]
    """
    wide = widen(theta.detach())
    inside = tuple(range(1, wide.ndim))
    size = wide.abs()
    survived = size * above(groups.magnitude(wide), groups.cap(wide, threshold))
    if inside:
        size, survived = size.mean(inside, keepdim=True), survived.mean(inside, keepdim=True)
    return 1.01 / ((survived + 1e-6) / (size + 1e-6) + 0.01)


def rescaled_soft_threshold(theta: Tensor, threshold: Tensor, *, groups: Groups = UNSTRUCTURED) -> Tensor:
    """w = c_o·S_d(θ), c_o as in `channel_rescale`; backward ∂L/∂θ := G.

    Shapes: θ `(out, in, *kernel)` or any; d `(1,)` or anything that broadcasts to θ; w as θ.
    Units: weight units. w has θ's dtype, computed in float32 or wider. At d = 0 it is the identity up to rounding of
    c = 1.01/1.01.
    Gradient: G at every entry; the factor and the threshold are constants.
    Errors: none; d must be ≥ 0 and finite, `groups.fits(θ.shape)` must hold.
    Source: ST-3, straight-through soft threshold with magnitude re-scaling (arXiv 2212.01076).

    >>> import torch
    >>> round(rescaled_soft_threshold(torch.tensor([[3.0, 1.0]]), torch.tensor([1.0]))[0, 0].item(), 4)
    2.6579
    """
    source = theta.detach()
    shrunk = widen(soft_threshold(source, threshold, groups=groups))
    return straight_through(theta, channel_rescale(source, threshold, groups=groups) * shrunk)
