"""Receding horizon: how fast a threshold must travel so that it ends where the budget is met, at a steady pace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from thresher.config import check_share


def fit_resistance(points: Sequence[tuple[float, float]], start: float, prior: float, weight: float = 1e-3) -> float:
    """z of the gap model `gap(d) = q0 - (q0/z) * (1 - exp(-d z / q0))`, by least squares with a prior.

    As the threshold d rises, training pushes the surviving |theta| away from it, so that the quantile q that
    meets the budget rises too, ever more like d itself; the gap q - d then closes ever more slowly. z = 0 is
    no resistance (q stays at q0), z near 1 means the gap hardly closes.

    Args:
        points: observed (d, gap). start: q0, the quantile before pruning. prior: z expected beforehand.

    >>> gap = lambda d: 0.2 - (0.2 / 0.6) * (1 - math.exp(-d * 0.6 / 0.2))
    >>> round(fit_resistance([(d, gap(d)) for d in (0.05, 0.1, 0.15)], 0.2, prior=0.8), 2)
    0.6
    """
    best, best_cost = prior, math.inf
    for step in range(1, 200):
        z = step / 200
        cost = weight * (z - prior) ** 2
        for moved, gap in points:
            cost += ((start - start / z * -math.expm1(-moved * z / start) - gap) / start) ** 2
        if cost < best_cost:
            best, best_cost = z, cost
    return best


def travel_left(gap: float, moved: float, start: float, z: float) -> float:
    """How much further d must rise until the gap closes, from the observed `gap` along the model's curve.

    >>> round(travel_left(0.2, 0.0, 0.2, 0.8), 4)   # = q0 * ln(1/(1-z)) / z
    0.4024
    """
    scale = start / z
    pace = scale * math.exp(-moved / scale)
    share = gap / pace
    if share >= 0.98:
        # The model says that the gap never closes at this point of the curve: go as far as 98 % of the pace.
        share = 0.98
    return -scale * math.log1p(-share)


class RecedingHorizon:
    """Plans the rate (threshold travel per unit of clock) and re-plans it, damped, as the run shows its resistance.

    Args:
        prior: expected resistance z before anything is observed.
        gain: share of the gap between the planned and the present rate taken up at each re-plan.
        band: after the first tenth of the run, the rate stays within this share of its value there.

    Use: `rate = start(q0, clock_left)`, then `rate = replan(q, d, clock_left, progress)` now and then.
    """

    def __init__(self, *, prior: float = 0.8, gain: float = 0.3, band: float = 0.15) -> None:
        for name, value in (("prior", prior), ("gain", gain), ("band", band)):
            check_share(name, value)
        self.prior, self.gain, self.band = prior, gain, band
        self._points: list[tuple[float, float]] = []
        self._start = 0.0
        self._rate = 0.0
        self._anchor: float | None = None

    def start(self, quantile: float, clock_left: float) -> float:
        """First plan: from threshold 0 to where the gap closes by the prior."""
        self._start = max(quantile, 1e-12)
        self._rate = travel_left(self._start, 0.0, self._start, self.prior) / clock_left
        return self._rate

    def replan(self, quantile: float, threshold: float, clock_left: float, progress: float) -> float:
        """The rate from here on. `progress`: share of the run that is over, in [0, 1]."""
        gap = quantile - threshold
        if threshold > 0.05 * self._start:
            self._points = [*self._points, (threshold, gap)][-10:]
        z = fit_resistance(self._points, self._start, self.prior)
        planned = max(travel_left(gap, threshold, self._start, z), 0.0) / clock_left
        self._rate += self.gain * (planned - self._rate)
        if self._anchor is None and progress >= 0.1:
            self._anchor = self._rate
        if self._anchor is not None:
            self._rate = min(max(self._rate, self._anchor * (1 - self.band)), self._anchor * (1 + self.band))
        return self._rate

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"points": self._points, "start": self._start, "rate": self._rate, "anchor": self._anchor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume."""
        self._points = [(float(moved), float(gap)) for moved, gap in state["points"]]
        self._start, self._rate, self._anchor = state["start"], state["rate"], state["anchor"]
