"""How far a threshold moves at each step, as a share of the schedule, and how much of the schedule is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from thresher.schedules import Coupled, parse_schedule


class Pace:
    """A schedule read step by step.

    A coupled schedule moves by the learning rates that really occur (times beta^(k/N)), so that the L1 coefficient
    is exact; what is left is the forecast, scaled by how the present rate compares with its forecast. Every other
    schedule moves by the differences of its table.

    Args:
        schedule: text of `thresher.schedules.parse_schedule`.
        forecast: expected effective learning rates, one per step.
    """

    def __init__(self, schedule: str, forecast: Sequence[float]) -> None:
        curve = parse_schedule(schedule)
        self._steps = len(forecast)
        self._forecast = torch.as_tensor(forecast, dtype=torch.float64).clamp(min=0)
        self._highest = 0.0
        if not float(self._forecast.sum()):  # nothing is known: a constant rate, in units that only ratios have
            self._forecast, self._highest = torch.ones(self._steps, dtype=torch.float64), math.inf
        self._coupled = isinstance(curve, Coupled)
        if isinstance(curve, Coupled):
            progress = torch.arange(self._steps, dtype=torch.float64) / self._steps
            self._decay: Tensor = curve.beta**progress
            self._table = torch.cat([torch.zeros(1, dtype=torch.float64), (self._forecast * self._decay).cumsum(0)])
        else:
            self._decay = torch.ones(self._steps, dtype=torch.float64)
            self._table = curve.table(self._steps, self._forecast)

    @property
    def whole(self) -> float:
        """The schedule's whole length in its own units."""
        return float(self._table[-1])

    def step(self, step: int, rate: float) -> tuple[float, float]:
        """(move of step `step`, what is left after it); steps count from 1. `rate`: effective learning rate used."""
        if not 1 <= step <= self._steps:
            return 0.0, 0.0
        left = float(self._table[-1] - self._table[step])
        if not self._coupled:
            return float(self._table[step] - self._table[step - 1]), left
        expected = float(self._forecast[step - 1])
        # A rate below its forecast that is still the highest so far is a warm-up, which says nothing of those to come.
        warming = self._highest <= rate < expected
        self._highest = max(self._highest, rate)
        ratio = rate / expected if rate > 0 and expected > 0 and not warming else 1.0
        return rate * float(self._decay[step - 1]), left * ratio

    def state_dict(self) -> dict[str, Any]:
        """The forecast, what was derived from it, and the highest rate seen."""
        return {
            "forecast": self._forecast,
            "decay": self._decay,
            "table": self._table,
            "highest": self._highest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume with the forecast of the run's start."""
        self._forecast, self._decay, self._table = state["forecast"], state["decay"], state["table"]
        self._steps, self._highest = len(self._forecast), float(state["highest"])
