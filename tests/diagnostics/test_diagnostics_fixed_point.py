"""A scheduled soft threshold with constant lambda solves the lasso: the ISTA fixed point, on a small convex problem."""

import pytest
import torch
from torch import Tensor, nn

import thresher
from thresher.diagnostics import churn, optimality_gap
from thresher.methods import Lats

L1 = 0.08
STEPS = 1500


def problem() -> tuple[Tensor, Tensor]:
    """60 samples, 12 unknowns of which 4 matter: loss = mean (X w - y)^2 / 2."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(60, 12, generator=generator, dtype=torch.float64)
    truth = torch.zeros(12, dtype=torch.float64)
    truth[[0, 3, 7, 10]] = torch.tensor([1.0, -0.7, 0.4, -1.5], dtype=torch.float64)
    return inputs, inputs @ truth + 0.1 * torch.randn(60, generator=generator, dtype=torch.float64)


def lasso(inputs: Tensor, labels: Tensor, l1: float) -> Tensor:
    """The minimiser of mean (X w - y)^2 / 2 + l1 * sum |w|, by coordinate descent: no threshold ever moves here."""
    samples = len(inputs)
    curvature = (inputs**2).sum(0) / samples
    weight = torch.zeros(inputs.shape[1], dtype=torch.float64)
    for _ in range(500):
        for entry in range(len(weight)):
            residual = labels - inputs @ weight + inputs[:, entry] * weight[entry]
            pull = float(inputs[:, entry] @ residual) / samples
            size = max(abs(pull) - l1, 0.0) / float(curvature[entry])
            weight[entry] = size if pull > 0 else -size
    return weight


def gradient(inputs: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    return inputs.T @ (inputs @ weight - labels) / len(inputs)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_sgd_with_a_coupled_threshold_converges_to_the_lasso_solution(momentum: float) -> None:
    inputs, labels = problem()
    solution = lasso(inputs, labels, L1)
    assert optimality_gap(solution, gradient(inputs, labels, solution), L1).max < 1e-12
    torch.manual_seed(0)
    model = nn.Linear(12, 1, bias=False, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3 * (1 - momentum), momentum=momentum)
    pruner = thresher.prune(model, optimizer, Lats(l1=L1, schedule="coupled", settle=1.0), steps=STEPS)
    start = model.weight.detach().clone()
    for _ in range(STEPS):
        optimizer.zero_grad()
        ((model(inputs).squeeze(1) - labels) ** 2).mean().div(2).backward()
        optimizer.step()
    pruner.finish()
    weight = model.weight.detach()[0]
    gap = optimality_gap(weight, gradient(inputs, labels, weight), L1)
    assert gap.max < 1e-6
    assert churn([weight], [solution]) == 0.0
    torch.testing.assert_close(weight, solution, rtol=0, atol=1e-6)
    # Neither trivially sparse, nor dense, nor where it began.
    assert 0 < int((weight == 0).sum()) < 12
    assert optimality_gap(start[0], gradient(inputs, labels, start[0]), L1).max > 0.1


def test_least_squares_itself_is_no_fixed_point() -> None:
    inputs, labels = problem()
    weight = torch.linalg.lstsq(inputs, labels[:, None]).solution[:, 0]
    assert optimality_gap(weight, gradient(inputs, labels, weight), L1).max == pytest.approx(L1)
