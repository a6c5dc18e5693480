"""Which optimizer moves the thresholds: named at the start, later, or met when it first steps."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from thresher.attach import exchange, latent
from thresher.contracts import Job, Process
from thresher.errors import InputError, StateError
from thresher.session.checks import groups_of, leading_group, unwrapped
from thresher.session.forecast import LrSchedule, forecast

if TYPE_CHECKING:
    from thresher.session.pruner import Pruner


def begin(pruner: Pruner) -> Process:
    """The method at its beginning; the forecast is the optimizer's, or a placeholder while there is none."""
    rates = [1.0] * pruner.steps
    if pruner._optimizer is not None:
        group = leading_group(pruner._optimizer, pruner.targets)
        rates = forecast(pruner._optimizer, pruner.steps, pruner._lr_schedule, group)
    job = Job(
        targets=pruner.targets,
        groups=pruner.groups,
        steps=pruner.steps - pruner._start,
        forecast=rates[pruner._start :],
        planner=pruner.planner,
        model=pruner.model,
        optimizer=pruner._optimizer,
    )
    return pruner.method.begin(job)


def take_up(pruner: Pruner, optimizer: Optimizer, lr_schedule: LrSchedule | None) -> None:
    """Let the steps of `optimizer` move the thresholds; see `Pruner.follow`."""
    if not pruner.steps:
        raise StateError(
            "follow() on a run without steps",
            "a run in training",
            "call thresher.prune(model, None, method, budget, steps=...) first",
        )
    found = unwrapped(optimizer)
    if found is None:
        raise InputError("follow(None)", "an optimizer", "pass the one that the trainer steps")
    groups_of(found, pruner.targets)
    other = found is not pruner._optimizer
    replaced = other and pruner._optimizer is not None
    if lr_schedule is not None or (replaced and _belongs_to_an_optimizer(pruner._lr_schedule)):
        pruner._lr_schedule = lr_schedule
    if other or (lr_schedule is not None and not pruner.step):
        pruner._optimizer, pruner._group_sizes = found, []
        _begin_again(pruner)
    # Last, since a state that came with the optimizer is taken up here.
    pruner._listener.follow(found)


def _belongs_to_an_optimizer(lr_schedule: LrSchedule | None) -> bool:
    return isinstance(lr_schedule[0] if isinstance(lr_schedule, tuple) and lr_schedule else lr_schedule, LRScheduler)


def _begin_again(pruner: Pruner) -> None:
    """A process that knows the new optimizer; what it had learned by now moves along, as it does into a resumed run."""
    state = pruner.process.state_dict() if pruner.step else None
    inherit = state is not None or _loaded_halfway(pruner) is not None
    pruner.process = begin(pruner)
    for number, target in enumerate(pruner.targets):
        exchange(target, pruner.process.shell(number), inherit=inherit)
    if state is not None:
        pruner.process.load_state_dict(state)
    elif pruner._start == 0:
        pruner.process.advance(0, [0.0] * len(pruner.targets))


def meet(pruner: Pruner, optimizer: Optimizer) -> None:
    """Follow an optimizer that is about to step, if it trains one of the tensors to prune."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if any(id(latent(target)) in held for target in pruner.targets):
        take_up(pruner, optimizer, None)


def _loaded_halfway(pruner: Pruner) -> str | None:
    """A tensor with a threshold that this pruner knows nothing of: its model was loaded from the middle of a run."""
    for number, held in enumerate(pruner.process.thresholds()):
        threshold = getattr(pruner.process.shell(number), "threshold", None)
        if held == 0 and threshold is not None and float(threshold) > 0:
            return pruner.targets[number].name
    return None


def check_whole(pruner: Pruner) -> None:
    """Refuse the first step on a model from the middle of a run. Errors: StateError."""
    if (name := _loaded_halfway(pruner)) is not None:
        raise StateError(
            f"a model with a threshold at work in {name}, and a pruner at its first step",
            "both from the same checkpoint",
            "load the optimizer's state too, once the pruner follows it; or call pruner.load_state_dict(state)",
        )


def warn_if_unheard(pruner: Pruner) -> None:
    """Say so when the run is over and no step was ever heard: then the budget is met in one shot."""
    if not pruner.steps or pruner.step:
        return
    name = "any optimizer" if pruner._optimizer is None else f"the {type(pruner._optimizer).__name__} that it follows"
    warnings.warn(
        f"given: a run of {pruner.steps} steps that heard none from {name}\n"
        "expected: an optimizer that holds the model's parameters, stepping\n"
        "do: pass the optimizer that your trainer really steps, or call pruner.follow(optimizer) when it is made; "
        "the weights are now cut to the budget in one shot",
        stacklevel=3,
    )
