"""The exact projection: ties, bounds, guards, patterns, and every kind of limit checked against brute force."""

import itertools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from thresher.budget.language import Budget
from thresher.budget.planner import Planner
from thresher.errors import BudgetError, NumericsError, StateError
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


def in_order(scores: list[Tensor]) -> list[tuple[int, int]]:
    """(tensor, entry) in the order in which they leave; the last of each tensor stays."""
    entries = [(float(value), t, e) for t, score in enumerate(scores) for e, value in enumerate(score.flatten())]
    best = {(t, int(score.argmax())) for t, score in enumerate(scores)}
    return [(t, e) for _, t, e in sorted(entries) if (t, e) not in best]


def masks_without(gone: list[tuple[int, int]], scores: list[Tensor]) -> list[Tensor]:
    masks = [torch.ones_like(score, dtype=torch.bool) for score in scores]
    for tensor, entry in gone:
        masks[tensor].view(-1)[entry] = False
    return masks


COSTS = (7.0, 3.0)


def cost_of(kind: str, masks: list[Tensor]) -> float:
    if kind == "params":
        return kept(masks) + 8
    if kind == "flops":
        return sum(cost * int(mask.sum()) for cost, mask in zip(COSTS, masks, strict=True)) + 5
    return float(file_size(masks))


def file_size(masks: list[Tensor]) -> int:
    """A stand-in for the storage room: a header, and less for the second tensor."""
    return 100 + 4 * int(masks[0].sum()) + 3 * int(masks[1].sum())


@pytest.mark.parametrize(
    ("budget", "kinds"),
    [
        *((f"params={share}%", ["params"]) for share in (25, 50, 77, 100)),
        *((f"flops={share}%", ["flops"]) for share in (10, 50, 93, 100)),
        ("flops=100", ["flops"]),
        *((f"bytes={limit}", ["bytes"]) for limit in (110, 150, 199, 232)),
        ("params=60%,flops=40%", ["params", "flops"]),
        ("params=60%,flops=40%,bytes=150", ["params", "flops", "bytes"]),
        ("sparsity=30%,bytes=60%", ["bytes"]),
    ],
)
def test_the_largest_that_fits_is_found_and_one_more_weight_would_break_it(budget: str, kinds: list[str]) -> None:
    model = two_layers()
    planner = plan(model, budget, other_params=8, file_size=file_size)
    planner.set_positions({"0.weight": COSTS[0], "1.weight": COSTS[1]}, 5.0)
    scores = magnitudes(model, planner)
    solution = planner.solve(scores)
    order = in_order(scores)
    asked = Budget.parse(budget)
    dense_masks = masks_without([], scores)
    limits = {kind: getattr(asked, kind).limit(cost_of(kind, dense_masks)) for kind in kinds}

    def fits(masks: list[Tensor]) -> bool:
        zeros = 36 - kept(masks)
        enough = asked.sparsity is None or zeros >= int(asked.sparsity * 36 + 1e-9)
        return enough and all(cost_of(kind, masks) <= limit for kind, limit in limits.items())

    brute = next(count for count in itertools.count() if fits(masks_without(order[:count], scores)))
    expected = masks_without(order[:brute], scores)
    assert all(torch.equal(mask, other) for mask, other in zip(solution.keep, expected, strict=True))
    assert fits(list(solution.keep))
    assert brute == 0 or not fits(masks_without(order[: brute - 1], scores))


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("sparsity=99%", "from 0.0000% to 94.4444%"),
        ("params=0%", "from 10 (22.73%) to 44"),
        ("params=9", "from 10 (22.73%) to 44"),
    ],
)
def test_an_unreachable_budget_says_what_is_reachable(budget: str, said: str) -> None:
    with pytest.raises(BudgetError, match=re.escape(said)):
        plan(two_layers(), budget, other_params=8)


def test_an_unreachable_size_says_how_small_the_file_can_get() -> None:
    model = two_layers()
    planner = plan(model, "bytes=50", file_size=file_size)
    scores = magnitudes(model, planner)
    with pytest.raises(BudgetError, match="from 107 bytes to 232 bytes"):
        planner.solve(scores)


def test_an_unreachable_flops_budget_says_so_as_soon_as_positions_are_known() -> None:
    planner = plan(two_layers(), "flops=1%")
    assert planner.needs_positions
    with pytest.raises(BudgetError, match=re.escape("from 7.18% (15 multiply-adds) to 100%")):
        planner.set_positions({"0.weight": COSTS[0], "1.weight": COSTS[1]}, 5.0)


def test_flops_without_positions_cannot_be_solved() -> None:
    model = two_layers()
    planner = plan(model, "flops=50%")
    with pytest.raises(StateError, match="before any forward pass"):
        planner.solve(magnitudes(model, planner))


def test_bytes_need_a_way_to_measure() -> None:
    with pytest.raises(BudgetError, match="a way to measure the file"):
        plan(two_layers(), "bytes=100")
