"""d_t = the quantile of |theta| that a rising sparsity asks for: one threshold law for every operator with regrowth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from thresher.attach import latent
from thresher.config import check_share
from thresher.contracts import Job
from thresher.errors import BudgetError, InputError
from thresher.methods.masked import MaskableProcess, freeze_at_budget, load_masks, saved_masks
from thresher.methods.scheduled.shells import ThresholdShell, scaled_magnitudes, weight_on, within_bounds
from thresher.schedules import Schedule

Operator = Callable[..., Tensor]
OperatorFor = Callable[[float], Operator]


def check_window(end: float, settle: float, updates: int | None) -> None:
    """Refuse shares outside (0, 1], a support that is frozen before the budget is in force, no update at all."""
    check_share("end", end, closed=False)
    check_share("settle", settle, closed=False)
    if settle < end or (updates is not None and updates < 1):
        raise InputError(
            f"end={end}, settle={settle}, updates={updates}",
            "end <= settle and at least one update",
            "correct the schedule",
        )


class QuantileProcess(MaskableProcess[ThresholdShell]):
    """Puts the threshold where the curve's sparsity is met, as often as `updates` says; every entry may return.

    Args:
        operator_for: sparsity that the budget ends in -> `(theta, threshold, groups=) -> w`, straight through.
        curve: share of the budget against share of the run up to `end`. end: share of the run at which the budget
            is in force. settle: share of the run at which the support is frozen (1: never before the end).
        updates: how often the quantile is taken over the whole run; None: 2000 times, 200 under a `bytes` budget.
        ratios: threshold of each target relative to the common one.
    """

    def __init__(
        self,
        job: Job,
        operator_for: OperatorFor,
        *,
        curve: Schedule,
        end: float,
        settle: float,
        updates: int | None,
        ratios: Sequence[float] | None = None,
    ) -> None:
        if job.planner is None:
            raise BudgetError("no budget", "one", 'pass budget="sparsity=90%" to thresher.prune')
        self._job, self._planner = job, job.planner
        self._curve = curve
        self._end, self._last = max(round(end * job.steps), 1), max(round(settle * job.steps), 1)
        self._settles = settle < 1
        if updates is None:
            budget = job.planner.budget  # each update searches for the sizes that meet it
            updates = 2000 if budget.bytes is None and budget.latency is None else 200
        self._every = max(job.steps // updates, 1)
        self._ratios = list(ratios or [1.0] * len(job.targets))
        self._operator_for = operator_for
        self._sparsity: float | None = None
        first = operator_for(0.0)
        self._shells = [ThresholdShell(job.groups, latent(target), first) for target in job.targets]
        self._held = [0.0] * len(job.targets)
        self.touched_at_freeze = 0

    def advance(self, step: int, rates: Sequence[float]) -> None:
        """Take the quantile when it is due; freeze the support when its time has come."""
        if self.frozen or step > self._job.steps or self._planner.needs_positions:
            return
        if self._sparsity is None:
            self._decide(1 - sum(self._planner.solve(self.scores()).kept) / self._planner.entries)
        if step == 0:
            return
        if step % self._every == 0 or step in (self._end, self._last, self._job.steps):
            self._take(self._curve(min(step / self._end, 1.0)))
        if self._settles and step >= self._last:
            self.touched_at_freeze = freeze_at_budget(
                self._job.targets, self._shells, self._planner, self.scores(), self.export
            )

    def _decide(self, sparsity: float) -> None:
        self._sparsity = sparsity
        operator = self._operator_for(sparsity)
        for shell in self._shells:
            shell.operator = operator

    def _take(self, fraction: float) -> None:
        common = self._planner.threshold(self.scores(), fraction)
        for number, (target, shell) in enumerate(zip(self._job.targets, self._shells, strict=True)):
            held = within_bounds(common * self._ratios[number], target, self._job.groups, fraction)
            self._held[number] = held
            shell.threshold.fill_(held)

    def scores(self) -> list[Tensor]:
        """Magnitudes in units of the common threshold."""
        return scaled_magnitudes(self._job.targets, self._shells, self._job.groups, self._ratios)

    def thresholds(self) -> list[float]:
        """The threshold of each target, in weight units; the last one once the support is fixed."""
        return list(self._held)

    def export(self, number: int, keep: Tensor) -> Tensor:
        """The effective weight on `keep`; what the budget keeps although it is thresholded gets next to nothing."""
        return weight_on(keep, self._job.targets[number], self._shells[number])

    def state_dict(self) -> dict[str, Any]:
        """Thresholds and masks."""
        return {
            "held": list(self._held),
            "sparsity": self._sparsity,
            "masks": saved_masks(self._shells),
            "touched_at_freeze": self.touched_at_freeze,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume."""
        if state["sparsity"] is not None:
            self._decide(state["sparsity"])
        self._held, self.touched_at_freeze = [float(value) for value in state["held"]], state["touched_at_freeze"]
        for shell, held in zip(self._shells, self._held, strict=True):
            shell.threshold.fill_(held)
        load_masks(self._job.targets, self._shells, state["masks"])
