"""Learning rates still to come: as the scheduler will really give them, without touching it."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim import lr_scheduler as schedules

from thresher.errors import InputError
from thresher.session.forecast import effective_rate, forecast

STEPS = 20


def sgd(lr: float = 0.1, momentum: float = 0.0, **more: float) -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=lr, momentum=momentum, **more)


def real_rates(optimizer: Optimizer, scheduler: schedules.LRScheduler, every: int = 1) -> list[float]:
    found = []
    for step in range(STEPS):
        if step and step % every == 0:
            scheduler.step()
        found.append(effective_rate(optimizer, 0))
        optimizer.step()
    return found


MAKERS = {
    "cosine": lambda o: schedules.CosineAnnealingLR(o, STEPS),
    "steps": lambda o: schedules.MultiStepLR(o, [5, 12], gamma=0.1),
    "warm-up": lambda o: schedules.LambdaLR(o, lambda step: min(step / 5, 1)),
    "restarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, T_0=6),
    "one cycle": lambda o: schedules.OneCycleLR(o, max_lr=0.2, total_steps=STEPS + 1, cycle_momentum=False),
    "sequence": lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o, 0.1, total_iters=5), schedules.CosineAnnealingLR(o, 15)], milestones=[5]
    ),
    "chain": lambda o: schedules.ChainedScheduler(
        [schedules.ExponentialLR(o, 0.9), schedules.LinearLR(o, 0.1, total_iters=5)]
    ),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("done", [0, 3])
def test_the_forecast_is_what_the_scheduler_will_do(name: str, every: int, done: int) -> None:
    optimizer = sgd(momentum=0.5)
    scheduler = MAKERS[name](optimizer)
    for _ in range(done):
        optimizer.step()
        scheduler.step()
    before = copy.deepcopy(scheduler.state_dict())
    if "lr_lambdas" in before:
        before.pop("lr_lambdas")
    if name == "one cycle" and done + (STEPS - 1) // every > STEPS + 1:
        with pytest.raises(InputError, match="OneCycleLR"):
            forecast(optimizer, STEPS, scheduler)
        return
    guess = forecast(optimizer, STEPS, scheduler if every == 1 else (scheduler, every))
    after = scheduler.state_dict()
    for key, value in before.items():
        if key != "_schedulers":
            assert after[key] == value, key
    assert guess == pytest.approx(real_rates(optimizer, scheduler, every), rel=1e-9, abs=1e-15)


def test_without_a_scheduler_the_rate_stays() -> None:
    assert forecast(sgd(0.2, momentum=0.5), 3, None) == pytest.approx([0.4] * 3)


def test_with_an_unknown_scheduler_a_cosine_is_guessed_from_the_peak() -> None:
    optimizer = sgd(0.1)
    schedules.LambdaLR(optimizer, lambda step: min(step / 5, 1))
    assert optimizer.param_groups[0]["lr"] == 0.0
    guess = forecast(optimizer, 10, None)
    assert guess[0] == pytest.approx(0.1)
    assert guess[5] == pytest.approx(0.05)


def test_functions_and_lists_are_rates_too() -> None:
    optimizer = sgd(0.1, momentum=0.9)
    assert forecast(optimizer, 3, lambda step: 0.1 / (step + 1)) == pytest.approx([1.0, 0.5, 1 / 3])
    assert forecast(optimizer, 2, [0.1, 0.2, 0.3]) == pytest.approx([1.0, 2.0])


@pytest.mark.parametrize("rates", [[0.1], [0.1, -0.1], [0.1, math.inf], [0.1, math.nan]])
def test_impossible_rates_are_refused(rates: list[float]) -> None:
    with pytest.raises(InputError):
        forecast(sgd(), 2, rates)


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        (sgd(0.1), 0.1),
        (sgd(0.1, momentum=0.9), 1.0),
        (sgd(0.1, momentum=0.5, dampening=0.5), 0.1),
        (torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=0.1), 0.1),
    ],
)
def test_momentum_multiplies_the_rate_of_sgd(optimizer: Optimizer, rate: float) -> None:
    assert effective_rate(optimizer, 0) == pytest.approx(rate)
