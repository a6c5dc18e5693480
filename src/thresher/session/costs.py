"""The budget of one model: its planner, and what each tensor costs once output positions are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from thresher.attach import latent
from thresher.budget.counts import counted_weights
from thresher.budget.language import Budget
from thresher.budget.latency import LatencyTable
from thresher.budget.planner import Planner
from thresher.operators import Groups
from thresher.session.measure import file_size_of
from thresher.targets import Target


def planner_of(
    model: nn.Module,
    targets: Sequence[Target],
    groups: Groups,
    budget: Budget,
    record: dict[str, Any] | None,
    latency: LatencyTable | None = None,
) -> Planner:
    """The planner of a still plain model. Errors: BudgetError when the budget is out of reach."""
    total = sum(parameter.numel() for parameter in model.parameters())
    planner = Planner(
        budget,
        targets,
        groups,
        other_params=total - sum(target.numel for target in targets),
        file_size=file_size_of(model, targets, record) if budget.bytes is not None else None,
        latency=latency,
    )
    if budget.bytes is not None and budget.flops is None:
        # How small the file can get is known only by trying: better now than at the first step.
        planner.solve([groups.magnitude(latent(target).detach()) for target in targets])
    return planner


def costs_of(
    model: nn.Module, targets: Sequence[Target], positions: Mapping[str, float]
) -> tuple[dict[str, float], float]:
    """(P_l of each target by name, multiply-adds outside the targets). A tied weight costs at each of its sites."""
    weights = counted_weights(model)
    place = {(id(module), tensor): name for name, (module, tensor) in weights.items()}
    costs = {
        target.name: sum(positions.get(place.pop((id(module), tensor), ""), 0.0) for module, tensor in target.sites)
        for target in targets
    }
    fixed = sum(positions.get(name, 0.0) * _numel(*weights[name]) for name in place.values())
    return costs, fixed


def _numel(module: nn.Module, tensor: str) -> int:
    weight: Any = getattr(module, tensor)
    return int(weight.numel())
