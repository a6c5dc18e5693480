"""The operator module of a threshold that learns: no tensor and no depthwise filter empties under it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from thresher.attach import latent
from thresher.methods.scheduled.shells import ThresholdShell
from thresher.operators import UNSTRUCTURED, Groups
from thresher.operators.precision import widen
from thresher.targets import Target

# A threshold stays this far below the largest weight: an empty layer has no gradient to return by.
ALIVE = 1 - 1e-3
_WHOLE_FILTERS = ("row", "column", "kernel")


class LearnedShell(ThresholdShell):
    """`operator(theta, level)` until the support is frozen, `theta * mask` from then on.

    level: the threshold; in a depthwise convolution each filter has its own where its largest weight lies lower.
    """

    def __init__(self, groups: Groups, target: Target, operator: Callable[..., Tensor]) -> None:
        super().__init__(groups, latent(target), operator)
        self._filters = target.depthwise and groups.spelling not in _WHOLE_FILTERS
        self.simple = groups == UNSTRUCTURED and not self._filters  # one threshold compared with each weight alone

    def level(self, theta: Tensor, groups: Groups) -> Tensor:
        """The threshold in force, shape (1,), or (filters, 1, ...) in a depthwise convolution."""
        if not self._filters:
            return self.threshold
        best = groups.magnitude(theta.detach()).flatten(1).amax(1) * ALIVE
        return torch.minimum(self.threshold.to(best.dtype), best).reshape(-1, *[1] * (theta.ndim - 1))

    def _thresholded(self, theta: Tensor, groups: Groups) -> Tensor:
        return self.operator(theta, self.level(theta, groups), groups=groups)


def largest(theta: Tensor, groups: Groups) -> Tensor:
    """The greatest magnitude in a tensor."""
    if not groups.entrywise:
        return groups.magnitude(theta).amax()
    low, high = torch.aminmax(theta)
    return torch.maximum(-low, high)


def inner(one: Tensor, other: Tensor) -> Tensor:
    """Σ one*other in float32 or wider, a scalar: read off weights and gradients at every step, so as one BLAS call.

    >>> inner(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])).item()
    11.0
    """
    one, other = widen(one), widen(other)
    if one.is_contiguous() and other.is_contiguous() and one.dtype == other.dtype:
        return torch.dot(one.view(-1), other.view(-1))
    return (one * other).sum()


def put(values: Tensor, buffers: Sequence[Tensor]) -> None:
    """Write values[l] into buffers[l], each of shape (1,)."""
    torch._foreach_copy_(
        list(buffers), [part.to(buffer) for part, buffer in zip(values.split(1), buffers, strict=True)]
    )
