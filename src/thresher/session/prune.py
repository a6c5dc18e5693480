"""`thresher.prune`: attach a method to a model and an optimizer; the loop stays the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from thresher.budget.language import Budget
from thresher.contracts import Method
from thresher.methods import parse_method
from thresher.operators import Groups, parse_groups
from thresher.session.forecast import LrSchedule
from thresher.session.latency import Clock
from thresher.session.pruner import Pruner
from thresher.targets import Rule, parse_rule


def prune(
    model: nn.Module,
    optimizer: Optimizer | None,
    method: Method | str,
    budget: str | Mapping[str, object] | Budget | None = None,
    *,
    steps: int = 0,
    rules: Sequence[Rule | str] = (),
    groups: str | Groups = "weight",
    start: int | float = 0,
    example: Any = None,
    engine: str | Clock | None = None,
    lr_schedule: LrSchedule | None = None,
    record: dict[str, Any] | None = None,
) -> Pruner:
    """Prune `model` by `method` to `budget` while the user's own loop trains it; `finish()` ends it exactly there.

    Args:
        model: any module; convolution and linear weights are prunable unless `rules` say otherwise.
        optimizer: the optimizer that trains it. None without `steps`: one shot. None with `steps`: it comes later, and
            is the one that `pruner.follow(optimizer)` names, or else the first to step that holds these weights.
        method: e.g. `thresher.Lats()`, or its text form.
        budget: e.g. "sparsity=90%", "flops=25%,bytes=500KB"; see `thresher.Budget`.
        steps: optimizer steps of the whole run, from this call on.
        rules: `thresher.include/exclude/dense/bound(...)` or their text forms; later ones win.
        groups: what is pruned as one: "weight", "2:4", "block:4x1", "row", "column", "kernel".
        start: where pruning begins: a step number, or a share of the run when it is a float below 1.
        example: one batch of inputs. Needed for `flops=` with one-shot methods; otherwise output positions are
            noted during the first forward pass. `latency=` times the network on it.
        engine: for `latency=`: "thresher", the sparse engine on this machine's CPU. Layers are timed once at several
            shares of zeros and kept on disk; or a `thresher.session.Clock` of your own.
        lr_schedule: the scheduler (or rates) that the loop will follow, see `thresher.session.forecast`; lets the
            controller hold the L1 coefficient constant. The scheduler itself is not touched.
        record: JSON object that will be saved beside the weights; its size counts towards `bytes=`.

    Returns: a `Pruner`. The modules stay the model's own; prunable weights are read through the method's operator.
    Errors: InputError, BudgetError, StateError, each saying what to do.

    >>> model = nn.Linear(8, 4)
    >>> print(prune(model, None, "magnitude", "sparsity=75%").finish().zeros)
    24
    """
    return Pruner(
        model,
        optimizer,
        parse_method(method),
        None if budget is None else Budget.parse(budget),
        steps=steps,
        rules=[parse_rule(rule) if isinstance(rule, str) else rule for rule in rules],
        groups=parse_groups(groups) if isinstance(groups, str) else groups,
        start=start,
        example=example,
        engine=engine,
        lr_schedule=lr_schedule,
        record=record,
    )
