"""ASL against a slow reference that differentiates the published forward and loss; its options and refusals."""

import math

import pytest
import torch
from learned_bench import MOMENTUM, RATE, STEPS, Watched, WeightDescent, assert_same, cubic, midway, start, task
from method_bench import Bench, batch, network
from torch import Tensor, nn

import thresher
from thresher.attach import latent
from thresher.methods import Asl
from thresher.methods.learning.erf import ErfLaw, b_of, sparsity_of
from thresher.operators import UNSTRUCTURED
from thresher.targets import select

END, LIMIT = 0.5, 5.0


def through(theta: Tensor, b: Tensor) -> Tensor:
    """B*sigma*STE(theta/(B*sigma)), as in the released code, without its epsilon."""
    scale = b.clamp(0, LIMIT) * theta.detach().std()
    if scale.item() == 0:
        return theta * 1.0
    x = theta / scale
    return scale * (x + ((x.abs() > 1) * x - x).detach())


class Reference:
    """SGD on weights and on b, every gradient by autograd; the goal of the loss from a sort of |theta|/sigma - b."""

    def __init__(self, method: Asl, sparsity: float | None) -> None:
        self.method, self.sparsity = method, sparsity
        self.thetas, self.b = start(), torch.zeros(2, dtype=torch.float64)
        self.descent, self.mean = WeightDescent(), torch.zeros(2, dtype=torch.float64)
        self.share = torch.tensor([96.0, 60.0], dtype=torch.float64) / 156
        self.rate = method.lr * RATE / (1 - MOMENTUM)
        self.gamma, self.goal = torch.tensor(method.gamma, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
        self.drift = torch.zeros(2, dtype=torch.float64)
        self.plan(0)

    def model(self, b: Tensor) -> Tensor:
        return (self.share * torch.erf(b / math.sqrt(2))).sum()

    def loss(self, b: Tensor) -> Tensor:
        short = self.goal - self.model(b)
        if self.method.loss == "global":
            return self.gamma * short**2
        return self.gamma * (short.relu() if self.method.loss == "hinge" else 1 - self.model(b))

    def plan(self, step: int) -> None:
        if self.sparsity is None:
            return
        relative = [theta.abs() / theta.std() - b for theta, b in zip(self.thetas, self.b, strict=True)]
        leave = int(int(self.sparsity * 156) * cubic(step + 1, END) + 1e-9)
        lifted = torch.cat([one.flatten() for one in relative]) + self.b.max()
        shift = midway(lifted, leave) - self.b.max()
        b = self.b.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.model(b), b)
        move = self.rate * slope.square().sum()  # of the model, per unit of 2*gamma*gap
        rate = 0.5  # a measurement each step: half of the way
        if self.method.loss == "global":
            self.gamma = (rate / (2 * move)).clamp(min=self.method.gamma).clamp(max=1 / (2 * move))
            lost = (slope * self.drift).sum() / (2 * self.gamma * move)
            self.goal = self.model((self.b + shift).clamp(0, LIMIT)) + lost
        else:
            self.gamma = (slope * (rate * shift + self.drift)).sum() / move
            if self.method.loss == "hinge":
                self.gamma, self.goal = self.gamma.clamp(min=0), self.model(self.b) + 1e-3

    def step(self, number: int) -> tuple[list[Tensor], list[float]]:
        thetas = [theta.clone().requires_grad_() for theta in self.thetas]
        b = self.b.clone().requires_grad_()
        loss = task([through(theta, one) for theta, one in zip(thetas, b, strict=True)], number)
        *of_weights, of_b = torch.autograd.grad(loss, [*thetas, b], allow_unused=True, materialize_grads=True)
        of_b = torch.where(self.b > 0, of_b, 0)  # the clip to [0, 5]
        twin = self.b.clone().requires_grad_()
        (of_penalty,) = torch.autograd.grad(self.loss(twin), twin)
        mu = self.method.momentum
        if self.sparsity is None:
            self.mean = mu * self.mean + (1 - mu) * (of_b + of_penalty)
            self.b = self.b - self.rate * self.mean
        else:
            self.mean = mu * self.mean + (1 - mu) * of_b
            after = (self.b - (self.rate * self.mean).clamp(-0.5, 0.5)).clamp(min=0)
            self.drift = self.b - after
            self.b = after - (self.rate * of_penalty).clamp(-0.5, 0.5)
        self.thetas = self.descent.step(self.thetas, list(of_weights))
        sigma = torch.stack([theta.std() for theta in self.thetas])
        top = torch.stack([theta.abs().max() for theta in self.thetas]) / sigma
        self.b = torch.minimum(self.b.clamp(min=0), (0.999 * top).clamp(max=LIMIT))
        self.plan(number + 1)
        return self.thetas, (self.b * sigma).tolist()


@pytest.mark.parametrize("loss", ["global", "hinge", "density"])
def test_every_step_agrees_with_the_reference(loss: str) -> None:
    method = Asl(loss=loss, lr=0.3, end=END, settle=1.0)  # type: ignore[arg-type]
    run, reference = Watched(method, "sparsity=80%"), Reference(method, 0.8)
    for number in range(STEPS):
        assert_same(run.step(number), *reference.step(number))
    assert min(reference.b.tolist()) > 0.3


def test_without_a_budget_the_density_loss_alone_prunes() -> None:
    method = Asl(loss="density", lr=0.5, settle=1.0)
    run, reference = Watched(method, None), Reference(method, None)
    for number in range(STEPS):
        assert_same(run.step(number), *reference.step(number))
    assert 0 < run.pruner.sparsity < 1
    assert run.pruner.finish().touched == 0


def test_the_layer_loss_gives_every_tensor_the_same_sparsity() -> None:
    bench = Bench(Asl(loss="layer", settle=1.0), "sparsity=75%", steps=60).train()
    for layer in bench.finish().layers:
        if layer.entries > 100:
            assert layer.sparsity == pytest.approx(0.75, abs=0.02)


def law(loss: str, shares: list[float]) -> ErfLaw:
    model = nn.Sequential(nn.Linear(100, 10, bias=False), nn.Linear(100, 30, bias=False)).double()
    found = ErfLaw(
        UNSTRUCTURED, select(model).targets, loss=loss, gamma=1.0, center=False, jump=False, pruned_gradient=1.0
    )
    found.shares = torch.tensor(shares, dtype=torch.float64)
    found._gamma, found._goal = torch.ones(1, dtype=torch.float64), torch.full((1,), 0.9, dtype=torch.float64)
    return found


@pytest.mark.parametrize(
    ("loss", "value", "slope"),
    [
        ("global", 0.1954824165, [-0.1069834686, -0.4669800850]),
        ("layer", 0.1572952463, None),
        ("hinge", 0.4421339351, None),
        ("density", 1 - 0.4578660649, None),
    ],
)
def test_the_losses_have_the_stated_values(loss: str, value: float, slope: list[float] | None) -> None:
    b = torch.tensor([1.0, 0.5], dtype=torch.float64, requires_grad=True)
    one = law(loss, [0.25, 0.75])
    found = one.penalty(b, [])
    assert found.item() == pytest.approx(value, abs=1e-9)
    found.backward()
    torch.testing.assert_close(one.pull(b.detach(), []), -b.grad, rtol=0, atol=1e-12)
    if slope is not None:
        assert b.grad.tolist() == pytest.approx(slope, abs=1e-9)


def test_the_erf_model_and_its_inverse_have_the_stated_values() -> None:
    b = torch.tensor([0.1, 0.25, 0.5, 1, 1.5, 2, 2.5, 3], dtype=torch.float64)
    s = [0.0796556746, 0.1974126514, 0.3829249225, 0.6826894921, 0.8663855975, 0.9544997361, 0.9875806693, 0.9973002039]
    assert sparsity_of(b).tolist() == pytest.approx(s, abs=1e-9)
    asked = torch.tensor([0.5, 0.8, 0.9, 0.95, 0.98, 0.99], dtype=torch.float64)
    wanted = [0.6744897502, 1.2815515655, 1.6448536270, 1.9599639845, 2.3263478740, 2.5758293035]
    assert b_of(asked).tolist() == pytest.approx(wanted, abs=1e-8)
    assert b_of(torch.tensor(0.6 * 0.9, dtype=torch.float64)).item() == pytest.approx(0.73884685, abs=1e-7)


def test_an_initial_share_of_the_budget_holds_from_the_start_with_one_b_for_all() -> None:
    model = nn.Sequential(nn.Linear(200, 300), nn.Linear(300, 100))
    with torch.no_grad():
        for number in (0, 1):
            model[number].weight.normal_(std=0.1 * (number + 1), generator=torch.Generator().manual_seed(number))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = thresher.prune(model, optimizer, Asl(initial=0.6), "sparsity=90%", steps=100)
    first, second = pruner.process.thresholds()
    assert second == pytest.approx(2 * first, rel=0.02)
    assert first / 0.1 == pytest.approx(0.73884685, rel=0.05)  # the published start, here measured; a few steps ahead
    assert pruner.sparsity == pytest.approx(0.54, abs=0.03)


def test_centering_takes_the_mean_off_all_but_depthwise_tensors_and_never_in_forward() -> None:
    bench = Bench(Asl(center=True))
    means = [latent(target).detach().mean().item() for target in bench.pruner.targets]
    depthwise = [target.depthwise for target in bench.pruner.targets]
    assert depthwise.count(True) == 1
    for mean, alone in zip(means, depthwise, strict=True):
        assert (abs(mean) < 1e-7) != alone
    before = [latent(target).detach().clone() for target in bench.pruner.targets]
    bench.loss(0).backward()
    for target, old in zip(bench.pruner.targets, before, strict=True):
        assert torch.equal(latent(target).detach(), old)
    bench.train(0, 3)
    for target, alone in zip(bench.pruner.targets, depthwise, strict=True):
        assert alone or abs(latent(target).detach().mean().item()) < 1e-7


def test_without_centering_a_trained_function_is_kept() -> None:
    plain = network().eval()(batch(99)[0])
    assert torch.equal(Bench("asl").output(), plain)
    assert not torch.allclose(Bench(Asl(center=True)).output(), plain, atol=1e-4)


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_pruned_entries_receive_a_share_of_their_gradient(factor: float) -> None:
    bench = Bench(Asl(pruned_gradient=factor, settle=1.0), steps=30).train(0, 20)
    (target,) = [one for one in bench.pruner.targets if one.name == "6.weight"]
    shell = bench.pruner.process.shell(bench.pruner.targets.index(target))
    theta = latent(target).detach().clone().requires_grad_()
    weight = shell(theta)
    weight.sum().backward()
    pruned = weight == 0
    assert 0 < int(pruned.sum()) < pruned.numel()
    assert torch.equal(theta.grad, torch.where(pruned, factor, 1.0))
    assert bench.train(20).finish().sparsity == pytest.approx(0.9, abs=1e-3)


def test_a_constant_and_a_zero_tensor_stay_dense_and_finite() -> None:
    model = nn.Sequential(nn.Linear(40, 40, bias=False), nn.Linear(40, 40, bias=False), nn.Linear(40, 40, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(0.3)
        model[1].weight.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    pruner = thresher.prune(model, optimizer, Asl(), "sparsity=60%", steps=40)
    for step in range(40):
        model(torch.randn(4, 40, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        optimizer.step()
        assert all(math.isfinite(value) for value in pruner.process.thresholds())
    assert model[0].weight.all()
    pruner.finish()
    assert model[0].weight.all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "local"},
        {"weight": "latency"},
        {"gamma": 0.0},
        {"lr": -0.1},
        {"momentum": 1.0},
        {"end": 0.0},
        {"end": 0.8, "settle": 0.6},
        {"plans": 0},
        {"initial": 1.5},
        {"pruned_gradient": 2.0},
        {"p": 0.5},
        {"scope": "tensor"},
        {"scope": "global", "loss": "layer"},
    ],
)
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(thresher.InputError):
        Asl(**wrong)  # type: ignore[arg-type]


def test_only_the_density_loss_does_without_a_budget() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for method in (Asl(), Asl(loss="density", weight="flops")):
        with pytest.raises(thresher.BudgetError, match="without a budget"):
            thresher.prune(model, optimizer, method, steps=5)


@pytest.mark.parametrize("travel", [0.2, math.inf])
def test_the_task_carries_thresholds_no_further_apart_than_allowed(travel: float) -> None:
    # The loss only wants the second layer's weights back, and hundreds of times as loudly as usual.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 60, bias=False), nn.Linear(60, 40, bias=False))
    whole = model[1].weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    method = Asl(scope="global", settle=1.0, lr=1.0, travel=travel)
    pruner = thresher.prune(model, optimizer, method, "sparsity=80%", steps=60)
    for _ in range(60):
        (300 * (model[1].weight - whole).square().sum() + model[0].weight.sum() * 0).backward()
        optimizer.step()
        optimizer.zero_grad()
    apart = float(pruner.process._x[0] - pruner.process._x[1])
    if travel < 1:
        assert abs(pruner.sparsity - 0.8) < 0.01
        assert 0.1 < apart < 2 * travel + 0.15  # and what the loss itself divides unevenly
    else:
        assert apart > 0.6


def test_travel_must_be_a_distance() -> None:
    with pytest.raises(thresher.InputError, match=r"(?s)travel=0.*above 0"):
        Asl(travel=0.0)
    assert thresher.methods.parse_method("asl:travel=inf") == Asl(travel=math.inf)
