"""Which learning rates are still to come: asked of the scheduler on a stand-in, or assumed."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from thresher.errors import InputError

LrSchedule = LRScheduler | tuple[LRScheduler, int] | Callable[[int], float] | Sequence[float]


def effective_rate(optimizer: Optimizer, group: int, *, peak: bool = False) -> float:
    """eta * (1 - dampening) / (1 - momentum) of a parameter group for SGD, eta for every other optimizer.

    `peak`: with the learning rate that the group was given at first, where a scheduler's warm-up lowered it since.

    >>> layer = torch.nn.Linear(1, 1)
    >>> round(effective_rate(torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9), 0), 6)
    1.0
    """
    options = optimizer.param_groups[group]
    rate = float(options["lr"])
    if peak:
        rate = max(rate, float(options.get("initial_lr", rate)))
    if isinstance(optimizer, SGD) and options["momentum"]:
        rate *= (1 - options["dampening"]) / max(1 - options["momentum"], 1e-6)
    return rate


def forecast(optimizer: Optimizer, steps: int, lr_schedule: LrSchedule | None, group: int = 0) -> list[float]:
    """Expected effective learning rate of each of the next `steps` optimizer steps.

    Args:
        lr_schedule: a torch scheduler that is stepped once per optimizer step; `(scheduler, every)` for one that is
            stepped every so many optimizer steps; a function of the step number; or a list. None: a cosine to zero
            when a scheduler is attached to the optimizer, else a constant rate. Either guess only shapes the
            controller's plan, which is corrected as the real rates show.

    Errors: InputError for a list that is too short, or a rate that is negative or not finite.
    """
    now = effective_rate(optimizer, group, peak=True)
    options = optimizer.param_groups[group]
    lr = max(float(options["lr"]), float(options.get("initial_lr", 0.0)))
    gain = now / lr if lr > 0 else 1.0
    if lr_schedule is None:
        if getattr(optimizer.step, "_wrapped_by_lr_sched", False):
            return [now * 0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
        return [now] * steps
    lr_schedule = getattr(lr_schedule, "scheduler", lr_schedule)  # Accelerate wraps it
    if isinstance(lr_schedule, LRScheduler):
        rates = _simulate(lr_schedule, optimizer, steps, 1, group)
    elif isinstance(lr_schedule, tuple) and len(lr_schedule) == 2 and isinstance(lr_schedule[0], LRScheduler):
        rates = _simulate(lr_schedule[0], optimizer, steps, int(lr_schedule[1]), group)
    elif callable(lr_schedule):
        rates = [float(lr_schedule(step)) for step in range(steps)]
    else:
        rates = [float(rate) for rate in lr_schedule]  # type: ignore[arg-type]
        if len(rates) < steps:
            raise InputError(f"lr_schedule of {len(rates)} rates", f"one for each of {steps} steps", "give them all")
        rates = rates[:steps]
    if not all(0 <= rate < math.inf for rate in rates):
        raise InputError("lr_schedule with a negative or infinite rate", "finite rates, not negative", "correct it")
    return [rate * gain for rate in rates]


def _simulate(scheduler: LRScheduler, optimizer: Optimizer, steps: int, every: int, group: int) -> list[float]:
    """Step a copy of `scheduler` on a stand-in optimizer that holds no weights."""
    stand_in = SGD([{"params": [torch.zeros(1)]} for _ in optimizer.param_groups], lr=1.0)
    for mine, theirs in zip(stand_in.param_groups, optimizer.param_groups, strict=True):
        mine.update({key: copy.copy(value) for key, value in theirs.items() if key != "params"})
    twin = _rehome(scheduler, stand_in)
    rates: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(steps):
            if step and step % every == 0:
                _advance(twin)
            rates.append(float(stand_in.param_groups[group]["lr"]))
    return rates


def _advance(scheduler: Any) -> None:
    try:
        scheduler.step()
    except (TypeError, ValueError) as error:  # it wants a metric, or has come to its end
        raise InputError(
            f"lr_schedule of type {type(scheduler).__name__}, whose rates cannot be told beforehand: {error}",
            "a scheduler that can be stepped for the whole run with nothing but step()",
            "leave lr_schedule out, or give the expected rates as a list",
        ) from error


def _rehome(scheduler: Any, optimizer: Optimizer) -> Any:
    twin = copy.copy(scheduler)
    twin.optimizer = optimizer
    for name, value in vars(scheduler).items():
        if isinstance(value, (list, dict)) and name != "_schedulers":
            setattr(twin, name, copy.copy(value))
    if hasattr(scheduler, "_schedulers"):
        twin._schedulers = [_rehome(child, optimizer) for child in scheduler._schedulers]
    return twin
