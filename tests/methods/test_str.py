"""STR against a slow reference by autograd; the start that weight decay drives, and the one that a budget drives."""

import math

import pytest
import torch
from learned_bench import MOMENTUM, RATE, STEPS, Watched, WeightDescent, assert_same, cubic, midway, start, task
from method_bench import Bench
from torch import Tensor, nn

import thresher
from thresher.attach import effective
from thresher.methods import Str

END = 0.5


class Reference:
    """SGD on weights and s, every gradient by autograd through sign(theta)*relu(|theta| - sigmoid(s))."""

    def __init__(self, method: Str, sparsity: float | None) -> None:
        self.method, self.sparsity = method, sparsity
        self.thetas = start()
        begin = method.s_init if sparsity is None else -30.0
        self.s = torch.full((2,), begin, dtype=torch.float64)
        self.descent, self.mean = WeightDescent(), torch.zeros(2, dtype=torch.float64)
        top = max(float(theta.abs().max()) for theta in self.thetas)
        self.top = 1.0 if top < 1 else 2 * top
        self.rate = (method.lr or 0.0) * RATE / (1 - MOMENTUM)
        self.drift, self.pull = (torch.zeros(2, dtype=torch.float64) for _ in range(2))
        self.share = torch.tensor([96.0, 60.0], dtype=torch.float64) / 156
        self.placed, self.open = False, sparsity is None
        self.plan(0)

    def alpha(self, s: Tensor) -> Tensor:
        return self.top * s.sigmoid() if self.open else 0 * s

    def shift(self, step: int) -> float:
        thresholds = self.top * self.s.sigmoid()
        leave = int(int(self.sparsity * 156) * cubic(step + 1, END) + 1e-9)  # type: ignore[operator]
        relative = [theta.abs() / alpha for theta, alpha in zip(self.thetas, thresholds, strict=True)]
        cut = midway(torch.cat([one.flatten() for one in relative]) * thresholds.max(), leave) / self.top
        self.cut = cut
        return math.log(cut / (1 - cut)) - float(self.s.max()) if cut > 0 else -30 - float(self.s.max())

    def plan(self, step: int) -> None:
        if self.sparsity is None:
            return
        shift = self.shift(step)
        if self.cut > 0 and not self.placed:
            self.s, self.placed = self.s + shift, True
            shift = self.shift(step)
        self.pull = torch.full((2,), 0.5 * shift, dtype=torch.float64) + (self.share * self.drift).sum()

    def step(self, number: int) -> tuple[list[Tensor], list[float]]:
        thetas = [theta.clone().requires_grad_() for theta in self.thetas]
        s = self.s.clone().requires_grad_()
        alpha = self.alpha(s)
        weights = [t.sign() * (t.abs() - a).relu() for t, a in zip(thetas, alpha, strict=True)]
        *of_weights, of_s = torch.autograd.grad(task(weights, number), [*thetas, s])
        mu = self.method.momentum
        if self.sparsity is None:
            self.mean = mu * self.mean + (1 - mu) * (of_s + self.method.decay * self.s)
            self.s = self.s - self.rate * self.mean
        else:
            self.mean = mu * self.mean + (1 - mu) * of_s
            after = (self.s - (self.rate * self.mean).clamp(-0.5, 0.5)).clamp(min=-30)
            self.drift = self.s - after
            self.s = after + self.pull.clamp(-0.5, 0.5)
        self.thetas, self.open = self.descent.step(self.thetas, list(of_weights)), True
        self.plan(number + 1)
        return self.thetas, (self.top * self.s.sigmoid()).tolist()


def test_every_step_agrees_with_the_reference_under_a_budget() -> None:
    method = Str(lr=0.3, end=END, settle=1.0)
    run, reference = Watched(method, "sparsity=80%"), Reference(method, 0.8)
    for number in range(STEPS):
        assert_same(run.step(number), *reference.step(number))
    assert run.pruner.sparsity == pytest.approx(0.8, abs=0.02)


def test_every_step_agrees_with_the_reference_without_a_budget() -> None:
    method = Str(s_init=-2.5, decay=0.02, lr=1.0, settle=1.0)
    run, reference = Watched(method, None), Reference(method, None)
    for number in range(STEPS):
        assert_same(run.step(number), *reference.step(number))
    assert 0 < run.pruner.sparsity < 1


def test_with_the_published_start_decay_alone_moves_s_and_nothing_is_pruned_before_minus_ten() -> None:
    """s_t = s_0 * (1 - rate*decay)^t while sigmoid(s) is too small for any gradient."""
    model = nn.Linear(20, 20)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = Str(s_init=-3200.0, decay=0.4, momentum=0.0, settle=1.0)
    pruner = thresher.prune(model, optimizer, method, steps=200)
    inputs = torch.randn(8, 20, generator=torch.Generator().manual_seed(0))
    crossed = None
    for step in range(1, 201):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
        s = pruner.diagnostics()["s"]
        if s < -20:
            assert s == pytest.approx(-3200 * (1 - 0.1 * 0.4) ** step, rel=1e-6)
            assert pruner.sparsity == 0
        elif crossed is None:
            crossed = step
    assert crossed is not None
    assert pruner.sparsity > 0


def test_without_decay_the_published_start_never_prunes() -> None:
    model = nn.Linear(20, 20)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = thresher.prune(model, optimizer, Str(decay=0.0), steps=30)
    inputs = torch.randn(8, 20, generator=torch.Generator().manual_seed(0))
    for _ in range(30):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
    assert pruner.diagnostics() == {}  # frozen by now
    assert pruner.finish().zeros == 0


def test_a_weight_decay_of_the_users_optimizer_is_not_the_drive() -> None:
    ends = []
    for decay in (0.0, 0.1):
        bench = Bench(
            "str",
            optimizer_of=lambda model, decay=decay: torch.optim.SGD(model.parameters(), lr=0.0, weight_decay=decay),
        ).train()
        ends.append(bench.pruner.process.thresholds())
    assert ends[0] == ends[1]


def test_weights_above_one_are_in_reach_of_a_threshold() -> None:
    model = nn.Linear(60, 60, bias=False)
    with torch.no_grad():
        model.weight.normal_(std=5.0, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    pruner = thresher.prune(model, optimizer, Str(settle=1.0), "sparsity=90%", steps=60)
    for _ in range(60):
        model(torch.ones(1, 60)).sum().backward()
        optimizer.step()
    assert pruner.process.thresholds()[0] > 5
    assert pruner.sparsity == pytest.approx(0.9, abs=0.005)


def test_one_pull_multiplies_all_thresholds_alike() -> None:
    bench = Bench("str:lr=0", steps=60).train(0, 10)
    first = torch.tensor(bench.pruner.process.thresholds())
    bench.train(10, 25)
    second = torch.tensor(bench.pruner.process.thresholds())
    ratios = second / first
    assert float(ratios.min()) > 1
    assert float(ratios.max() / ratios.min()) < 1.1  # sigmoid is not quite an exponential
    assert all(effective(target).any() for target in bench.pruner.targets)


@pytest.mark.parametrize(
    "wrong",
    [
        {"s_init": -math.inf},
        {"s_init": math.nan},
        {"decay": -1e-5},
        {"lr": -1.0},
        {"momentum": 1.0},
        {"settle": 0.2},
        {"plans": 0},
    ],
)
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(thresher.InputError):
        Str(**wrong)  # type: ignore[arg-type]
