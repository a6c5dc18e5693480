"""Power-p and ST-3: a threshold that is a quantile on the cubic curve, against a slow reference, and their settings."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from method_bench import STEPS, Bench, zeros_of
from torch import Tensor, nn

import thresher
from thresher.attach import effective, latent
from thresher.errors import BudgetError, InputError
from thresher.operators import power_threshold
from thresher.schedules import Cubic


def power_reference(theta: Tensor, d: float, p: float) -> Tensor:
    kept = [math.copysign((abs(x) ** p - d**p) ** (1 / p), x) if abs(x) > d else 0.0 for x in theta.flatten().tolist()]
    return torch.tensor(kept, dtype=theta.dtype).reshape(theta.shape)


def st3_reference(theta: Tensor, d: float) -> Tensor:
    rows = []
    for row in theta.tolist():
        alive, whole = sum(abs(x) for x in row if abs(x) > d), sum(map(abs, row))
        factor = 1.01 / ((alive / len(row) + 1e-6) / (whole / len(row) + 1e-6) + 0.01)
        rows.append([factor * math.copysign(max(abs(x) - d, 0.0), x) for x in row])
    return torch.tensor(rows, dtype=theta.dtype)


def cut(values: list[float], sparsity: float) -> float:
    ordered = sorted(values)
    gone = int(sparsity * len(ordered) + 1e-9)
    return (ordered[gone - 1] + ordered[gone]) / 2 if gone else 0.0


@pytest.mark.parametrize("name", ["power:pruned_gradient=0.25", "power:p=1.5", "st3"])
def test_ten_steps_agree_with_the_slow_reference(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(12, 8, bias=False).double()
    inputs, goal = torch.randn(10, 16, 12).double(), torch.randn(10, 16, 8).double()
    theta = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    pruner = thresher.prune(model, optimizer, name, "sparsity=75%", steps=10)
    d, p = 0.0, 1.5 if "1.5" in name else 3.0
    for step in range(1, 11):
        w = (power_reference(theta, d, p) if name != "st3" else st3_reference(theta, d)) if d else theta.clone()
        w.requires_grad_()
        ((inputs[step - 1] @ w.T - goal[step - 1]) ** 2).sum().div(16).backward()
        factor = torch.where(theta.abs() > d, 1.0, 0.25 if "gradient" in name else 1.0)
        assert w.grad is not None
        theta = theta - 0.05 * factor * w.grad
        fraction = 1 - (1 - min(step / 5, 1)) ** 3
        d = cut(theta.abs().flatten().tolist(), int(fraction * 72 + 1e-9) / 96)

        optimizer.zero_grad()
        ((model(inputs[step - 1]) - goal[step - 1]) ** 2).sum().div(16).backward()
        optimizer.step()
        torch.testing.assert_close(
            latent(pruner.targets[0]).detach(), theta, rtol=1e-5, atol=1e-6
        )  # quantiles are taken in float32
        assert pruner.process.thresholds()[0] == pytest.approx(d, rel=1e-6)
    assert pruner.finish().zeros == 72


@pytest.mark.parametrize("name", ["power", "st3"])
def test_sparsity_follows_the_cubic_curve_and_stays_at_its_end(name: str) -> None:
    bench = Bench(name, "sparsity=80%")
    for step in range(STEPS):
        bench.train(step, step + 1)
        asked = 0.8 * Cubic()(min((step + 1) / 6, 1.0))
        assert bench.pruner.sparsity == pytest.approx(asked, abs=0.01)


def test_entries_regrow_until_the_support_is_frozen() -> None:
    supports = []
    bench = Bench("power:end=0.25,settle=0.75,p=1")
    for step in range(STEPS):
        bench.train(step, step + 1)
        supports.append(torch.cat([(effective(target) != 0).flatten() for target in bench.pruner.targets]))
    before, after = supports[4:9], supports[8:]
    assert any(bool((new & ~old).any()) for old, new in itertools.pairwise(before))
    assert all(torch.equal(after[0], other) for other in after)
    report = bench.finish()
    assert (report.zeros, report.entries) == zeros_of(bench.pruner)


def gradient_factor(budget: str, **more: Any) -> float:
    """The factor on pruned entries, read off the operator at work."""
    bench = Bench("power", budget, more=more).train(0, 3)
    operator = bench.pruner.process.shell(0).operator  # type: ignore[attr-defined]
    assert operator.func is power_threshold
    return float(operator.keywords["pruned_gradient"])


def test_pruned_entries_keep_their_gradient_up_to_95_percent_and_half_of_it_above() -> None:
    assert gradient_factor("sparsity=95%") == 1.0
    assert gradient_factor("sparsity=96%") == 0.5
    assert gradient_factor("flops=50%") == 1.0


def test_an_explicit_factor_stands() -> None:
    bench = Bench("power:pruned_gradient=0", "sparsity=97%").train(0, 2)
    assert bench.pruner.process.shell(0).operator.keywords["pruned_gradient"] == 0  # type: ignore[attr-defined]


def test_sigma_scope_lowers_the_threshold_of_wide_tensors() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 92))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    pruner = thresher.prune(model, optimizer, "st3:scope=sigma", "sparsity=60%", steps=2)
    for _ in range(2):
        model(torch.randn(4, 8)).square().mean().backward()
        optimizer.step()
    narrow, wide = pruner.process.thresholds()
    assert wide / narrow == pytest.approx(math.sqrt(16 / 100))
    assert pruner.finish().zeros == int(0.6 * (64 + 736))


def test_without_the_factor_st3_is_the_soft_threshold_on_a_quantile() -> None:
    one, other = Bench("st3:rescale=false").train(), Bench("power:p=1").train()
    for a, b in zip(one.pruner.targets, other.pruner.targets, strict=True):
        torch.testing.assert_close(effective(a), effective(b), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "text",
    ["power:p=0.5", "power:p=nan", "power:end=0", "power:end=0.9,settle=0.5", "power:updates=0", "st3:scope=all"],
)
def test_settings_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        thresher.prune(nn.Linear(4, 4), None, text, "sparsity=50%")


def test_a_budget_is_needed() -> None:
    model = nn.Linear(4, 4)
    with pytest.raises(BudgetError):
        thresher.prune(model, torch.optim.SGD(model.parameters(), lr=0.1), thresher.Power(), None, steps=4)
