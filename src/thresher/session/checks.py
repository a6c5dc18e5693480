"""What `prune` accepts: optimizers and their wrappers, step counts, states of the same run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from thresher.attach import latent
from thresher.errors import InputError, StateError
from thresher.session.forecast import effective_rate
from thresher.targets import Target


def check_identity(state: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Refuse a state that was written by another run. Errors: StateError naming the first difference."""
    for key, value in mine.items():
        if state.get(key) != value:
            raise StateError(
                f"a state with {key}={_short(state.get(key))}",
                f"{key}={_short(value)}, as in this run",
                "resume with the model, method, budget and steps of the interrupted run",
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def unwrapped(optimizer: Optimizer | None) -> Optimizer | None:
    """The optimizer that really steps: Accelerate and others wrap it."""
    while (inner := getattr(optimizer, "optimizer", None)) is not None:
        optimizer = inner
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise InputError(
            f"an optimizer of type {type(optimizer).__name__}",
            "a torch.optim.Optimizer, or None for one shot",
            "pass thresher.prune(model, optimizer, method, budget, steps=...)",
        )
    return optimizer


def groups_of(optimizer: Optimizer, targets: Sequence[Target]) -> list[int]:
    """The optimizer's parameter group of each target. Errors: InputError when it does not hold one."""
    owner = {
        id(parameter): number for number, group in enumerate(optimizer.param_groups) for parameter in group["params"]
    }
    missing = [target.name for target in targets if id(latent(target)) not in owner]
    if missing:
        raise InputError(
            f"an optimizer that does not hold {', '.join(missing[:3])}"
            + (f" and {len(missing) - 3} more" if len(missing) > 3 else ""),
            "an optimizer over the parameters of this very model",
            "make it from model.parameters(), or exclude these tensors by a rule",
        )
    return [owner[id(latent(target))] for target in targets]


def leading_group(optimizer: Optimizer, targets: Sequence[Target]) -> int:
    """The parameter group of a target with the highest learning rate: its thresholds travel fastest."""
    rates = {group: effective_rate(optimizer, group, peak=True) for group in groups_of(optimizer, targets)}
    return max(rates, key=rates.__getitem__)


def checked_steps(steps: int, start: int | float, optimizer: Optimizer | None) -> tuple[int, int]:
    """(steps, first step of pruning), from a step number or a share; steps 0 is one shot."""
    if not isinstance(steps, int) or steps < 0 or (optimizer is not None and not steps):
        raise InputError(f"steps={steps!r}", "the number of optimizer steps of the run", "pass len(loader) * epochs")
    first = round(start * steps) if isinstance(start, float) and start < 1 else int(start)
    if first < 0 or (steps and first >= steps):
        raise InputError(f"start={start!r} of {steps} steps", "a step, or a share, before the end", "start earlier")
    return steps, first


def skipped_by_scaler(optimizer: Optimizer) -> bool:
    """Whether this step does nothing: fused optimizers are called even on infinities, and skip inside."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(torch.as_tensor(found).sum() > 0)
