"""A small network, its data and a plain training loop: what every method is put through."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

import thresher
from thresher.methods import Lats, method_names, parse_method
from thresher.session import Pruner

# Every registered name, and the settings that take other ways through the code.
NAMES = [
    *method_names(),
    "lats:settle=1",
    "gmp:scope=layer,allow_regrow=true",
    "asl:scope=global,p=3",
    "ltp:scope=global",
]
GRADUAL = [name for name in NAMES if name not in ("magnitude", "random")]
SOFT = [name for name in GRADUAL if not name.startswith("gmp")]
# Those whose threshold a schedule moves, by the learning rate and never downwards.
SCHEDULED = [name for name in SOFT if isinstance(parse_method(name), Lats)]
STEPS = 12


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """A grouped, a depthwise and a pointwise convolution, batch norms, a tied pair of linear layers and a head."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 32, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 32),
        nn.Tanh(),
        nn.Linear(32, 32),
        nn.Tanh(),
        nn.Linear(32, 3),
    )
    model[11].weight = model[9].weight
    return model.to(dtype)


def batch(step: int) -> tuple[Tensor, Tensor]:
    """The same for the same step, whatever happened before."""
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 4, 8, 8, generator=generator), torch.randint(3, (8,), generator=generator)


def sgd(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)


@dataclass
class Bench:
    """A model with its pruner; `train` is the user's loop."""

    method: Any
    budget: str | None = "sparsity=90%"
    steps: int = STEPS
    optimizer_of: Callable[[nn.Module], Optimizer] = sgd
    dtype: torch.dtype = torch.float32
    more: dict[str, Any] = field(default_factory=dict)
    model: nn.Module = field(init=False)
    optimizer: Optimizer = field(init=False)
    pruner: Pruner = field(init=False)

    def __post_init__(self) -> None:
        self.model = network(self.dtype)
        self.optimizer = self.optimizer_of(self.model)
        self.pruner = thresher.prune(
            self.model, self.optimizer, self.method, self.budget, steps=self.steps, **self.more
        )

    def loss(self, step: int, forward: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        inputs, labels = batch(step)
        return F.cross_entropy((forward or self.model)(inputs.to(self.dtype)).float(), labels)

    def train(self, first: int = 0, last: int | None = None, **more: Any) -> "Bench":
        for step in range(first, self.steps if last is None else last):
            self.optimizer.zero_grad()
            self.loss(step, **more).backward()
            self.optimizer.step()
        return self

    def output(self) -> Tensor:
        training = self.model.training
        with torch.no_grad():
            found = self.model.eval()(batch(99)[0].to(self.dtype))
        self.model.train(training)
        return found

    def finish(self) -> thresher.Report:
        return self.pruner.finish()


def zeros_of(pruner: Pruner) -> tuple[int, int]:
    """(exact zeros, entries) of the finished tensors, counted here."""
    weights = [getattr(*target.sites[0]) for target in pruner.targets]
    return sum(int((weight == 0).sum()) for weight in weights), sum(weight.numel() for weight in weights)


def assert_exact(bench: Bench, share: float = 0.9) -> None:
    bench.finish()
    zeros, entries = zeros_of(bench.pruner)
    assert zeros == int(share * entries)
    assert torch.isfinite(bench.output().float()).all()
