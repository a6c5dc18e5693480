"""The last step of every method: its weights, cut exactly to the budget."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from thresher.attach import effective
from thresher.budget.planner import Planner
from thresher.contracts import Process
from thresher.errors import NumericsError
from thresher.targets import Target


def project(targets: Sequence[Target], process: Process, planner: Planner | None) -> tuple[list[Tensor], int]:
    """(final weight of each target, entries whose keep-or-prune state the budget changed); nothing is written.

    Without a planner what is zero now stays zero. Errors: NumericsError on NaN or infinity; those of Planner.solve.
    """
    before = [effective(target) != 0 for target in targets]
    keep = tuple(before) if planner is None else planner.solve(process.scores()).keep
    weights = []
    for number, (target, mask) in enumerate(zip(targets, keep, strict=True)):
        weight = process.export(number, mask)
        if not torch.isfinite(weight).all():
            raise NumericsError(
                f"{target.name} with NaN or infinity", "finite weights", "resume from the last good checkpoint"
            )
        weights.append(torch.where(mask, weight, weight.new_zeros(())))  # +0.0 everywhere: -0.0 would be stored
    return weights, sum(int((old ^ new).sum()) for old, new in zip(before, keep, strict=True))
