"""w = S_d(theta), gradient straight through, d raised after every step: scheduled soft thresholds (LATS)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from thresher.attach import latent
from thresher.budget.control import RecedingHorizon
from thresher.config import check_positive, check_share
from thresher.contracts import Job
from thresher.errors import BudgetError, InputError
from thresher.methods.masked import MaskableProcess, freeze, freeze_at_budget, load_masks, saved_masks
from thresher.methods.scheduled.pace import Pace
from thresher.methods.scheduled.rewind import Snapshot
from thresher.methods.scheduled.shells import ThresholdShell, scaled_magnitudes, weight_on, within_bounds
from thresher.schedules import parse_schedule

Mode = Literal["during", "early", "init"]
_SETTLE = {"during": 0.95, "early": 0.7, "init": 0.1}


@dataclass(frozen=True, kw_only=True)
class Lats:
    """Soft threshold pruning seen as ISTA: `w = S_d(theta)`, and d rises so that the L1 coefficient stays steady.

    Args:
        schedule: the curve of d as a share of its end value, see `thresher.schedules`: "coupled" (follows the
            learning rate, so that lambda is constant under any scheduler; "coupled:beta=0.1" lets lambda decay),
            "slats", "lats:epochs=100", "pgh:beta=0.01", "linear", "cubic", ...
        mode: "during" thresholds for the whole of training, but for a last twentieth on the fixed support that makes
            up for the exact projection (`settle=1` leaves it out); "early" freezes the support at `settle` and trains
            the survivors without shrinkage from there; "init" thresholds for a short while from the random start,
            keeps only the support, rewinds every weight to its start and trains sparse.
        settle: share of the run at which the support is fixed (default 0.95, 0.7, 0.1 by mode).
        threshold: end value D, in weight units. l1: the L1 coefficient lambda (coupled schedules only). With
            neither, a controller finds what the budget needs.
        plans: how often the controller looks, over the whole run.

    With SGD, lambda = (1 - momentum) * (d_{t+1} - d_t) / lr exactly; with Adam and others the same schedule acts
    in the preconditioned metric and lambda is nominal. Weight decay w on theta adds w * d to lambda.

    Source: LATS, S-LATS and PGH as in methods of soft threshold pruning (scheduled ISTA); lr-coupling derived here.

    >>> Lats(schedule="pgh:beta=0.01", mode="early").settle_at
    0.7

    Errors: InputError on unknown modes or schedules, shares outside (0, 1], both threshold and l1.
    """

    name: ClassVar[str] = "lats"
    schedule: str = "coupled"
    mode: Mode = "during"
    settle: float | None = None
    threshold: float | None = None
    l1: float | None = None
    plans: int = 40

    def __post_init__(self) -> None:
        parse_schedule(self.schedule)
        if self.mode not in _SETTLE:
            raise InputError(f"mode={self.mode!r}", "'during', 'early' or 'init'", "correct the mode")
        check_share("settle", self.settle_at, closed=False)
        if self.threshold is not None and not 0 <= self.threshold < float("inf"):
            raise InputError(f"threshold={self.threshold!r}", "a finite number, not negative", "correct it")
        if self.l1 is not None:
            check_positive("l1", self.l1)
            if self.threshold is not None or not self.schedule.startswith("coupled"):
                raise InputError(
                    f"l1={self.l1} with threshold={self.threshold}, schedule={self.schedule!r}",
                    "l1 alone, with a coupled schedule",
                    "drop one of them",
                )
        if self.plans < 1:
            raise InputError(f"plans={self.plans}", "at least 1", "correct plans")

    @property
    def settle_at(self) -> float:
        """Share of the run at which the support is fixed."""
        return _SETTLE[self.mode] if self.settle is None else self.settle

    def begin(self, job: Job) -> LatsProcess:
        """Start on a model."""
        return LatsProcess(self, job)


class LatsProcess(MaskableProcess[ThresholdShell]):
    """Moves the thresholds, re-plans their pace, freezes and rewinds as the mode says."""

    def __init__(self, config: Lats, job: Job) -> None:
        if job.planner is None and config.threshold is None and config.l1 is None:
            raise BudgetError(
                "no budget, threshold or l1", "one of them", 'pass budget="sparsity=90%" to thresher.prune'
            )
        self._config, self._job = config, job
        self._last = max(round(config.settle_at * job.steps), 1)
        self._pace = Pace(config.schedule, job.forecast[: self._last] or [1.0])
        self._horizon = RecedingHorizon(steady=config.mode == "during")
        self._moved = [0.0] * len(job.targets)
        self._held = list(self._moved)  # what is in force: `_moved` within the bounds of each tensor's rules
        self._scale: float | None = None if config.threshold is None else config.threshold / self._pace.whole
        self._every = max(self._last // config.plans, 1)
        self._shells = [ThresholdShell(job.groups, latent(target)) for target in job.targets]
        self._snapshot: Snapshot | None = None
        self.touched_at_freeze = 0

    def advance(self, step: int, rates: Sequence[float]) -> None:
        """Move every threshold by its share of the plan; freeze when the support's time has come."""
        if step == 0 and self._config.mode == "init" and not self.frozen:
            self._snapshot = Snapshot(self._job.model)
        if step == 0 or self.frozen:
            return
        if step <= self._last:
            base = max(rates)
            move, left = self._pace.step(step, base)
            scale = self._planned(step, left + move, base)
            for number, rate in enumerate(rates):
                self._moved[number] += scale * move * (rate / base if base > 0 else 1.0)
                self._hold(number, step / self._last)
        if step >= self._last and self._config.settle_at < 1:
            self._freeze()

    def _hold(self, number: int, progress: float) -> None:
        target, groups = self._job.targets[number], self._job.groups
        self._held[number] = within_bounds(self._moved[number], target, groups, progress)
        self._shells[number].threshold.fill_(self._held[number])

    def _planned(self, step: int, left: float, rate: float) -> float:
        """Threshold travel per unit of schedule."""
        if self._config.l1 is not None:
            return self._config.l1  # coupled: travel per unit of effective rate is lambda itself
        if self._config.threshold is not None or self._job.planner is None or self._job.planner.needs_positions:
            return self._scale or 0.0
        if left <= 0:  # a warm-up from 0 that fills the whole schedule: nothing to divide the travel by
            return self._scale or 0.0
        if self._scale is None:
            solution = self._job.planner.solve(self.scores())
            density = sum(solution.kept) / self._job.planner.entries
            self._scale = self._horizon.start(solution.threshold, left, density)
        elif step % self._every == 0 and left > 0.03 * self._pace.whole:
            quantile = self._job.planner.threshold(self.scores())
            self._scale = self._horizon.replan(quantile, max(self._moved), left, step / self._last)
        return self._scale

    def _ratios(self) -> list[float]:
        base = max(self._moved)
        # Before anything moved, and for groups whose learning rate is 0, every threshold counts alike.
        return [max(moved / base, 1e-3) if base > 0 else 1.0 for moved in self._moved]

    def scores(self) -> list[Tensor]:
        """Magnitudes in units of the largest threshold, so that one cut ranks parameter groups of any learning rate."""
        return scaled_magnitudes(self._job.targets, self._shells, self._job.groups, self._ratios())

    def thresholds(self) -> list[float]:
        """The threshold of each target, in weight units; the last one once the support is fixed."""
        return list(self._held)

    def _freeze(self) -> None:
        targets, shells = self._job.targets, self._shells
        self.touched_at_freeze = freeze_at_budget(targets, shells, self._job.planner, self.scores(), self.export)
        if self._snapshot is not None:
            self._snapshot.restore(self._job.model, self._job.optimizer)
            keep = tuple(shell.mask for shell in shells if shell.mask is not None)
            freeze(targets, list(shells), keep, [latent(target).detach() for target in targets])
            self._snapshot = None

    def export(self, number: int, keep: Tensor) -> Tensor:
        """The effective weight on `keep`; what the budget keeps although it is thresholded gets next to nothing."""
        return weight_on(keep, self._job.targets[number], self._shells[number])

    def state_dict(self) -> dict[str, Any]:
        """Thresholds travelled, the plan, the mask, and the snapshot while there is one."""
        return {
            "moved": list(self._moved),
            "held": list(self._held),
            "scale": self._scale,
            "pace": self._pace.state_dict(),
            "horizon": self._horizon.state_dict(),
            "masks": saved_masks(self._shells),
            "snapshot": self._snapshot.tensors if self._snapshot is not None else None,
            "touched_at_freeze": self.touched_at_freeze,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume."""
        self._moved, self._scale = [float(value) for value in state["moved"]], state["scale"]
        self._pace.load_state_dict(state["pace"])
        self._horizon.load_state_dict(state["horizon"])
        self.touched_at_freeze = state["touched_at_freeze"]
        self._held = [float(value) for value in state["held"]]
        for shell, held in zip(self._shells, self._held, strict=True):
            shell.threshold.fill_(held)
        load_masks(self._job.targets, self._shells, state["masks"])
        self._snapshot = None if state["snapshot"] is None else Snapshot(self._job.model, state["snapshot"])
