"""Two layers in float64 and their data, for the slow references of the methods whose thresholds learn."""

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import thresher
from thresher.attach import latent
from thresher.session import Pruner

RATE, MOMENTUM, STEPS = 0.05, 0.6, 24
SHAPES = ((12, 8), (5, 12))


def start() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) * 0.3 for shape in SHAPES]


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return (
        torch.randn(16, 8, generator=generator, dtype=torch.float64),
        torch.randn(16, 5, generator=generator, dtype=torch.float64),
    )


def task(weights: list[Tensor], step: int) -> Tensor:
    inputs, wanted = batch(step)
    return ((inputs @ weights[0].T).tanh() @ weights[1].T - wanted).square().mean()


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(8, 12, bias=False), nn.Tanh(), nn.Linear(12, 5, bias=False)).double()
    with torch.no_grad():
        for layer, weight in zip((model[0], model[2]), start(), strict=True):
            layer.weight.copy_(weight)
    return model


class Watched:
    """The library's run, step by step."""

    def __init__(self, method: object, budget: str | None) -> None:
        self.model = network()
        self.optimizer: Optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE, momentum=MOMENTUM)
        self.pruner: Pruner = thresher.prune(self.model, self.optimizer, method, budget, steps=STEPS)  # type: ignore[arg-type]

    def step(self, number: int) -> tuple[list[Tensor], list[float]]:
        """(stored weights, thresholds) after one step."""
        inputs, wanted = batch(number)
        self.optimizer.zero_grad()
        (self.model(inputs) - wanted).square().mean().backward()
        self.optimizer.step()
        return [latent(t).detach().clone() for t in self.pruner.targets], self.pruner.process.thresholds()


class WeightDescent:
    """SGD with momentum, by hand."""

    def __init__(self) -> None:
        self.buffers = [torch.zeros(shape, dtype=torch.float64) for shape in SHAPES]

    def step(self, weights: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        self.buffers = [MOMENTUM * buffer + g for buffer, g in zip(self.buffers, gradients, strict=True)]
        return [w - RATE * buffer for w, buffer in zip(weights, self.buffers, strict=True)]


def cubic(step: int, end: float) -> float:
    """1 - (1 - u)^3 on the way to `end`, a share of the run."""
    return 1 - (1 - min(step / round(end * STEPS), 1.0)) ** 3


def midway(scores: Tensor, leave: int) -> float:
    """Between the last score that leaves and the first that stays."""
    ordered = scores.flatten().float().sort().values
    return 0.0 if leave == 0 else (float(ordered[leave - 1]) + float(ordered[leave])) / 2


def assert_same(
    found: tuple[list[Tensor], list[float]], weights: list[Tensor], thresholds: list[float], *, within: float = 1e-9
) -> None:
    for one, other in zip(found[0], weights, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=within)
    assert found[1] == pytest.approx(thresholds, rel=0, abs=within)
