"""A small network, four images, and a run on them, for the tests of `thresher.prune`."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

import thresher
from thresher.session import Pruner


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))


IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
POSITIONS = {"0.weight": 36.0, "4.weight": 1.0}
CONV, FC = 72, 2880


def train(model: nn.Module, optimizer: Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(IMAGES), torch.arange(4)).backward()
        optimizer.step()


def begin(
    budget: str | None = "sparsity=90%", method: str = "gmp", **more: object
) -> tuple[nn.Module, Optimizer, Pruner]:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    options: dict[str, object] = {"steps": 10, **more}
    return model, optimizer, thresher.prune(model, optimizer, method, budget, **options)  # type: ignore[arg-type]
