"""Receding horizon: how fast a threshold must travel so that it ends where the budget is met, at a steady pace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from thresher.config import check_positive, check_share

_POWER = 1.3
_SPREAD = 0.25
_FAR = 0.3


def expected_reach(density: float) -> float:
    """x* before anything is observed: `0.9 + 0.07 / density`, at least 1.1.

    The first part is the way to where the entries that have to go lie now, the second what those that stay resist:
    the L1 coefficient goes with one over their number. Both numbers were read off runs at constant pace of three
    small networks at 80 to 98 % zeros (docs/controller.md); any other network is corrected by observation.

    >>> round(expected_reach(0.05), 2)
    2.3
    """
    return max(0.9 + 0.07 / max(density, 1e-4), 1.1)


def model_gap(x: float, reach: float) -> float:
    """`gap(x) = (1 - x/x*)^1.3` for 0 <= x < x*, with x* the reach.

    >>> round(model_gap(0.5, reach=2.5), 4)
    0.7482
    """
    return float(max(1 - x / reach, 0.0) ** _POWER)


def fit_reach(points: Sequence[tuple[float, float]], prior: float) -> float:
    """Reach x* of the gap model, by least squares on ln(gap) with a prior on ln(x*).

    x = d/q0 and gap = (q - d)/q0, where q is the quantile of |theta| that meets the budget and q0 its value before
    pruning. Were the weights inert, q would stay at q0 and d would have to travel 1; but training pushes the
    survivors away from a rising threshold, q rises with it, and the gap closes at x* > 1. Gaps of different networks
    scatter widely around the model on the way there, so they say little until the expected end is near: ln(gap) is
    believed to 0.4 + 2.5 times the share of the way that is left.

    Args:
        points: observed (x, gap); neighbours err alike, so together they count as two. prior: x* expected beforehand.

    >>> round(fit_reach([(x, model_gap(x, 2.0)) for x in (1.0, 1.5, 1.9)], prior=2.5), 1)
    2.0
    """
    best, least = prior, math.inf
    noise = [0.4 + 2.5 * max(1 - x / prior, 0.0) for x, _ in points]
    for step in range(-120, 121):
        reach = prior * math.exp(step / 100)
        if any(x >= reach for x, _ in points):
            continue
        cost = (step / 100 / _SPREAD) ** 2
        for (x, gap), doubt in zip(points, noise, strict=True):
            miss = math.log(max(gap, 1e-3)) - _POWER * math.log1p(-x / reach)
            cost += 2 / len(points) * (miss / doubt) ** 2
        if cost < least:
            best, least = reach, cost
    return max(best, *(x * 1.01 for x, _ in points)) if points else best


class RecedingHorizon:
    """Plans the rate (threshold travel per unit of clock) and re-plans it, damped, as the run shows its resistance.

    Args:
        prior: expected reach x* before anything is observed, see `expected_reach`.
        gain: share of the gap between the planned and the present rate taken up at each re-plan.
        band: from the first tenth of the run on, the rate stays within this share of an anchor, its value there. A
            plan that is 0.3 of it off pulls the anchor along until half-time: a rate that misses the budget would
            leave the final projection to cut weights that no training makes up for. Later on the learning rate is
            too small for a correction to do more than that projection.

    Use: `rate = start(q0, clock_left)`, then `rate = replan(q, d, clock_left, progress)` now and then.

    >>> horizon = RecedingHorizon()
    >>> round(horizon.start(quantile=0.1, clock_left=100.0), 6)
    0.0023
    """

    def __init__(self, *, prior: float = 2.3, gain: float = 0.3, band: float = 0.1) -> None:
        check_positive("prior", prior)
        check_share("gain", gain)
        check_share("band", band)
        self.prior, self.gain, self.band = prior, gain, band
        self._points: list[tuple[float, float]] = []
        self._start = 0.0
        self._rate = 0.0
        self._anchor: float | None = None

    def start(self, quantile: float, clock_left: float, density: float | None = None) -> float:
        """First plan: from threshold 0 to where the gap closes by the prior (that of `density` when given)."""
        if density is not None:
            self.prior = expected_reach(density)
        self._start = max(quantile, 1e-12)
        self._rate = self.prior * self._start / clock_left
        return self._rate

    def replan(self, quantile: float, threshold: float, clock_left: float, progress: float) -> float:
        """The rate from here on. `progress`: share of the run that is over, in [0, 1]."""
        gap = max(quantile - threshold, 0.0) / self._start
        self._points.append((threshold / self._start, gap))
        reach = fit_reach(self._points, self.prior)
        planned = max(reach - threshold / self._start, 0.0) * self._start / clock_left
        self._rate += self.gain * (planned - self._rate)
        if self._anchor is None and progress >= 0.1:
            self._anchor = self._rate
        if self._anchor is not None:
            if progress < 0.5 and abs(planned - self._anchor) > _FAR * self._anchor:
                self._anchor += 0.5 * self.gain * (planned - self._anchor)
            self._rate = min(max(self._rate, self._anchor * (1 - self.band)), self._anchor * (1 + self.band))
        return self._rate

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "points": list(self._points),
            "prior": self.prior,
            "start": self._start,
            "rate": self._rate,
            "anchor": self._anchor,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume."""
        self._points = [(float(x), float(gap)) for x, gap in state["points"]]
        self.prior = state["prior"]
        self._start, self._rate, self._anchor = state["start"], state["rate"], state["anchor"]
