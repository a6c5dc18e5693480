"""Parameters, multiply-adds and bytes: the largest network that fits, against brute force; what cannot be reached."""

import itertools
import re

import pytest
import torch
from torch import Tensor, nn

from thresher.budget.language import Budget
from thresher.budget.planner import Planner
from thresher.errors import BudgetError, StateError
from thresher.operators import parse_groups
from thresher.targets import Rule, select


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))


def plan(model: nn.Module, budget: str, *rules: Rule, groups: str = "weight", **more: object) -> Planner:
    pattern = parse_groups(groups)
    return Planner(Budget.parse(budget), select(model, rules, groups=pattern).targets, pattern, **more)  # type: ignore[arg-type]


def magnitudes(model: nn.Module, planner: Planner) -> list[Tensor]:
    weights = dict(model.named_parameters())
    return [planner.groups.magnitude(weights[target.name].detach()) for target in planner.targets]


def kept(masks: list[Tensor]) -> int:
    return sum(int(mask.sum()) for mask in masks)


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
