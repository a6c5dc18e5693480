"""Receding horizon: how fast a threshold must travel so that it ends where the budget is met, at a steady pace."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from thresher.config import check_positive, check_share

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Resistance:
    """How a network resists a rising threshold: `gap(x) = (1 - x/x*)^power`, closed at the reach x*.

    x = d/q0 and gap = (q - d)/q0, where q is the quantile of |theta| that meets the budget and q0 its value before
    pruning. Were the weights inert, q would stay at q0 and d would have to travel 1; but training pushes the survivors
    away from a rising threshold, q rises with it, and the gap closes at x* > 1.

    Args:
        expected: density -> x* before anything is observed. power: x* -> exponent.
        doubt: (x, expected x*) -> standard deviation of ln(gap) about the model.
    """

    expected: Callable[[float], float]
    power: Callable[[float], float]
    doubt: Callable[[float, float], float]

    def gap(self, x: float, reach: float) -> float:
        """The model's gap at x, 0 from the reach on.

        >>> round(STEADY.gap(0.5, 2.5), 4), round(CLOSE.gap(0.5, 2.5), 4)
        (0.7482, 0.5886)
        """
        return float(max(1 - x / reach, 0.0) ** self.power(reach))

    def fit(self, points: Points, prior: float) -> float:
        """Reach x*, by least squares on ln(gap) over the observed (x, gap), with ln(x*) beforehand known to 0.25.

        Neighbours err alike, so together the points count as two.

        >>> round(CLOSE.fit([(x, CLOSE.gap(x, 2.0)) for x in (0.5, 1.0, 1.5)], prior=2.5), 1)
        2.1
        """
        best, least = prior, math.inf
        doubts = [self.doubt(x, prior) for x, _ in points]
        for step in range(-120, 121):
            reach = prior * math.exp(step / 100)
            if any(x >= reach for x, _ in points):
                continue
            cost = (step / 100 / 0.25) ** 2
            for (x, gap), doubt in zip(points, doubts, strict=True):
                miss = math.log(max(gap, 1e-4)) - self.power(reach) * math.log1p(-x / reach)
                cost += 2 / len(points) * (miss / doubt) ** 2
            if cost < least:
                best, least = reach, cost
        return max(best, *(x * 1.01 for x, _ in points)) if points else best


STEADY = Resistance(
    expected=lambda density: max(0.9 + 0.07 / max(density, 1e-4), 1.1),
    power=lambda reach: 1.3,
    doubt=lambda x, prior: 0.4 + 2.5 * max(1 - x / prior, 0.0),
)
"""For the whole of a training run. The first part of the expected reach is the way to where the entries that have to go
lie now, the second what those that stay resist: the L1 coefficient goes with one over their number. Gaps of different
networks scatter widely on the way, so they say little until the expected end is near."""

CLOSE = Resistance(
    expected=lambda density: max(2.45 * (0.05 / max(density, 1e-4)) ** 0.37, 1.1),
    power=lambda reach: 0.95 * reach,
    doubt=lambda x, prior: 0.25,
)
"""For a part of a run, whose short clock lowers the reach by an amount not known beforehand: gaps are believed. All
reaches start with the same slope."""


class RecedingHorizon:
    """Plans the rate (threshold travel per unit of clock) and re-plans it, damped, as the run shows its resistance.

    Args:
        steady: whether a constant rate goes before an exact landing (`STEADY`), or the budget before a constant rate
            (`CLOSE`).
        prior: expected reach x* before anything is observed; None: by the density at `start`.
        gain: share of the gap between the planned and the present rate taken up at each re-plan.
        band: from the first tenth of the run on, the rate stays within this share of an anchor, its value there;
            None: 0.1 when steady, else 0.15. A plan 0.3 above the anchor pulls it along until half-time, and so does
            one 0.3 below, when steady only once the budget is met already: a rate that misses the budget would leave
            the final projection to cut weights that no training makes up for. Later on the learning rate is too small
            for a correction to do more than that projection.

    Use: `rate = start(q0, clock_left, density)`, then `rate = replan(q, d, clock_left, progress)` now and then.

    >>> horizon = RecedingHorizon()
    >>> round(horizon.start(quantile=0.1, clock_left=100.0, density=0.05), 6)
    0.0023
    """

    def __init__(
        self, *, steady: bool = True, prior: float | None = None, gain: float = 0.3, band: float | None = None
    ) -> None:
        self._model, self._steady = (STEADY if steady else CLOSE), steady
        self.prior = self._model.expected(0.05) if prior is None else prior
        self.gain, self.band = gain, (0.1 if steady else 0.15) if band is None else band
        check_positive("prior", self.prior)
        check_share("gain", self.gain)
        check_share("band", self.band)
        self._points: list[tuple[float, float]] = []
        self._start = 0.0
        self._rate = 0.0
        self._anchor: float | None = None

    def start(self, quantile: float, clock_left: float, density: float | None = None) -> float:
        """First plan: from threshold 0 to where the gap closes by the prior (that of `density` when given)."""
        if density is not None:
            self.prior = self._model.expected(density)
        self._start = max(quantile, 1e-12)
        self._rate = self.prior * self._start / clock_left
        return self._rate

    def replan(self, quantile: float, threshold: float, clock_left: float, progress: float) -> float:
        """The rate from here on. `progress`: share of the run that is over, in [0, 1]."""
        gap, x = max(quantile - threshold, 0.0) / self._start, threshold / self._start
        self._points.append((x, gap))
        reach = self._model.fit(self._points, self.prior)
        left = max(reach - x, 0.0) if self._steady else reach * gap ** (1 / self._model.power(reach))
        planned = left * self._start / clock_left
        self._rate += self.gain * (planned - self._rate)
        if self._anchor is None and progress >= 0.1:
            self._anchor = self._rate
        if self._anchor is not None:
            short = planned > 1.3 * self._anchor
            fast = planned < 0.7 * self._anchor and (gap == 0 or not self._steady)
            if progress < 0.5 and (short or fast):
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
