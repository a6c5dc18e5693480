"""LTP against a slow reference that differentiates the gate itself; its two modes, its band, its refusals."""

import math
import warnings

import pytest
import torch
from learned_bench import STEPS, Watched, WeightDescent, assert_same, cubic, midway, start, task
from method_bench import Bench, batch
from torch import Tensor, nn

import thresher
from thresher.attach import effective, latent
from thresher.methods import Ltp
from thresher.methods.learning.gated import GateShell, soft_gates

END = 0.5


class Reference:
    """Adam on u, SGD on weights, gradients by autograd through sigmoid; the gate's own term dropped as asked."""

    def __init__(self, method: Ltp, sparsity: float | None) -> None:
        self.method, self.sparsity = method, sparsity
        self.thetas, self.u = start(), torch.zeros(2, dtype=torch.float64)
        self.descent = WeightDescent()
        self.scale = torch.stack([theta.square().mean() for theta in self.thetas])
        self.share = torch.tensor([96.0, 60.0], dtype=torch.float64) / 156
        self.first, self.second = (torch.zeros(2, dtype=torch.float64) for _ in range(2))
        self.strength = torch.tensor(method.l0 or 0.0, dtype=torch.float64)
        self.drift = torch.zeros(2, dtype=torch.float64)
        self.measure(0)

    def gate(self, theta: Tensor, u: Tensor, number: int, heat: Tensor) -> Tensor:
        inner = theta if self.method.full_grad else theta.detach()
        return torch.sigmoid(((inner**2 - u * self.scale[number]) / heat).clamp(-80, 80))

    def weight(self, theta: Tensor, u: Tensor, number: int) -> Tensor:
        return theta if float(u.detach()) == 0 else theta * self.gate(theta, u, number, self.heat[number])

    def count(self, u: Tensor) -> Tensor:
        """Soft share of the weights that stay, at the wider temperature."""
        heat = torch.maximum(self.heat, self.method.count_temperature * self.scale)
        parts = [self.gate(theta.detach(), one, n, heat[n]) for n, (theta, one) in enumerate(zip(self.thetas, u))]  # noqa: B905
        return sum(part.sum() for part in parts) / 156  # type: ignore[return-value]

    def measure(self, step: int) -> None:
        self.heat = self.method.temperature * torch.stack([t.abs().var(unbiased=False) for t in self.thetas])
        if self.sparsity is None:
            return
        relative = [t**2 / scale - u for t, scale, u in zip(self.thetas, self.scale, self.u, strict=True)]
        leave = int(int(self.sparsity * 156) * cubic(step + 1, END) + 1e-9)
        shift = midway(torch.cat([one.flatten() for one in relative]) + self.u.max(), leave) - self.u.max()
        u = self.u.clone().requires_grad_()
        slope = -torch.autograd.grad(self.count(u), u)[0]
        self.strength = (slope * (0.5 * shift + self.drift)).sum() / (slope.square().sum() / STEPS)

    def step(self, number: int) -> tuple[list[Tensor], list[float]]:
        thetas = [theta.clone().requires_grad_() for theta in self.thetas]
        u, twin = self.u.clone().requires_grad_(), self.u.clone().requires_grad_()
        loss = task([self.weight(theta, one, n) for n, (theta, one) in enumerate(zip(thetas, u, strict=True))], number)
        *of_weights, of_u = torch.autograd.grad(loss, [*thetas, u], allow_unused=True, materialize_grads=True)
        (of_penalty,) = torch.autograd.grad(self.strength * self.count(twin), twin)
        gradient = of_u + of_penalty if self.sparsity is None else of_u
        self.first, self.second = 0.9 * self.first + 0.1 * gradient, 0.99 * self.second + 0.01 * gradient**2
        mean, square = self.first / (1 - 0.9 ** (number + 1)), self.second / (1 - 0.99 ** (number + 1))
        moved = self.method.travel / STEPS * torch.where(square > 0, mean / square.sqrt().clamp(min=1e-300), 0)
        if self.sparsity is None:
            self.u = self.u - moved
        else:
            after = (self.u - moved.clamp(-0.5, 0.5)).clamp(min=0)
            self.drift = self.u - after
            self.u = after - (of_penalty / STEPS).clamp(-0.5, 0.5)
        self.thetas = self.descent.step(self.thetas, list(of_weights))
        top = torch.stack([theta.abs().max() for theta in self.thetas])
        self.u = torch.minimum(self.u.clamp(min=0), (0.999 * top) ** 2 / self.scale)
        self.measure(number + 1)
        return self.thetas, (self.u * self.scale).sqrt().tolist()


@pytest.mark.parametrize("full", [False, True], ids=["published gradient", "full gradient"])
@pytest.mark.parametrize("sparsity", [None, 0.8], ids=["lambda given", "budget"])
def test_every_step_agrees_with_the_reference(full: bool, sparsity: float | None) -> None:
    method = Ltp(l0=None if sparsity else 0.3, temperature=0.3, travel=2.0, full_grad=full, end=END, settle=1.0)
    run = Watched(method, None if sparsity is None else f"sparsity={sparsity:.0%}")
    reference = Reference(method, sparsity)
    for number in range(STEPS):
        # Gates under 1e-12 are shut here and not there; Adam divides by small numbers.
        assert_same(run.step(number), *reference.step(number), within=1e-7)
    assert min(reference.u.tolist()) > 0.05


def shell_of(width: int = 3) -> tuple[GateShell, Tensor]:
    from thresher.methods.learning.gate import GateLaw
    from thresher.operators import UNSTRUCTURED
    from thresher.targets import select

    module = nn.Linear(width, 1, bias=False)
    law = GateLaw(UNSTRUCTURED, l0=None, temperature=1e-3, count_temperature=0.1, full_grad=False, pruned_gradient=0.0)
    return law.shell(select(module).targets[0]), module.weight


def test_training_gates_softly_and_eval_masks_hard() -> None:
    shell, theta = shell_of()
    with torch.no_grad():
        theta.copy_(torch.tensor([[0.5, 0.4, 0.6]]))
    shell.threshold.fill_(0.5)
    shell.temperature.fill_(0.1)
    soft = shell.train()(theta)
    assert soft[0].tolist() == pytest.approx([0.25, 0.4 / (1 + math.exp(0.9)), 0.6 / (1 + math.exp(-1.1))], abs=1e-6)
    assert shell.eval()(theta)[0].tolist() == [0.0, 0.0, pytest.approx(0.6)]
    with soft_gates(shell):
        assert torch.equal(shell(theta), soft)
    assert (shell(theta) == 0).sum() == 2


def test_a_shut_gate_gives_exact_zeros_and_no_subnormal_numbers() -> None:
    shell, theta = shell_of()
    with torch.no_grad():
        theta.copy_(torch.tensor([[1e-3, 1e-5, 0.9]]))
    shell.threshold.fill_(0.5)
    shell.temperature.fill_(1e-4)
    weight = shell.train()(theta)
    assert weight[0].tolist() == [0.0, 0.0, pytest.approx(0.9)]


def test_what_is_counted_and_saved_in_training_is_the_hard_network() -> None:
    bench = Bench(Ltp(settle=1.0), steps=40).train(0, 30)
    assert bench.model.training
    zeros = sum(int((effective(target) == 0).sum()) for target in bench.pruner.targets)
    assert zeros > 0.5 * bench.pruner.planner.entries  # type: ignore[union-attr]
    assert bench.pruner.sparsity == zeros / bench.pruner.planner.entries  # type: ignore[union-attr]
    plain = bench.pruner.plain_state_dict()
    assert sum(int((plain[t.name] == 0).sum()) for t in bench.pruner.targets) == zeros
    assert all(module.training for module in bench.model.modules())


def test_the_gap_between_soft_and_hard_network_is_zero_after_the_freeze() -> None:
    bench = Bench(Ltp(temperature=0.3), steps=60)
    images = batch(99)[0]

    def gap() -> float:
        bench.model.eval()
        with torch.no_grad():
            hard = bench.model(images)
            with soft_gates(bench.model):
                soft = bench.model(images)
        bench.model.train()
        return float((soft - hard).abs().max())

    bench.train(0, 30)
    assert gap() > 0
    bench.train(30)
    assert gap() == 0


def test_the_temperature_is_that_of_the_variance_of_magnitudes() -> None:
    bench = Bench(Ltp(temperature=0.01)).train(0, 3)
    for number, target in enumerate(bench.pruner.targets):
        shell = bench.pruner.process.shell(number)
        assert isinstance(shell, GateShell)
        expected = 0.01 * latent(target).detach().abs().var(unbiased=False)
        assert float(shell.temperature) == pytest.approx(float(expected), rel=1e-5)


def test_weights_behind_a_shut_gate_receive_nothing_unless_a_share_is_asked_for() -> None:
    for factor in (0.0, 0.25):
        bench = Bench(Ltp(pruned_gradient=factor, settle=1.0), steps=40).train(0, 30)
        target = bench.pruner.targets[3]
        shell = bench.pruner.process.shell(3)
        theta = latent(target).detach().clone().requires_grad_()
        weight = shell(theta)
        weight.sum().backward()
        shut = weight == 0
        assert int(shut.sum()) > 100
        assert torch.equal(theta.grad[shut], torch.full((int(shut.sum()),), factor))  # type: ignore[index]


def test_an_empty_band_is_told_and_the_budget_is_reached_all_the_same() -> None:
    """Weights in two clumps: once the threshold has left the lower one, no weight is near it."""
    model = nn.Linear(200, 200, bias=False)
    signs = torch.randn(200, 200, generator=torch.Generator().manual_seed(0)).sign()
    with torch.no_grad():
        small = torch.rand(200, 200, generator=torch.Generator().manual_seed(1)) < 0.5
        model.weight.copy_(signs * torch.where(small, 0.01, 0.1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    pruner = thresher.prune(model, optimizer, Ltp(temperature=2e-3, settle=1.0), "sparsity=70%", steps=200)

    def train() -> None:
        for _ in range(150):
            model(torch.zeros(1, 200)).sum().backward()
            optimizer.step()

    with pytest.warns(UserWarning, match="band of the gates has emptied"):
        train()
    assert pruner.diagnostics()["band_fraction"] == 0
    report = pruner.finish()
    assert report.sparsity == 0.7


def test_a_full_band_is_not_called_empty() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bench = Bench(Ltp(temperature=0.05), steps=80).train()
        assert bench.finish().sparsity == pytest.approx(0.9, abs=1e-3)


def test_lambda_and_the_band_can_be_looked_at() -> None:
    bench = Bench(Ltp(temperature=0.05), steps=80).train(0, 20)
    found = bench.pruner.diagnostics()
    assert set(found) == {"shift", "l0", "band_fraction"}
    assert 0 < found["band_fraction"] < 1
    assert all(math.isfinite(value) for value in found.values())


def test_a_constant_tensor_stays_dense() -> None:
    model = nn.Sequential(nn.Linear(40, 40, bias=False), nn.Linear(40, 40, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(0.3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    pruner = thresher.prune(model, optimizer, Ltp(), "sparsity=45%", steps=40)
    for _ in range(40):
        model(torch.ones(1, 40)).sum().backward()
        optimizer.step()
        assert all(math.isfinite(value) for value in pruner.process.thresholds())
        assert effective(pruner.targets[0]).all() or pruner.process.frozen  # type: ignore[attr-defined]
    assert pruner.finish().sparsity == 0.45


@pytest.mark.parametrize(
    "wrong",
    [
        {"l0": 0.0},
        {"temperature": 0.0},
        {"temperature": math.inf},
        {"count_temperature": -1.0},
        {"travel": -1.0},
        {"pruned_gradient": 1.5},
        {"full_grad": True, "pruned_gradient": 0.5},
        {"weight": "latency"},
        {"end": 0.9},
        {"scope": "tensor"},
        {"plans": 0},
    ],
)
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(thresher.InputError):
        Ltp(**wrong)  # type: ignore[arg-type]


def test_either_a_budget_or_lambda_is_needed() -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for method, budget in ((Ltp(), None), (Ltp(l0=0.1), "sparsity=50%"), (Ltp(l0=0.1, weight="flops"), None)):
        with pytest.raises(thresher.BudgetError):
            thresher.prune(model, optimizer, method, budget, steps=5)
