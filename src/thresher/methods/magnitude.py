"""w = theta * 1[|theta| among the largest]: magnitude pruning, in one shot or gradually along the cubic curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from thresher.attach import latent
from thresher.budget.ranking import rank_within
from thresher.config import check_share
from thresher.contracts import Job
from thresher.errors import BudgetError, InputError
from thresher.methods.masked import MaskableProcess, MaskShell, load_masks, saved_masks
from thresher.schedules import Cubic

Scope = Literal["global", "layer"]


def check_scope(scope: str) -> None:
    """Refuse anything but the two scopes."""
    if scope not in ("global", "layer"):
        raise InputError(f"scope={scope!r}", "'global' or 'layer'", "correct the scope")


@dataclass(frozen=True, kw_only=True)
class Magnitude:
    """Zero the smallest |theta| at once, then train on the fixed support.

    Args:
        scope: one ranking over all tensors (`global`), or the same sparsity in each (`layer`).

    Source: methods of magnitude pruning as in Han et al. 2015; ties leave in order of the lowest flat index.
    """

    name: ClassVar[str] = "magnitude"
    scope: Scope = "global"

    def __post_init__(self) -> None:
        check_scope(self.scope)

    def begin(self, job: Job) -> MaskProcess:
        """Start on a model; the mask is set at step 0."""
        return MaskProcess(job, [0.0], scope=self.scope)


@dataclass(frozen=True, kw_only=True)
class Gmp:
    """Gradual magnitude pruning: sparsity follows `s_f * (1 - (1 - u)^3)` between `start` and `end` of the run.

    Args:
        start, end: shares of the run in which sparsity grows; afterwards the support is fixed.
        updates: how often the mask is recomputed in between.
        scope: one ranking over all tensors, or the same sparsity in each.
        allow_regrow: let pruned entries return when the mask is recomputed; they receive no gradient meanwhile.

    Source: Zhu and Gupta 2017 (arXiv 1710.01878).
    """

    name: ClassVar[str] = "gmp"
    start: float = 0.0
    end: float = 0.5
    updates: int = 100
    scope: Scope = "global"
    allow_regrow: bool = False

    def __post_init__(self) -> None:
        check_share("start", self.start)
        check_share("end", self.end)
        check_scope(self.scope)
        if self.start >= self.end or self.updates < 1:
            raise InputError(
                f"start={self.start}, end={self.end}, updates={self.updates}",
                "start < end and at least one update",
                "correct the schedule",
            )

    def begin(self, job: Job) -> MaskProcess:
        """Start on a model."""
        curve = Cubic()
        first, last = round(self.start * job.steps), max(round(self.end * job.steps), 1)
        span = max(last - first, 1)
        every = max(span // self.updates, 1)
        when: list[float | None] = [None] * (last + 1)
        for step in range(first + every, last + 1, every):
            when[step] = curve((step - first) / span)
        when[last] = 1.0
        return MaskProcess(job, when, scope=self.scope, allow_regrow=self.allow_regrow)


@dataclass(frozen=True, kw_only=True)
class Random:
    """Keep entries drawn at random (seeded), at once: the floor that every method must beat."""

    name: ClassVar[str] = "random"
    seed: int = 0
    scope: Scope = "global"

    def __post_init__(self) -> None:
        check_scope(self.scope)

    def begin(self, job: Job) -> MaskProcess:
        """Start on a model; the mask is set at step 0."""
        return MaskProcess(job, [0.0], scope=self.scope, seed=self.seed)


class MaskProcess(MaskableProcess[MaskShell]):
    """Recomputes the mask at the steps that `when` names, to that fraction of the budget."""

    def __init__(
        self,
        job: Job,
        when: Sequence[float | None],
        *,
        scope: Scope,
        allow_regrow: bool = False,
        seed: int | None = None,
    ) -> None:
        if job.planner is None:
            raise BudgetError("no budget", "a budget such as 'sparsity=90%'", "pass budget= to thresher.prune")
        self._job, self._planner, self._scope, self._regrow = job, job.planner, scope, allow_regrow
        # One shot is written [0.0]: at step 0, the whole way.
        self._when = [1.0] if list(when) == [0.0] else list(when)
        self._shells = [MaskShell() for _ in job.targets]
        self._thresholds = [0.0] * len(job.targets)
        self._due: float | None = None
        self._settled = False
        self._seed = seed

    def advance(self, step: int, rates: Sequence[float]) -> None:
        """Recompute the mask when this step is due (or was, while output positions were still unknown)."""
        if step < len(self._when) and self._when[step] is not None:
            self._due = self._when[step]
        if self._due is None or self._planner.needs_positions:
            return
        solution = self._planner.solve(self.scores(), self._due)
        self._due, self._settled = None, step >= len(self._when) - 1
        for number, (shell, keep) in enumerate(zip(self._shells, solution.keep, strict=True)):
            pruned = self._magnitude(number)[~keep]  # before the mask changes: what leaves now still has its size
            shell.set_mask(keep)
            if pruned.numel():
                self._thresholds[number] = max(self._thresholds[number], float(pruned.max()))

    def _magnitude(self, number: int) -> Tensor:
        theta = latent(self._job.targets[number]).detach()
        mask = self._shells[number].mask
        if mask is not None and (self._settled or not self._regrow):
            theta = theta * mask
        return self._job.groups.magnitude(theta.float())

    def scores(self) -> list[Tensor]:
        """Magnitudes (0 where pruned, unless entries may return), or seeded noise; ranks for scope `layer`."""
        found = []
        for number, target in enumerate(self._job.targets):
            if self._seed is None:
                score = self._magnitude(number)
            else:
                generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
                score = torch.rand(target.shape, generator=generator).to(latent(target).device) + 1e-6
                score = self._job.groups.magnitude(score)
            found.append(rank_within(score) if self._scope == "layer" else score)
        return found

    def thresholds(self) -> list[float]:
        """The largest magnitude pruned so far."""
        return list(self._thresholds)

    def export(self, number: int, keep: Tensor) -> Tensor:
        """theta on the support."""
        return latent(self._job.targets[number]).detach() * keep

    def state_dict(self) -> dict[str, Any]:
        """Masks are in the model; this is the rest."""
        return {
            "thresholds": list(self._thresholds),
            "due": self._due,
            "settled": self._settled,
            "masks": saved_masks(self._shells),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume."""
        self._thresholds, self._due, self._settled = list(state["thresholds"]), state["due"], state["settled"]
        load_masks(self._job.targets, self._shells, state["masks"])
