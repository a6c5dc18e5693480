"""|H|_(i) ≤ R i^(−1/p): how fast the sorted sizes of the hidden units fall, and the decay that this promises."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thresher.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Compressibility:
    """p and R of |H|_(i) ≤ R i^(−1/p).

    p: fitted by least squares in log-log, infinity when the sizes do not fall. radius: the least R that holds for every
    unit with that p. exponent: 1 − 2/p, the slope of log ‖V‖² over log s that the guarantee gives. covered: whether
    0 < p < 1, without which the guarantee says nothing.
    """

    p: float
    radius: float
    exponent: float
    covered: bool

    def decay(self, size: float, *, at: float = 1.0, value: float = 1.0) -> float:
        """value · (size / at)^(1 − 2/p): the predicted ‖V‖² at `size`, anchored where it is `value`."""
        return float(value * (size / at) ** self.exponent)


def fit_compressibility(sizes: Tensor) -> Compressibility:
    """The p of a vector of hidden sizes; zeros are left out.

    >>> found = fit_compressibility(torch.arange(1, 101).double() ** -2.0)
    >>> round(found.p, 6), round(found.exponent, 6), found.covered
    (0.5, -3.0, True)

    Errors: InputError with fewer than two sizes above 0.
    """
    live = sizes[sizes > 0].detach().to(torch.float64).sort(descending=True).values
    if len(live) < 2:
        raise InputError(f"{len(live)} hidden sizes above 0", "at least two", "take a layer that is not dead")
    place = torch.arange(1, len(live) + 1, dtype=torch.float64, device=live.device).log()
    heights = live.log()
    centred = place - place.mean()
    slope = float((centred * (heights - heights.mean())).sum() / centred.square().sum())
    p = -1 / slope if slope < 0 else math.inf
    radius = float((heights + place / p).max().exp())
    return Compressibility(p=p, radius=radius, exponent=1 - 2 / p, covered=0 < p < 1)


def slope_of(curve: dict[int, float]) -> float:
    """Least-squares slope of log value over log s, for the values above 0.

    >>> round(slope_of({1: 1.0, 2: 0.25, 4: 0.0625}), 9)
    -2.0
    """
    points = [(math.log(size), math.log(value)) for size, value in curve.items() if size > 0 and value > 0]
    if len({x for x, _ in points}) < 2:
        raise InputError(f"{len(points)} positive points", "at least two different sizes", "give a longer curve")
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return float(sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points))
