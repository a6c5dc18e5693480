"""The contract suite: every method under autocast, in half and double precision, beside a gradient scaler."""

import copy
import math

import pytest
import torch
from method_bench import NAMES, SOFT, STEPS, Bench, assert_exact, sgd, zeros_of
from torch.optim import Optimizer

every = pytest.mark.parametrize("name", NAMES)


@every
def test_autocast_trains_float32_weights_to_the_exact_budget(name: str) -> None:
    bench = Bench(name)
    for step in range(STEPS):
        bench.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = bench.loss(step)
        loss.backward()
        bench.optimizer.step()
    assert all(parameter.dtype == torch.float32 for parameter in bench.model.parameters())
    assert_exact(bench)


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_a_model_of_any_precision_keeps_it_and_ends_exactly(name: str, dtype: torch.dtype) -> None:
    bench = Bench(name, dtype=dtype).train()
    assert_exact(bench)
    assert {parameter.dtype for parameter in bench.model.parameters()} == {dtype}


@pytest.mark.parametrize("name", SOFT)
def test_thresholds_keep_their_precision_when_the_model_is_cast(name: str) -> None:
    bench = Bench(name).train(0, 1)
    shells = [module.parametrizations.weight[0] for module in bench.model if hasattr(module, "parametrizations")]
    before = [shell.threshold.clone() for shell in shells]
    bench.model.to(torch.bfloat16)
    assert all(shell.threshold.dtype == torch.float32 for shell in shells)
    assert all(torch.equal(shell.threshold, old) for shell, old in zip(shells, before, strict=True))
    assert any(float(old) != float(old.bfloat16()) for old in before)


def tiny(optimizer: Optimizer) -> Optimizer:
    for group in optimizer.param_groups:
        group["lr"] = 1e-6
    return optimizer


@pytest.mark.parametrize("name", SOFT)
def test_in_half_precision_what_is_kept_does_not_underflow(name: str) -> None:
    bench = Bench(name, "sparsity=30%", optimizer_of=lambda model: tiny(sgd(model)))
    with torch.no_grad():
        for parameter in bench.model.parameters():
            parameter.mul_(1e-3)  # many weights are subnormal in float16
    bench.model.half()
    bench.finish()
    zeros, entries = zeros_of(bench.pruner)
    assert zeros == int(0.3 * entries)


OPTIMIZERS = {
    "plain": sgd,
    "fused": lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True),
    "fused adam": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True),
}


@every
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_step_that_the_scaler_skips_moves_nothing(name: str, kind: str) -> None:
    bench = Bench(name, optimizer_of=OPTIMIZERS[kind])
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def step(number: int, factor: float) -> None:
        bench.optimizer.zero_grad()
        scaler.scale(bench.loss(number) * factor).backward()
        scaler.step(bench.optimizer)
        scaler.update()

    for number in range(4):
        step(number, 1.0)
    steps, thresholds = bench.pruner.step, bench.pruner.process.thresholds()
    weights = copy.deepcopy(dict(bench.model.named_parameters()))
    trace = bench.pruner.trace.state_dict()
    step(4, math.inf)
    assert (bench.pruner.step, bench.pruner.process.thresholds()) == (steps, thresholds) == (4, thresholds)
    assert bench.pruner.trace.state_dict() == trace
    assert all(torch.equal(value, weights[key]) for key, value in bench.model.named_parameters())
    step(4, 1.0)
    assert bench.pruner.step == 5
    if name in SOFT and name != "lats-init":  # that one has settled by now
        assert bench.pruner.process.thresholds() > thresholds
    for number in range(5, STEPS):
        step(number, 1.0)
    assert_exact(bench)
