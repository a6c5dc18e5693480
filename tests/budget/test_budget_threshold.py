"""The short way to a threshold gives the number of the long way."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thresher.budget.language import Budget
from thresher.budget.planner import Planner
from thresher.errors import NumericsError
from thresher.operators import parse_groups
from thresher.targets import bound, select


def planner_and_scores(
    budget: str, *, ties: bool = False, rules: tuple[object, ...] = ()
) -> tuple[Planner, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 3), nn.Linear(8, 5))
    groups = parse_groups("weight")
    targets = select(model, rules, groups=groups).targets  # type: ignore[arg-type]
    scores = [torch.rand(target.shape) for target in targets]
    if ties:
        scores = [(score * 4).round() / 4 for score in scores]
    return Planner(Budget.parse(budget), targets, groups, other_params=17), scores


@pytest.mark.parametrize("fraction", [0.0, 1e-5, 0.4, 1.0])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    "budget",
    [
        "sparsity=0%",
        "sparsity=1%",
        "sparsity=50%",
        "sparsity=90%",
        "sparsity=100%",
        "params=30%",
        "sparsity=10%,params=40%",
    ],
)
def test_the_short_way_agrees_with_the_projection(budget: str, ties: bool, fraction: float) -> None:
    planner, scores = planner_and_scores(budget, ties=ties)
    assert planner.threshold(scores, fraction) == planner.solve(scores, fraction).threshold


def test_rules_and_their_bounds_are_heeded() -> None:
    planner, scores = planner_and_scores("sparsity=40%", rules=(bound("1", max=0.35),))
    assert planner.threshold(scores) == planner.solve(scores).threshold


def test_nan_is_refused() -> None:
    planner, scores = planner_and_scores("sparsity=50%")
    scores[1][0] = float("nan")
    with pytest.raises(NumericsError):
        planner.threshold(scores)
