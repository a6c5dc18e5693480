"""W', b' = the least-squares fit of a layer to the outputs it should give, from sums over mini-batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from thresher.errors import NumericsError
from thresher.recovery.moments import SecondMoments
from thresher.recovery.reading import channels_of

RIDGE = 1e-3
CHUNK = 64  # samples that are worked on in double precision at once


class Fit:
    """Sums of X Xᵀ, Y Xᵀ, x and y over what a layer is given (X, rows: channel-taps) and what it should give (Y).

    >>> layer, x = nn.Linear(2, 1), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> fit = Fit(layer)
    >>> fit.add(x, torch.tensor([[3.0], [5.0], [8.0]]))
    >>> weight, bias = fit.solve(layer.weight.detach().double(), intercept=True, ridge=1e-9)
    >>> [round(value, 3) for value in (*weight[0].tolist(), *bias.tolist())]
    [3.0, 5.0, 0.0]
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._moments = SecondMoments(module, torch.arange(channels_of(module)))
        self._sums: list[Tensor] = []  # Y Xᵀ with a row Σ x below it; Σ y; Σ y²
        self._total: Tensor | None = None  # X Xᵀ

    def add(self, inputs: Tensor, wanted: Tensor) -> None:
        """Take in what the layer is given, and what it should give for it."""
        self._moments.add(inputs)
        for start in range(0, len(inputs), CHUNK):
            x, y = inputs[start : start + CHUNK].double(), wanted[start : start + CHUNK].double()
            axis = 1 if isinstance(self._module, _ConvNd) else -1
            ones = torch.ones_like(y.narrow(axis, 0, 1))
            rows = y.movedim(axis, 0).flatten(1)
            found = [self._product(x, torch.cat([y, ones], axis)), rows.sum(1), rows.square().sum()]
            self._sums = [old + new for old, new in zip(self._sums, found, strict=True)] if self._sums else found

    def _product(self, x: Tensor, y: Tensor) -> Tensor:
        module: Any = self._module
        if not isinstance(module, _ConvNd):
            return y.flatten(0, -2).T @ x.flatten(0, -2)
        # Outputs times inputs one tap away, summed over positions: the gradient of a convolution's weight.
        shape = (y.shape[1], *module.weight.shape[1:])
        dims = len(module.stride)
        _, found, _ = torch.ops.aten.convolution_backward(
            y, x, x.new_zeros(shape), None, module.stride, module.padding, module.dilation, False, [0] * dims, 1,
            [False, True, False],
        )  # fmt: skip
        return torch.flatten(found, 1)

    def solve(self, weight: Tensor, *, intercept: bool, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
        """W' (outputs, channel-taps) near `weight` W, and b' (zeros without `intercept`), in float64.

        They minimise ‖Y − W'X − b'‖² + ε‖W' − W‖² with ε = ridge · tr(X Xᵀ) / rows, X about its mean where there is an
        intercept. Errors: NumericsError for NaN or infinity.
        """
        moments = self._summed().clone()
        across, ones, total = self._sums[0][:-1], self._sums[0][-1], self._sums[1]
        count = max(self._moments.count, 1)
        if intercept:
            moments -= torch.outer(ones, ones) / count
            across = across - torch.outer(total, ones) / count
        epsilon = ridge * moments.diagonal().sum() / len(moments)
        if not float(epsilon) > 0:  # nothing but zeros, or one and the same input
            new = weight
        else:
            moments.diagonal().add_(epsilon)
            # The ridge pulls to W: (C + εI) ΔWᵀ = (T − W C)ᵀ with T − W C what W leaves.
            left = across + epsilon * weight - weight @ moments
            lower, failed = torch.linalg.cholesky_ex(moments)
            new = weight + torch.cholesky_solve(left.T, lower).T
            if failed or not torch.isfinite(new).all():
                raise NumericsError(
                    f"a fit of a {type(self._module).__name__} that has no finite solution",
                    "finite inputs, and a ridge large enough for them",
                    "look at the calibration data and the weights, or raise ridge",
                )
        return new, (total - new @ ones) / count if intercept else torch.zeros_like(total)

    def outputs(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, variance) of each output of W over all that was taken in, without a bias."""
        moments, count = self._summed(), max(self._moments.count, 1)
        mean = weight @ self._sums[0][-1] / count
        return mean, (((weight @ moments) * weight).sum(1) / count - mean.square()).clamp_min(0)

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """‖Y − WX − b‖ / ‖Y‖ over all that was taken in; 0 where Y is zero."""
        moments = self._summed()
        across, ones, total, energy = self._sums[0][:-1], self._sums[0][-1], self._sums[1], float(self._sums[2])
        own = float(((weight @ moments) * weight).sum()) + 2 * float(bias @ (weight @ ones))
        off = (
            energy - 2 * float((weight * across).sum() + bias @ total) + own + self._moments.count * float(bias @ bias)
        )
        return (max(off, 0.0) / energy) ** 0.5 if energy > 0 else 0.0

    def _summed(self) -> Tensor:
        """X Xᵀ; the first call adds up what all processes saw."""
        if self._total is None:
            self._total = self._moments.result()
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                for each in self._sums:
                    torch.distributed.all_reduce(each)
        return self._total
