"""A threshold in a network: its operator module, and the bounds that rules set on one tensor's threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from thresher.attach import effective, latent
from thresher.methods.masked import MaskShell
from thresher.operators import Groups, soft_threshold
from thresher.targets import Target


class ThresholdShell(MaskShell):
    """`operator(theta, threshold)` until the support is frozen, `theta * mask` from then on.

    threshold: buffer of shape (1,), in weight units. operator: one of `thresher.operators`, S_d by default.
    """

    threshold: Tensor

    def __init__(self, groups: Groups, theta: Tensor, operator: Callable[..., Tensor] = soft_threshold) -> None:
        super().__init__()
        wide = torch.promote_types(theta.dtype, torch.float32)
        self.register_buffer("threshold", torch.zeros(1, device=theta.device, dtype=wide))
        self.operator = operator
        self.before = partial(self._thresholded, groups=groups)

    def _apply(self, fn: Any, recurse: bool = True) -> ThresholdShell:
        # model.half() and the like must not round the threshold; the device still follows.
        exact = self.threshold
        super()._apply(fn, recurse)
        if not exact.is_meta:
            self.threshold = exact.to(self.threshold.device)
        return self

    def _thresholded(self, theta: Tensor, groups: Groups) -> Tensor:
        return self.operator(theta, self.threshold, groups=groups)


def within_bounds(threshold: float, target: Target, groups: Groups, progress: float) -> float:
    """`threshold`, lowered to where `target` has its greatest sparsity, raised to where it has its least.

    Without it a tensor that rules keep dense would train thresholded and come back to life at the end. The least
    sparsity is approached with `progress` in [0, 1].
    """
    if target.max_sparsity == 1.0 and target.min_sparsity == 0.0:
        return threshold
    magnitude = groups.magnitude(latent(target).detach()).flatten()

    def level(sparsity: float) -> float:
        count = int(sparsity * target.numel + 1e-9)
        return float(magnitude.kthvalue(count).values) if count else 0.0

    return min(max(threshold, level(target.min_sparsity) * min(progress, 1.0)), level(target.max_sparsity))


def nearly_zero(theta: Tensor) -> Tensor:
    """theta / 1000, but never rounded to 0: a weight that counts as kept and does next to nothing.

    >>> nearly_zero(torch.tensor([1000.0, 0.0])).tolist()
    [1.0, 0.0]
    >>> nearly_zero(torch.tensor([-1e-4], dtype=torch.float16)).tolist()  # not -0.0000001, which is 0 in float16
    [-6.103515625e-05]
    """
    least = torch.finfo(theta.dtype).smallest_normal
    small = theta * 1e-3
    return torch.where(small.abs() < least, theta.sign() * least, small)


def scaled_magnitudes(
    targets: Sequence[Target], shells: Sequence[ThresholdShell], groups: Groups, ratios: Sequence[float]
) -> list[Tensor]:
    """Magnitudes in units of one common threshold, so that one cut ranks tensors of any ratio to it."""
    found = []
    for target, shell, ratio in zip(targets, shells, ratios, strict=True):
        theta = latent(target).detach()
        magnitude = groups.magnitude(theta if shell.mask is None else theta * shell.mask).float()
        found.append(magnitude if ratio == 1 else magnitude / ratio)
    return found


def weight_on(keep: Tensor, target: Target, shell: MaskShell) -> Tensor:
    """The effective weight on `keep`; what is kept although the threshold prunes it gets next to nothing.

    So the function that was trained stays as it is.
    """
    theta = latent(target).detach()
    if shell.mask is not None:
        return theta * keep
    weight = effective(target)
    return torch.where(keep & (weight == 0), nearly_zero(theta), weight * keep)
