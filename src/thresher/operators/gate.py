"""m = σ((w² − τ)/T): a soft mask whose threshold learns."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .groups import UNSTRUCTURED, Groups
from .precision import widen

TEMPERATURE_FLOOR = 1e-12  # a constant tensor has variance 0, and 0/0 would be NaN
LOGIT_LIMIT = 80.0  # sigmoid(−80) is still a normal float32


def gate_values(
    theta: Tensor,
    threshold: Tensor,
    temperature: Tensor | float,
    *,
    full_gradient: bool = False,
    groups: Groups = UNSTRUCTURED,
) -> Tensor:
    """m = σ((sg(θ²) − τ)/T), the soft mask; Σ m is the soft L0 of the layer.

    Shapes: θ any; τ and T `(1,)` or anything that broadcasts to θ (T may be a number); m as θ.
    Units: τ and T in **squared** weight units, m in [0, 1]. m is float32 (float64 for a float64 θ) and not θ's dtype,
    because its sum over a layer would overflow half precision. Groups: θ² is the group's mean square.
    Gradient: to τ only, ∂m/∂τ = −m(1 − m)/T (and to T where it requires one); `full_gradient` adds ∂m/∂θ.
    Errors: none; T is floored at 1e-12, (θ² − τ)/T is clipped to ±80.
    Source: Azarian et al., Learned Threshold Pruning (arXiv 2003.00075), soft L0 norm.

    >>> gate_values(torch.tensor([0.5, 2.0]), torch.tensor([0.25]), 0.01).tolist()
    [0.5, 1.0]
    """
    source = theta if full_gradient else theta.detach()
    square = groups.magnitude(source).square()
    limit = groups.cap(source, threshold.new_full((1,), math.inf)).square()  # inf unless the pattern must keep some
    level = torch.minimum(threshold.to(square.dtype), limit)
    if isinstance(temperature, Tensor):
        scale: Tensor | float = temperature.to(square.dtype).clamp(min=TEMPERATURE_FLOOR)
    else:
        scale = max(temperature, TEMPERATURE_FLOOR)
    return ((square - level) / scale).clamp(-LOGIT_LIMIT, LOGIT_LIMIT).sigmoid()


def soft_gate(
    theta: Tensor,
    threshold: Tensor,
    temperature: Tensor | float,
    *,
    full_gradient: bool = False,
    groups: Groups = UNSTRUCTURED,
) -> Tensor:
    """v = θ·m, m = σ((sg(θ²) − τ)/T); ∂L/∂θ = m·G; ∂L/∂τ = −Σ G·θ·m(1 − m)/T.

    The term 2θ²·m(1 − m)/T·G of the weight gradient is dropped: it lives only in the band |θ² − τ| ≲ 4T and pushes
    weights out of it; once the band is empty, τ gets no gradient and pruning stops early.

    Shapes: θ any; τ and T `(1,)` or anything that broadcasts to θ (T may be a number); v as θ.
    Units: θ and v in weight units, τ and T in **squared** weight units. v has θ's dtype, computed in float32 or wider.
    Gradient: as in line 1; `full_gradient` differentiates everything. v is never exactly 0 for a θ ≠ 0 (except by
    underflow): a finished layer needs the hard mask θ² > τ.
    Errors: none; T is floored at 1e-12, (θ² − τ)/T is clipped to ±80.
    Source: Azarian et al., Learned Threshold Pruning (arXiv 2003.00075), equations 14 and 15.

    >>> soft_gate(torch.tensor([0.5]), torch.tensor([0.25]), 0.01).tolist()
    [0.25]
    """
    gate = gate_values(theta, threshold, temperature, full_gradient=full_gradient, groups=groups)
    return (widen(theta) * gate).to(theta.dtype)
