"""Accelerate: prepared models and wrapped optimizers, accumulated gradients, checkpoints."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from trainer_bench import (
    BUDGET,
    CLIP,
    EPOCHS,
    METHODS,
    STEPS,
    Outcome,
    check_same,
    decayed,
    loader,
    net,
    outcome,
    plain_run,
)

import thresher
from thresher.session import Pruner

accelerate = pytest.importorskip("accelerate")


def begin(method: str, when: str) -> tuple[object, nn.Module, object, object, Pruner]:
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = net()
    optimizer = decayed(model)
    pruner = None
    if when == "before":
        pruner = thresher.prune(model, optimizer, method, BUDGET, steps=STEPS)
    model, optimizer, data = accelerator.prepare(model, optimizer, loader(4))
    if pruner is None:
        pruner = thresher.prune(model, optimizer, method, BUDGET, steps=STEPS)
    return accelerator, model, optimizer, data, pruner


def train(accelerator: object, model: nn.Module, optimizer: object, data: object, epochs: int = EPOCHS) -> None:
    for _ in range(epochs):
        for inputs, labels in data:
            with accelerator.accumulate(model):
                accelerator.backward(F.cross_entropy(model(inputs), labels))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
                optimizer.zero_grad()


def accumulated(method: str) -> Outcome:
    model = net()
    optimizer = decayed(model)
    pruner = thresher.prune(model, optimizer, method, BUDGET, steps=STEPS)
    for number, (inputs, labels) in enumerate([*loader(4)] * EPOCHS):
        (F.cross_entropy(model(inputs), labels) / 2).backward()
        if number % 2:
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
    return outcome(pruner)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_prepared_training_is_that_of_a_plain_loop_and_counts_real_steps(method: str, when: str) -> None:
    *rest, pruner = begin(method, when)
    train(*rest)
    assert pruner.step == STEPS
    check_same(outcome(pruner), accumulated(method))


@pytest.mark.parametrize("method", METHODS)
def test_accumulating_is_one_large_batch(method: str) -> None:
    small, large = accumulated(method), plain_run(method)
    assert small.zeros == large.zeros
    assert small.thresholds[-1] == pytest.approx(large.thresholds[-1], rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_saved_state_brings_the_thresholds_along(method: str, when: str, tmp_path: Path) -> None:
    accelerator, *rest, _ = begin(method, when)
    train(accelerator, *rest, epochs=1)
    accelerator.save_state(str(tmp_path / "half"))

    accelerator, *rest, pruner = begin(method, when)
    accelerator.load_state(str(tmp_path / "half"))
    assert pruner.step == STEPS // 2
    train(accelerator, *rest, epochs=1)
    check_same(outcome(pruner), accumulated(method))


def test_a_prepared_scheduler_forecasts_as_its_own() -> None:
    accelerator = accelerate.Accelerator(cpu=True)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    expected = thresher.session.forecast(optimizer, STEPS, scheduler)
    optimizer, prepared = accelerator.prepare(optimizer, scheduler)
    assert thresher.session.forecast(optimizer.optimizer, STEPS, prepared) == expected
