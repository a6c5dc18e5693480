"""The size of a unit can lie in either layer: balanced, the choice does not depend on where."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import thresher
from thresher.recovery import Problem, ispasp
from thresher.recovery.balance import balanced, reading_sizes


def network(scale: torch.Tensor | float) -> nn.Sequential:
    """The same function for every positive `scale`, one number per hidden unit."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))
    with torch.no_grad():
        net[0].weight.mul_(torch.as_tensor(scale).reshape(-1, 1))
        net[0].bias.mul_(scale)
        net[2].weight.div_(scale)
    return net


SCALE = torch.logspace(-1, 1, 24)[torch.randperm(24, generator=torch.Generator().manual_seed(1))]
POINTS = torch.randn(200, 6, generator=torch.Generator().manual_seed(2))


def kept(scale: torch.Tensor | float, method: thresher.ISpaSP) -> tuple[int, ...]:
    return thresher.shrink_plan(network(scale), method, keep={"0": 8}, calibration=[POINTS]).plan.groups[0].keep


@pytest.mark.parametrize("score", ["l2", "l1", "sum"])
def test_balanced_the_choice_does_not_depend_on_where_the_size_lies(score: str) -> None:
    method = thresher.ISpaSP(balance=True, score=score)
    assert kept(SCALE, method) == kept(1.0, method)
    assert kept(SCALE, thresher.ISpaSP(score=score)) != kept(1.0, thresher.ISpaSP(score=score))


def test_losses_are_those_of_the_problem_itself() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(12, 50).double(), torch.randn(4, 12).double()
    problem = Problem.of(hidden @ hidden.T, weight, block=2)
    even = balanced(problem)
    torch.testing.assert_close(even.quadratic, problem.quadratic)
    torch.testing.assert_close(reading_sizes(even), torch.ones(6).double())
    found = ispasp(even, 2)
    assert found.loss == pytest.approx(problem.loss(found.support))


def test_a_unit_that_nothing_reads_goes_first() -> None:
    weight = torch.tensor([[1.0, 0.0, 2.0, 0.5]])
    even = balanced(Problem.of(torch.diag(torch.tensor([1.0, 9.0, 1.0, 1.0])), weight))
    assert even.sizes.tolist() == [1.0, 0.0, 2.0, 0.5]
    assert ispasp(even, 2).support.tolist() == [0, 2]
    assert ispasp(Problem.of(torch.diag(torch.tensor([1.0, 9.0, 1.0, 1.0])), weight), 2).support.tolist() != [0, 2]


def test_it_is_named_only_where_it_is_on() -> None:
    assert repr(thresher.ISpaSP(balance=True)) == "ISpaSP(iterations=20, debias=True, balance=True)"
    assert eval(repr(thresher.ISpaSP(balance=True)), {"ISpaSP": thresher.ISpaSP}) == thresher.ISpaSP(balance=True)
    assert "balance" not in repr(thresher.ISpaSP())
