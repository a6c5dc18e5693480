"""Feedback that brings learned thresholds to a budget: how far to move together, and which limit pulls how hard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thresher.budget.planner import Planner
from thresher.budget.spending import entry_costs, excess
from thresher.config import check_share
from thresher.errors import InputError
from thresher.schedules import Cubic

_STEP = 2.0  # how far the shares of the limits move per unit of excess, at each measurement


def check_course(end: float, settle: float, plans: int, initial: float = 0.0) -> None:
    """Refuse shares outside (0, 1], a support that is frozen before the budget is in force, no plan at all."""
    check_share("end", end, closed=False)
    check_share("settle", settle, closed=False)
    check_share("initial", initial)
    if settle < end or plans < 1:
        raise InputError(
            f"end={end}, settle={settle}, plans={plans}", "end <= settle and at least one plan", "correct the course"
        )


def on_simplex(values: Sequence[float]) -> list[float]:
    """The nearest non-negative numbers that add up to 1.

    >>> on_simplex([0.75, 0.75])
    [0.5, 0.5]
    >>> on_simplex([1.5, 0.25])
    [1.0, 0.0]
    """
    total, surplus = 0.0, 0.0
    for count, value in enumerate(sorted(values, reverse=True), start=1):
        total += value
        if value - (total - 1) / count > 0:
            surplus = (total - 1) / count
    return [max(value - surplus, 0.0) for value in values]


def multiplier(shift: Tensor, drift: Tensor, slope: Tensor, force: Tensor, rate: float) -> Tensor:
    """lambda = Σ slope*(rate*shift + drift) / Σ slope*force: the multiplier of a penalty that moves x by lambda*force.

    To first order the layers then use as much less of the budget as if each had moved by `rate * shift`, the pull of
    the task (`drift`, what x loses per step) made up for.

    Shapes: (L,) or (1,) each; a scalar comes back, 0 where nothing responds.

    >>> one = torch.ones(2)
    >>> multiplier(torch.tensor([2.0]), torch.zeros(2), one, torch.tensor([1.0, 3.0]), 0.5).item()
    0.5
    """
    response = (slope * force).sum()
    wanted = (slope * (rate * shift + drift)).sum()
    return torch.where(response > 0, wanted / torch.where(response > 0, response, 1), 0)


class Steering:
    """Measures, at every `every`-th step, the cut among scores that meets the curve's share of the budget.

    Args:
        planner: the budget. steps: length of the run. end: share of the run at which the budget is in force.
        plans: measurements over the whole run. initial: share of the budget from the first step on.
        weight: the one limit ("sparsity", "flops" or "bytes") that says how the pull divides among the tensors; None:
            those of the budget, each by its share.

    `rate`: the share of a measured distance to cover per step, so that it is covered by the next measurement. Nothing
    is integrated, so nothing winds up: a distance is measured on the weights themselves, whatever their distribution.
    """

    def __init__(
        self,
        planner: Planner,
        *,
        steps: int,
        end: float,
        plans: int,
        initial: float = 0.0,
        weight: str | None = None,
    ) -> None:
        self.planner, self._weight = planner, weight
        self._last, self._initial, self._curve = max(round(end * steps), 1), initial, Cubic()
        self.every = max(steps // plans, 1)
        self.rate = min(1 / self.every, 0.5)
        limits = ("sparsity", "params", "flops", "bytes", "latency")
        names = [name for name in limits if getattr(planner.budget, name) is not None]
        # Zeros and parameters count the same entries, so they pull at the same places.
        self.shares = dict.fromkeys(names, 1 / len(names))

    @property
    def ready(self) -> bool:
        """Whether the costs that budget and weight ask for are known."""
        return not self.planner.needs_positions and (self._weight != "flops" or self.planner._costs is not None)

    def due(self, step: int) -> bool:
        """Whether to measure after this step."""
        return step == 1 or step % self.every == 0 or step == self._last

    def progress(self, step: int) -> float:
        """Share of the way to the budget that is asked for after `step` steps."""
        return self._initial + (1 - self._initial) * self._curve(min(step / self._last, 1.0))

    def cut(self, scores: Sequence[Tensor], step: int) -> float:
        """The score below which entries have to leave for the curve to be met at the next measurement; 0: none."""
        return self.planner.threshold(scores, self.progress(step + self.every))

    def balance(self, masks: Sequence[Tensor], step: int) -> None:
        """Dual ascent: each limit's share of the pull grows with its measured excess; the shares stay >= 0, sum 1."""
        if len(self.shares) > 1:
            over = excess(self.planner, masks, self.progress(step))
            most = max(over.values())
            moved = [share + _STEP * (over[name] - most) for name, share in self.shares.items()]
            self.shares = dict(zip(self.shares, on_simplex(moved), strict=True))

    def pull_shares(self) -> list[float]:
        """How a pull on all tensors divides among them now; sums to 1."""
        return pull_shares(self.planner, self.shares if self._weight is None else {self._weight: 1.0})

    def state_dict(self) -> dict[str, Any]:
        """The shares of the limits."""
        return {"shares": dict(self.shares)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume."""
        self.shares = {name: float(share) for name, share in state["shares"].items()}


def pull_shares(planner: Planner, limits: Mapping[str, float]) -> list[float]:
    """w_l = Σ_k share_k * n_l*cost_kl / Σ_j n_j*cost_kj: how a pull on all tensors divides among them; sums to 1.

    Args:
        limits: share of each limit in the pull, e.g. `{"sparsity": 0.25, "flops": 0.75}`.

    Errors: StateError for flops without output positions.
    """
    found = [0.0] * len(planner.targets)
    for name, share in limits.items():
        weights = [
            target.numel * cost for target, cost in zip(planner.targets, entry_costs(planner, name), strict=True)
        ]
        total = sum(weights) or 1.0
        found = [one + share * weight / total for one, weight in zip(found, weights, strict=True)]
    return found
