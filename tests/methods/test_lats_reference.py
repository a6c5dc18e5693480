"""LATS against a slow reference: plain Python numbers, written from the equations alone, float64, SGD with momentum."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import thresher
from thresher.attach import effective, latent
from thresher.methods import Lats

Matrix = list[list[float]]
STEPS, RATE, MOMENTUM, END = 24, 0.08, 0.6, 0.35
INPUTS = [[1.0, -0.5, 0.25, 2.0], [0.5, 1.5, -1.0, 0.0], [-1.0, 0.75, 0.5, 1.0]]
LABELS = [[1.0, -1.0], [0.5, 2.0], [0.0, 1.0]]
START = [[0.5, -0.3, 0.1, 0.0], [-0.05, 0.2, -0.6, 0.4]]


def soft(value: float, threshold: float) -> float:
    return math.copysign(max(abs(value) - threshold, 0.0), value)


def slope(weight: Matrix) -> Matrix:
    """d/dw of the mean over samples and outputs of (w x - y)^2."""
    total = [[0.0] * 4 for _ in range(2)]
    for x, y in zip(INPUTS, LABELS, strict=True):
        for row in range(2):
            error = sum(w * value for w, value in zip(weight[row], x, strict=True)) - y[row]
            for column in range(4):
                total[row][column] += 2 * error * x[column] / (len(INPUTS) * 2)
    return total


def reference(rates: list[float], threshold: Callable[[int], float], decay: float = 0.0) -> list[tuple[Matrix, Matrix]]:
    """(theta, w) after each step: w = S_d(theta), theta follows G everywhere, d is set after the step."""
    theta, d = [row[:] for row in START], 0.0
    buffer = [[0.0] * 4 for _ in range(2)]
    history = []
    for number, rate in enumerate(rates, start=1):
        found = slope([[soft(value, d) for value in row] for row in theta])
        for row in range(2):
            for column in range(4):
                pull = found[row][column] + decay * theta[row][column]
                buffer[row][column] = pull if number == 1 else MOMENTUM * buffer[row][column] + pull
                theta[row][column] -= rate * buffer[row][column]
        d = threshold(number)
        history.append(([row[:] for row in theta], [[soft(value, d) for value in row] for row in theta]))
    return history


def slats(x: float) -> float:
    return x + math.sin(math.pi * x) / math.pi


def lats(x: float, epochs: int = 6) -> float:
    """The sum of the per-epoch cosine rates themselves, not its closed form."""
    whole = int(x * epochs + 1e-9)
    parts = [(1 + math.cos(math.pi * epoch / epochs)) / (epochs + 1) for epoch in range(epochs)]
    return sum(parts[:whole]) + (parts[whole] * (x * epochs - whole) if whole < epochs else 0.0)


def pgh(x: float, beta: float = 0.05, cells: int = 4000) -> float:
    """The integral of beta^t (1 + cos pi t) by Simpson's rule."""

    def integral(end: float) -> float:
        points = [beta**t * (1 + math.cos(math.pi * t)) for t in (end * k / cells for k in range(cells + 1))]
        inner = 4 * sum(points[1:-1:2]) + 2 * sum(points[2:-1:2])
        return (points[0] + inner + points[-1]) * end / cells / 3

    return integral(x) / integral(1.0)


def build(
    method: Lats, rates: list[float], decay: float = 0.0, **more: object
) -> tuple[nn.Linear, thresher.Pruner, Callable[[int], None]]:
    model = nn.Linear(4, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(START, dtype=torch.float64))
    optimizer = torch.optim.SGD(model.parameters(), lr=rates[0], momentum=MOMENTUM, weight_decay=decay)
    pruner = thresher.prune(model, optimizer, method, steps=len(rates), lr_schedule=rates, **more)  # type: ignore[arg-type]
    x, y = torch.tensor(INPUTS, dtype=torch.float64), torch.tensor(LABELS, dtype=torch.float64)

    def step(number: int) -> None:
        optimizer.param_groups[0]["lr"] = rates[number]
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()

    return model, pruner, step


def same(found: Tensor, wanted: Matrix) -> None:
    torch.testing.assert_close(found.detach(), torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-12)


COSINE = [RATE * (1 + math.cos(math.pi * step / STEPS)) / 2 for step in range(STEPS)]
WARM = [RATE * min((step + 1) / 5, 1.0) for step in range(STEPS // 2)] + COSINE[: STEPS // 2]


@pytest.mark.parametrize(
    ("schedule", "curve"),
    [
        ("slats", slats),
        ("lats:epochs=6", lats),
        ("pgh:beta=0.05", pgh),
        ("linear", lambda x: x),
        ("cubic", lambda x: 1 - (1 - x) ** 3),
    ],
)
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_every_step_agrees_with_the_reference(schedule: str, curve: Callable[[float], float], decay: float) -> None:
    _, pruner, step = build(Lats(schedule=schedule, threshold=END, settle=1.0), COSINE, decay)
    (target,) = pruner.targets
    tolerance_of_simpson = 1e-11
    history = reference(COSINE, lambda number: END * curve(number / STEPS), decay)
    for number, (theta, weight) in enumerate(history):
        step(number)
        same(latent(target), theta)
        same(effective(target), weight)
        assert abs(pruner.process.thresholds()[0] - END * curve((number + 1) / STEPS)) < tolerance_of_simpson
    report = pruner.finish()
    same(pruner.model.weight, history[-1][1])  # type: ignore[arg-type]
    assert 0 < report.zeros < 8


@pytest.mark.parametrize("rates", [COSINE, WARM, [RATE] * STEPS], ids=["cosine", "warm-up and restart", "constant"])
def test_the_coupled_threshold_follows_the_rates_that_occur(rates: list[float]) -> None:
    l1 = 0.05
    _, pruner, step = build(Lats(l1=l1, settle=1.0), rates)
    history = reference(rates, lambda number: l1 * sum(rates[:number]) / (1 - MOMENTUM))
    last = 0.0
    for number, (theta, weight) in enumerate(history):
        step(number)
        same(latent(pruner.targets[0]), theta)
        same(effective(pruner.targets[0]), weight)
        (now,) = pruner.process.thresholds()
        assert (1 - MOMENTUM) * (now - last) / rates[number] == pytest.approx(l1, rel=1e-9)
        last = now


@pytest.mark.parametrize("rates", [COSINE, WARM], ids=["cosine", "warm-up and restart"])
def test_a_given_end_value_is_reached_and_lambda_stays_constant(rates: list[float]) -> None:
    _, pruner, step = build(Lats(threshold=END, settle=1.0), rates)
    levels = [0.0]
    for number in range(STEPS):
        step(number)
        levels.append(pruner.process.thresholds()[0])
    l1 = (1 - MOMENTUM) * END / sum(rates)
    assert levels[-1] == pytest.approx(END, rel=1e-12)
    for number, rate in enumerate(rates):
        assert (1 - MOMENTUM) * (levels[number + 1] - levels[number]) / rate == pytest.approx(l1, rel=1e-9)


def test_a_decaying_lambda_decays_as_asked() -> None:
    _, pruner, step = build(Lats(schedule="coupled:beta=0.1", threshold=END, settle=1.0), COSINE)
    levels = [0.0]
    for number in range(STEPS):
        step(number)
        levels.append(pruner.process.thresholds()[0])
    values = [(b - a) / rate for a, b, rate in zip(levels, levels[1:], COSINE, strict=False)]
    assert levels[-1] == pytest.approx(END, rel=1e-12)
    assert values[STEPS // 2] / values[0] == pytest.approx(0.1**0.5, rel=1e-9)


def test_a_late_start_measures_the_schedule_from_there() -> None:
    _, pruner, step = build(Lats(schedule="slats", threshold=END, settle=1.0), COSINE, start=8)
    history = reference(COSINE, lambda number: END * slats((number - 8) / 16) if number > 8 else 0.0)
    for number, (theta, weight) in enumerate(history):
        step(number)
        same(latent(pruner.targets[0]), theta)
        same(effective(pruner.targets[0]), weight)


def test_early_pruning_freezes_the_support_and_trains_the_survivors_plainly() -> None:
    _, pruner, step = build(Lats(schedule="slats", threshold=END, mode="early", settle=0.5), COSINE)
    (target,) = pruner.targets
    history = reference(COSINE[:12], lambda number: END * slats(number / 12))
    for number in range(12):
        step(number)
    settled = effective(target).clone()
    same(settled, history[-1][1])
    alive = settled != 0
    assert 0 < int(alive.sum()) < 8
    for number in range(12, STEPS):
        step(number)
        assert torch.equal(effective(target) != 0, alive)
    assert not torch.equal(effective(target), settled)
    trained = effective(target).clone()
    assert pruner.finish().touched == 0
    assert torch.equal(pruner.model.weight.detach(), trained)  # type: ignore[operator, union-attr]


def test_pruning_at_initialization_rewinds_to_the_bit_and_trains_sparse() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 2))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    pruner = thresher.prune(model, optimizer, Lats(mode="init", settle=0.5), "sparsity=50%", steps=10)
    x = torch.randn(6, 4)
    for number in range(10):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        if number == 3:
            assert not torch.equal(latent(pruner.targets[0]), start["0.weight"])
        if number == 4:
            supports = [effective(target) != 0 for target in pruner.targets]
            assert sum(int(mask.sum()) for mask in supports) == 48
            for target, mask in zip(pruner.targets, supports, strict=True):
                assert torch.equal(effective(target), torch.where(mask, start[target.name], 0.0))
            plain = pruner.plain_state_dict()
            for name in set(start) - {"0.weight", "3.weight"}:
                assert torch.equal(plain[name], start[name]), name
            buffers = [state["momentum_buffer"] for state in optimizer.state.values()]
            assert not any(buffer.any() for buffer in buffers)
            assert len(buffers) == 6
    pruner.finish()
    for target, mask in zip(pruner.targets, supports, strict=True):
        weight = model.get_parameter(target.name)
        assert torch.equal(weight != 0, mask)
        assert not torch.equal(weight[mask], start[target.name][mask])


def test_modes_and_shares_are_checked() -> None:
    for wrong in (
        {"mode": "later"},
        {"settle": 0.0},
        {"settle": 1.5},
        {"threshold": -0.1},
        {"threshold": math.nan},
        {"l1": 0.0},
        {"l1": 0.1, "threshold": 0.1},
        {"l1": 0.1, "schedule": "slats"},
        {"schedule": "spiral"},
        {"plans": 0},
    ):
        with pytest.raises(thresher.InputError):
            Lats(**wrong)  # type: ignore[arg-type]
    with pytest.raises(thresher.BudgetError, match="no budget, threshold or l1"):
        thresher.prune(nn.Linear(2, 2), None, Lats())
