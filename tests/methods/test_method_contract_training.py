"""The contract suite: every method with any optimizer, parameter groups, schedulers, late starts."""

import math
from typing import Any

import pytest
import torch
from method_bench import GRADUAL, NAMES, SCHEDULED, STEPS, Bench, assert_exact, batch, network, sgd, zeros_of
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR, LRScheduler, SequentialLR

import thresher
from thresher.errors import InputError

every = pytest.mark.parametrize("name", NAMES)


def grouped(model: nn.Module) -> Optimizer:
    slow, fast = list(model[:6].parameters()), list(model[6:].parameters())
    return torch.optim.SGD([{"params": slow, "lr": 0.01}, {"params": fast, "lr": 0.05}], momentum=0.9)


@every
@pytest.mark.parametrize(
    "optimizer_of",
    [
        lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
        lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2, amsgrad=True),
        lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True),
        lambda model: torch.optim.RMSprop(model.parameters(), lr=1e-3),
        grouped,
    ],
    ids=["adam", "adamw", "nesterov", "rmsprop", "groups"],
)
def test_any_optimizer_ends_exactly(name: str, optimizer_of: Any) -> None:
    assert_exact(Bench(name, optimizer_of=optimizer_of).train())


@pytest.mark.parametrize("name", [name for name in SCHEDULED if name != "lats-init"])
def test_thresholds_of_parameter_groups_travel_with_their_learning_rates(name: str) -> None:
    bench = Bench(name, optimizer_of=grouped).train(0, 5)
    slow, *_, fast = bench.pruner.process.thresholds()
    assert slow == pytest.approx(fast / 5, rel=1e-9)
    assert slow > 0


def warm_up(optimizer: Optimizer) -> LRScheduler:
    return LambdaLR(optimizer, lambda step: min(step / 4, 1.0))


def restarts(optimizer: Optimizer) -> LRScheduler:
    return CosineAnnealingWarmRestarts(optimizer, T_0=5)


def both(optimizer: Optimizer) -> LRScheduler:
    return SequentialLR(optimizer, [warm_up(optimizer), restarts(optimizer)], milestones=[4])


@every
@pytest.mark.parametrize("make", [warm_up, restarts, both], ids=lambda make: make.__name__)
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
def test_warm_up_and_restarts_end_exactly_and_no_threshold_falls(name: str, make: Any, told: bool) -> None:
    schedulers: list[LRScheduler] = []

    def optimizer_of(model: nn.Module) -> Optimizer:
        optimizer = sgd(model)
        schedulers.append(make(optimizer))
        return optimizer

    model = network()
    optimizer = optimizer_of(model)
    more = {"lr_schedule": schedulers[0]} if told else {}
    pruner = thresher.prune(model, optimizer, name, "sparsity=90%", steps=STEPS, **more)
    last = [0.0] * len(pruner.targets)
    for step in range(STEPS):
        optimizer.zero_grad()
        inputs, labels = batch(step)
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        schedulers[0].step()
        now = pruner.process.thresholds()
        assert all(math.isfinite(value) for value in now)
        if name in SCHEDULED:
            assert all(new >= old for new, old in zip(now, last, strict=True))
        last = now
    pruner.finish()
    zeros, entries = zeros_of(pruner)
    assert zeros == int(0.9 * entries)


def test_a_scheduler_that_needs_a_metric_is_refused_as_a_forecast() -> None:
    model = network()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(InputError, match="ReduceLROnPlateau"):
        thresher.prune(model, optimizer, "lats", "sparsity=90%", steps=5, lr_schedule=scheduler)


@pytest.mark.parametrize("name", GRADUAL)
def test_a_late_start_trains_densely_until_then(name: str) -> None:
    plain = network()
    optimizer = sgd(plain)
    for step in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(batch(step)[0]), batch(step)[1]).backward()
        optimizer.step()
    bench = Bench(name, more={"start": 4}).train(0, 4)
    for key, value in plain.named_parameters():
        where = key.replace(".weight", ".parametrizations.weight.original")
        found = dict(bench.model.named_parameters())
        assert torch.equal(found.get(where, found.get(key)), value), key
    assert torch.equal(bench.output(), plain.eval()(batch(99)[0]))
    assert_exact(bench.train(4))


@pytest.mark.parametrize("name", GRADUAL)
def test_gradients_accumulate_over_several_passes(name: str) -> None:
    bench = Bench(name)
    for step in range(STEPS):
        bench.optimizer.zero_grad()
        for part in range(2):
            bench.loss(2 * step + part).backward()
        bench.optimizer.step()
    assert bench.pruner.positions["3.weight"] == 16.0
    assert_exact(bench)


def test_a_weight_that_becomes_nan_stops_the_finish_and_leaves_the_run_open() -> None:
    bench = Bench("gmp").train()
    target: Tensor = bench.model[9].parametrizations.weight.original
    good = target.detach().clone()
    with torch.no_grad():
        target[0, 0] = math.nan
    with pytest.raises(thresher.NumericsError):
        bench.finish()
    with torch.no_grad():
        target.copy_(good)
    assert_exact(bench)
