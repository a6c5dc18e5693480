"""The exact projection: ties, bounds, guards, patterns, and every kind of limit checked against brute force."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from thresher.budget.language import Budget
from thresher.budget.planner import Planner
from thresher.errors import BudgetError, NumericsError
from thresher.operators import parse_groups
from thresher.targets import Rule, bound, dense, select


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))


def plan(model: nn.Module, budget: str, *rules: Rule, groups: str = "weight", **more: object) -> Planner:
    pattern = parse_groups(groups)
    return Planner(Budget.parse(budget), select(model, rules, groups=pattern).targets, pattern, **more)  # type: ignore[arg-type]


def magnitudes(model: nn.Module, planner: Planner) -> list[Tensor]:
    weights = dict(model.named_parameters())
    return [planner.groups.magnitude(weights[target.name].detach()) for target in planner.targets]


def keep(model: nn.Module, budget: str, *rules: Rule, groups: str = "weight") -> list[Tensor]:
    planner = plan(model, budget, *rules, groups=groups)
    return list(planner.solve(magnitudes(model, planner)).keep)


def kept(masks: list[Tensor]) -> int:
    return sum(int(mask.sum()) for mask in masks)


@settings(deadline=None, max_examples=40)
@given(share=st.integers(0, 98), levels=st.integers(1, 50), seed=st.integers(0, 99))
def test_the_asked_number_stays_to_one_weight_ties_included(share: int, levels: int, seed: int) -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    planner = plan(model, f"sparsity={share}%")
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.randint(levels, target.shape, generator=generator).float() for target in planner.targets]
    wanted = 56 - share * 56 // 100
    solution = planner.solve(scores)
    assert sum(solution.kept) == kept(list(solution.keep)) == wanted
    # Nothing that left scores above what stayed freely (each tensor's best entry is guarded).
    free = torch.cat([score[mask & (score < score.max())] for score, mask in zip(scores, solution.keep, strict=True)])
    gone = torch.cat([score[~mask] for score, mask in zip(scores, solution.keep, strict=True)])
    if len(free) and len(gone):
        assert gone.max() <= free.min()
        assert gone.max() <= solution.threshold <= free.min()


def test_ties_leave_from_the_lowest_index() -> None:
    planner = plan(nn.Sequential(nn.Linear(4, 2)), "sparsity=37.5%")
    solution = planner.solve([torch.ones(2, 4)])
    # The first entry is the tensor's best (of equals) and guarded; the next three leave.
    assert solution.keep[0].tolist() == [[True, False, False, False], [True, True, True, True]]


def test_zero_percent_keeps_everything_even_zeros() -> None:
    planner = plan(two_layers(), "sparsity=0%")
    solution = planner.solve([torch.zeros(target.shape) for target in planner.targets])
    assert sum(solution.kept) == 36
    assert solution.threshold == 0.0


def test_a_hundred_percent_takes_everything_and_the_threshold_stays_finite() -> None:
    model = two_layers()
    planner = plan(model, "sparsity=100%")
    scores = magnitudes(model, planner)
    solution = planner.solve(scores)
    assert sum(solution.kept) == 0
    assert solution.threshold == max(float(score.max()) for score in scores)


def test_below_a_hundred_percent_no_tensor_empties() -> None:
    planner = plan(two_layers(), "sparsity=94%")
    solution = planner.solve([torch.full((6, 4), 9.0), torch.full((2, 6), 1e-9)])
    assert solution.kept == (2, 1)


def test_a_fraction_goes_part_of_the_way() -> None:
    planner = plan(two_layers(), "sparsity=50%")
    scores = [torch.rand(target.shape) for target in planner.targets]
    assert [sum(planner.solve(scores, share).kept) for share in (0.0, 0.5, 1.0)] == [36, 27, 18]


def test_nan_is_refused_and_infinity_stays() -> None:
    planner = plan(two_layers(), "sparsity=50%")
    scores = [torch.rand(6, 4), torch.rand(2, 6)]
    scores[0][2, 2] = torch.inf
    assert planner.solve(scores).keep[0][2, 2]
    scores[1][0, 0] = torch.nan
    with pytest.raises(NumericsError, match="target number 1"):
        planner.solve(scores)


def test_bounds_hold_whatever_the_scores() -> None:
    model = two_layers()
    planner = plan(model, "sparsity=40%", bound("0", max=0.25), bound("1", min=0.9))
    for scale in (1e-6, 1.0, 1e6):
        solution = planner.solve([torch.rand(6, 4) * scale, torch.rand(2, 6)])
        assert solution.kept[0] >= 18
        assert solution.kept[1] <= 1
    with pytest.raises(BudgetError, match=re.escape("from 30.5556% to 47.2222%")):
        plan(model, "sparsity=50%", bound("0", max=0.25), bound("1", min=11 / 12))


def test_a_dense_layer_loses_nothing() -> None:
    masks = keep(two_layers(), "sparsity=60%", dense("1"))
    assert masks[1].all()
    assert kept(masks) == 36 - 21


def test_a_least_sparsity_holds_where_the_budget_alone_asks_for_nothing() -> None:
    assert kept(keep(two_layers(), "params=100%", bound("0", min=0.5))) == 12 + 12


def test_a_tensor_may_be_emptied_by_its_own_rule_only() -> None:
    masks = keep(two_layers(), "sparsity=80%", bound("1", min=1.0))
    assert not masks[1].any()
    assert kept(masks) == 8


def test_every_depthwise_filter_stays_alive() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1))
    planner = plan(model, "sparsity=95%")
    scores = [torch.rand(8, 1, 3, 3) * 1e-6, torch.rand(16, 8, 1, 1)]
    solution = planner.solve(scores)
    assert solution.kept == (8, 2)
    assert (solution.keep[0].flatten(1).sum(1) == 1).all()
    best = scores[0].flatten(1).argmax(1)
    assert solution.keep[0].flatten(1)[torch.arange(8), best].all()


def test_depthwise_filters_stay_alive_in_blocks_too() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1))
    planner = plan(model, "sparsity=80%", groups="block:4x1")
    scores = [planner.groups.magnitude(torch.rand(target.shape)) for target in planner.targets]
    solution = planner.solve([scores[0] * 1e-6, scores[1]])
    assert solution.keep[0].flatten(1).any(1).all()


def test_two_of_four_survive_and_no_more_can_go() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.Conv2d(4, 4, 3))
    for scores in (None, "zeros"):
        planner = plan(model, "sparsity=50%", groups="2:4")
        shapes = [target.shape for target in planner.targets]
        solution = planner.solve([torch.zeros(shape) if scores else torch.rand(shape) for shape in shapes])
        linear, conv = solution.keep
        assert (linear.reshape(6, 2, 4).sum(2) == 2).all()
        assert (conv.sum(1) == 2).all()
    with pytest.raises(BudgetError, match=re.escape("to 50.0000%")):
        plan(model, "sparsity=51%", groups="2:4")


@pytest.mark.parametrize(("groups", "share", "left"), [("row", 50, 12), ("row", 40, 12), ("block:2x1", 50, 12)])
def test_groups_leave_whole_and_the_most_that_fits_stays(groups: str, share: int, left: int) -> None:
    model = nn.Sequential(nn.Linear(4, 6))
    (mask,) = keep(model, f"sparsity={share}%", groups=groups)
    assert int(mask.sum()) == left
    index = parse_groups(groups).index(model[0].weight)
    for group in range(int(index.max()) + 1):
        assert len(set(mask[index == group].tolist())) == 1


def test_a_row_budget_that_would_break_a_bound_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(BudgetError, match=re.escape("to 33.3333%")):
        plan(model, "sparsity=50%", bound("0", max=0.5), groups="row")
