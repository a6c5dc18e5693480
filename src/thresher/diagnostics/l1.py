"""lambda = threshold travel over effective learning rate: the L1 coefficient that any run stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from thresher.config import check_share
from thresher.errors import InputError


class Spread(NamedTuple):
    """How steady lambda stayed: its median, and its least and greatest value as shares of that median."""

    median: float
    low: float
    high: float


def implied_l1(clock: Sequence[float], thresholds: Sequence[float] | Sequence[Sequence[float]]) -> list[float]:
    """lambda_i = (d_{i+1} - d_i) / (c_{i+1} - c_i), the L1 coefficient of each interval between two records.

    Shapes: `clock` n numbers; `thresholds` n numbers, or n rows with one threshold per tensor (averaged, as the clock
    of a trace is averaged over tensors); n - 1 numbers come back.
    Units: c is the sum of effective learning rates lr / (1 - momentum) since the start, d in weight units, lambda in
    loss per weight unit. Gradient: none. An interval without learning rate gives NaN, or infinity when d moved in it.
    A falling threshold gives a negative lambda.
    Errors: InputError when the lengths differ or the clock runs backwards.
    Source: derived, the proximal gradient reading of a soft threshold: w+ = S_{d' - d}(w - lr * G). Exact for SGD; for
    other optimizers lambda acts in their preconditioned metric.

    >>> implied_l1([0.0, 0.5, 1.0], [0.0, 0.25, 0.75])
    [0.5, 1.0]
    """
    times, levels = _checked(clock, thresholds)
    return [float(value) for value in levels.diff() / times.diff()]


def l1_spread(
    clock: Sequence[float], thresholds: Sequence[float] | Sequence[Sequence[float]], *, skip: float = 0.1
) -> Spread:
    """(median, min/median, max/median) of lambda while the threshold travels, without the first `skip` of the way.

    Intervals before the threshold first moves (a late start) and after it last moves (the support is fixed) have no
    lambda to speak of and are left out; a halt in between counts as 0. Of the records left, the first `skip` share is
    left out too. Intervals without learning rate do not count.

    Shapes, units, gradient, source: as `implied_l1`. A threshold that never moves gives Spread(0, 1, 1).
    Errors: InputError as `implied_l1`, and for `skip` outside [0, 1].

    >>> l1_spread([0, 1, 2, 3, 4], [0.0, 0.5, 1.0, 1.5, 1.75], skip=0.25)
    Spread(median=0.5, low=0.5, high=1.0)
    """
    check_share("skip", skip)
    times, levels = _checked(clock, thresholds)
    moving = levels.diff().nonzero().flatten()
    if not len(moving):
        return Spread(0.0, 1.0, 1.0)
    first, last = int(moving[0]), int(moving[-1]) + 1
    first = min(first + round(skip * (last - first)), last - 1)
    spent = times.diff()[first:last]
    values = (levels.diff()[first:last] / spent)[spent > 0]
    if not len(values):
        return Spread(0.0, 1.0, 1.0)
    median = float(values.quantile(0.5))
    if median == 0:
        return Spread(0.0, float("nan"), float("nan"))
    low, high = sorted((float(values.min()) / median, float(values.max()) / median))
    return Spread(median, low, high)


def _checked(clock: Sequence[float], thresholds: Sequence[float] | Sequence[Sequence[float]]) -> tuple[Tensor, Tensor]:
    times = torch.as_tensor(clock, dtype=torch.float64)
    levels = torch.as_tensor(thresholds, dtype=torch.float64)
    if levels.ndim == 2 and levels.shape[1]:
        levels = levels.mean(1)
    if times.ndim != 1 or times.shape != levels.shape or not len(times):
        raise InputError(
            f"{tuple(times.shape)} clock readings and {tuple(levels.shape)} thresholds",
            "one threshold (or one row of thresholds) for each reading of the clock",
            "pass trace.clock and trace.thresholds of the same run",
        )
    if bool((times.diff() < 0).any()):
        raise InputError("a clock that runs backwards", "sums of learning rates, never falling", "pass trace.clock")
    return times, levels
