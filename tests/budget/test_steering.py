"""Steering: what the measurements say, how several limits share a pull, which courses are refused."""

import pytest
import torch
from torch import nn

from thresher.budget.language import Budget
from thresher.budget.planner import Planner
from thresher.budget.spending import entry_costs, excess
from thresher.budget.steering import Steering, check_course, multiplier, on_simplex, pull_shares
from thresher.errors import InputError, StateError
from thresher.operators import UNSTRUCTURED
from thresher.targets import select


def planner(budget: str, positions: bool = True) -> Planner:
    targets = select(nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 30))).targets
    found = Planner(Budget.parse(budget), targets, UNSTRUCTURED, other_params=40)
    if positions:
        found.set_positions({"0.weight": 9.0, "1.weight": 1.0}, 100.0)
    return found


def masks(first: int, second: int) -> list[torch.Tensor]:
    return [torch.arange(100).reshape(10, 10) < first, torch.arange(300).reshape(30, 10) < second]


def test_the_cut_follows_the_cubic_curve_one_measurement_ahead() -> None:
    steering = Steering(planner("sparsity=50%"), steps=100, end=0.5, plans=20)
    scores = [torch.arange(300.0, 400.0).reshape(10, 10), torch.arange(300.0).reshape(30, 10)]
    assert (steering.every, steering.rate) == (5, 0.2)
    for step in (0, 20, 45, 50, 90):
        curve = 1 - (1 - min((step + 5) / 50, 1.0)) ** 3
        assert steering.cut(scores, step) == pytest.approx(int(200 * curve + 1e-9) - 0.5)
    assert [step for step in range(12) if steering.due(step)] == [0, 1, 5, 10]
    assert steering.due(50)


def test_an_initial_share_holds_from_the_first_step() -> None:
    steering = Steering(planner("sparsity=80%"), steps=100, end=0.5, plans=100, initial=0.6)
    assert steering.progress(0) == 0.6
    assert steering.progress(50) == steering.progress(70) == 1.0


def test_a_short_run_measures_at_each_step_and_covers_half_of_the_way() -> None:
    steering = Steering(planner("sparsity=80%"), steps=12, end=0.5, plans=200)
    assert (steering.every, steering.rate) == (1, 0.5)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([1.0], [1.0]),
        ([0.2], [1.0]),
        ([0.5, 0.5], [0.5, 0.5]),
        ([2.0, 1.0], [1.0, 0.0]),
        ([-1.0, -1.0], [0.5, 0.5]),
        ([0.9, 0.3, -5.0], [0.8, 0.2, 0.0]),
    ],
)
def test_the_nearest_shares_are_found(given: list[float], wanted: list[float]) -> None:
    assert on_simplex(given) == pytest.approx(wanted)


def test_the_nearest_shares_are_nearest() -> None:
    torch.manual_seed(0)
    for _ in range(20):
        point = torch.randn(4, dtype=torch.float64)
        best = torch.tensor(on_simplex(point.tolist()), dtype=torch.float64)
        others = torch.distributions.Dirichlet(torch.ones(4, dtype=torch.float64)).sample((500,))
        assert float((best - point).norm()) <= float((others - point).norm(dim=1).min()) + 1e-12


def test_excess_is_counted_against_each_limit_on_its_way() -> None:
    one = planner("sparsity=50%,params=75%,flops=50%")
    found = excess(one, masks(50, 150))
    assert found["sparsity"] == 0
    assert found["params"] == pytest.approx((240 - 330) / 440)
    assert found["flops"] == pytest.approx((100 + 450 + 150 - 650) / 1300)
    halfway = excess(one, masks(100, 300), fraction=0.5)
    assert halfway["sparsity"] == pytest.approx(0.25)
    assert excess(one, masks(100, 300), fraction=0.0) == {"sparsity": 0.0, "params": 0.0, "flops": 0.0}


def test_bytes_are_measured_with_the_file_that_the_masks_make() -> None:
    targets = select(nn.Linear(10, 10)).targets
    one = Planner(
        Budget.parse("bytes=50%"), targets, UNSTRUCTURED, file_size=lambda kept: 100 + 4 * int(kept[0].count_nonzero())
    )
    assert excess(one, [torch.arange(100).reshape(10, 10) < 80])["bytes"] == pytest.approx((420 - 250) / 500)
    assert entry_costs(one, "bytes") == [4.0]


def test_the_limit_that_is_exceeded_most_takes_over_the_pull() -> None:
    steering = Steering(planner("params=75%,flops=50%"), steps=100, end=0.5, plans=100)
    assert steering.shares == {"params": 0.5, "flops": 0.5}
    for _ in range(30):
        steering.balance(masks(100, 100), 100)  # flops in excess, parameters not
    assert steering.shares == pytest.approx({"params": 0.0, "flops": 1.0})
    again = Steering(planner("params=75%,flops=50%"), steps=100, end=0.5, plans=100)
    again.load_state_dict(steering.state_dict())
    assert again.shares == steering.shares
    for _ in range(30):
        steering.balance(masks(20, 300), 100)
    assert steering.shares == pytest.approx({"params": 1.0, "flops": 0.0})


def test_a_pull_divides_by_what_entries_cost() -> None:
    one = planner("sparsity=50%,flops=50%")
    assert pull_shares(one, {"sparsity": 1.0}) == [0.25, 0.75]
    assert pull_shares(one, {"flops": 1.0}) == [0.75, 0.25]
    assert pull_shares(one, {"sparsity": 0.5, "flops": 0.5}) == [0.5, 0.5]


def test_costs_of_multiply_adds_need_positions() -> None:
    with pytest.raises(StateError, match="forward pass"):
        entry_costs(planner("flops=50%", positions=False), "flops")
    assert not Steering(planner("flops=50%", positions=False), steps=10, end=0.5, plans=5).ready
    assert not Steering(planner("sparsity=50%", positions=False), steps=10, end=0.5, plans=5, weight="flops").ready
    assert Steering(planner("sparsity=50%", positions=False), steps=10, end=0.5, plans=5).ready


def test_the_multiplier_makes_the_layers_use_as_much_less_as_a_common_shift() -> None:
    torch.manual_seed(0)
    slope, force, drift = torch.rand(6), torch.rand(6), torch.randn(6) / 10
    shift = torch.tensor([0.7])
    strength = multiplier(shift, drift, slope, force, 0.25)
    moved = strength * force - drift
    torch.testing.assert_close((slope * moved).sum(), (slope * 0.25 * shift).sum())


def test_where_nothing_responds_the_multiplier_is_zero() -> None:
    zero = torch.zeros(3)
    assert multiplier(torch.ones(1), torch.ones(3), zero, zero, 0.5).item() == 0


@pytest.mark.parametrize(
    ("end", "settle", "plans", "initial"),
    [(0.0, 0.7, 10, 0.0), (0.5, 1.1, 10, 0.0), (0.8, 0.7, 10, 0.0), (0.5, 0.7, 0, 0.0), (0.5, 0.7, 10, -0.1)],
)
def test_courses_are_checked(end: float, settle: float, plans: int, initial: float) -> None:
    with pytest.raises(InputError):
        check_course(end, settle, plans, initial)
