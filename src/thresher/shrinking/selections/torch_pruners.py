"""Torch-pruning's own pruners, called as they are: they choose the units, and the frame cuts and reports them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import nn

from thresher.budget.counts import call
from thresher.budget.language import Budget
from thresher.errors import BudgetError, InputError, require
from thresher.shrinking.allocation.costs import Costs
from thresher.shrinking.calibration import opened
from thresher.shrinking.selections.given import Given
from thresher.shrinking.selections.taylor import Loss, accumulate_gradients
from thresher.shrinking.verb import Shrunk, shrink_plan
from thresher.structure import CoupledGroup, coupled_groups, proven
from thresher.structure.cutting import axis_of, width_of

KINDS = ("tp-magnitude", "tp-bn-scale", "tp-taylor", "tp-group-norm", "tp-random")
_STEPS = 10
Kept = dict[str, tuple[int, ...]]


def torch_pruned(
    model: nn.Module,
    kind: str,
    budget: str | Mapping[str, object] | Budget,
    *,
    calibration: Iterable[Any],
    loss: Loss | None = None,
    example: Any = None,
    scope: str = "across",
    global_pruning: bool = False,
    debias: bool = False,
    limit: int | None = None,
) -> Shrunk:
    """Shrink by a pruner of torch-pruning, at the smallest pruning ratio that meets the budget.

    Its importance and its pruner choose the units, with its defaults; the plan, the cut and the report are ours. Groups
    that our frame leaves whole are left whole here too, and so are the model's outputs.

    Args:
        kind: "tp-magnitude" (MagnitudePruner), "tp-bn-scale" (BNScalePruner), "tp-taylor" (BasePruner with
            TaylorImportance, from the gradient of `loss` on labelled calibration batches), "tp-group-norm"
            (GroupNormPruner), "tp-random".
        loss: for "tp-taylor", as in `Taylor`. scope: as in `shrink_plan`; torch-pruning itself cuts across.
        global_pruning: rank units over all layers instead of taking the same share of each.
        debias: refit what reads the units afterwards, which torch-pruning does not do.

    Errors: those of `shrink_plan`; BudgetError when no pruning ratio meets the budget.
    """
    if kind not in KINDS:
        raise InputError(f"method {kind!r}", f"one of {', '.join(KINDS)}", "correct the name")
    library = require("torch_pruning", "structured", "pruners of torch-pruning")
    asked = Budget.parse(budget)
    if asked.sparsity is not None or asked.latency is not None:
        raise BudgetError(f"a budget of {asked}", "flops=, params= or bytes=", "use one of these, or thresher.shrink")
    data = list(islice(calibration, limit))
    example = opened(data, model).example if example is None else example
    groups = proven(model, example, coupled_groups(model, example)[0])[0]
    costs = Costs(model, example, groups)
    whole = costs.of({})
    amounts = {"flops": asked.flops, "params": asked.params, "bytes": asked.bytes}
    limits = {name: amount.limit(whole[name]) for name, amount in amounts.items() if amount is not None}
    weighed = copy.deepcopy(model)
    if kind == "tp-taylor":
        for parameter in weighed.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
            parameter.grad = None
        accumulate_gradients(weighed, data, loss)
    # Its pruners cut the width of attention heads, not heads.
    cuttable = [group for group in groups if group.kind == "units" and (scope == "across" or not group.across)]

    def kept_at(ratio: float) -> Kept:
        return _kept(library, weighed, example, kind, ratio, global_pruning, cuttable)

    def fits(kept: Kept) -> bool:
        now = costs.of({name: len(units) for name, units in kept.items()})
        return all(now[name] <= limit for name, limit in limits.items())

    # Beyond that ratio torch-pruning leaves the narrowest layer whole, rather than without a channel.
    most = 1 - (1 + 1e-6) / min((group.units for group in cuttable), default=2)
    keep = _smallest_ratio(kept_at, fits, most, str(asked))
    found = shrink_plan(
        model,
        Given(keep=keep, label=kind, debias=debias),
        keep={name: len(units) for name, units in keep.items()},
        calibration=data,
        example=example,
        scope=scope,
    )
    return replace(found, report=replace(found.report, asked=str(asked)))


def _smallest_ratio(kept_at: Callable[[float], Kept], fits: Callable[[Kept], bool], most: float, asked: str) -> Kept:
    """Bisection: the cost falls with the ratio. Errors: BudgetError when even the largest does not do."""
    low, high = 0.0, most
    best = kept_at(high)
    if not fits(best):
        raise BudgetError(
            f"a budget of {asked}",
            f"one that the largest pruning ratio, {most:.2f}, meets: the narrowest layer has a single channel then",
            "loosen it, let more layers be cut (scope='across'), or use a method with its own split over layers",
        )
    for _ in range(_STEPS):
        middle = (low + high) / 2
        kept = kept_at(middle)
        if fits(kept):
            best, high = kept, middle
        else:
            low = middle
    return best


def _kept(
    library: Any,
    weighed: nn.Module,
    example: Any,
    kind: str,
    ratio: float,
    global_pruning: bool,
    groups: Sequence[CoupledGroup],
) -> Kept:
    """The units of each group that a pruner of torch-pruning leaves at `ratio`."""
    twin = copy.deepcopy(weighed)
    for parameter, old in zip(twin.parameters(), weighed.parameters(), strict=True):
        parameter.grad = old.grad  # a deep copy has none
        parameter.requires_grad_(parameter.is_floating_point())
    alive: dict[tuple[str, str], list[int]] = {}
    names = {module: name for name, module in twin.named_modules()}
    for group in _pruner(library, twin, example, kind, ratio, global_pruning, groups).step(interactive=True):
        for (name, axis), gone in _indices(group, names).items():
            width = width_of(twin.get_submodule(name), axis)
            if width is not None:
                before = alive.setdefault((name, axis), list(range(width)))
                alive[name, axis] = [index for place, index in enumerate(before) if place not in gone]
        group.prune()
    found: Kept = {}
    for each in groups:
        member = next(member for member in each.members if member.module in each.producers and member.axis != "in")
        stay = set(alive.get((member.module, member.axis), range(member.size)))
        found[each.name] = tuple(unit for unit in range(each.units) if set(member.index[unit]) <= stay) or (0,)
    return found


def _indices(group: Any, names: Mapping[Any, str]) -> dict[tuple[str, str], set[int]]:
    """(module, axis) to the indices, as they count at that moment, that the group takes away."""
    found: dict[tuple[str, str], set[int]] = {}
    for item in group.items:
        module = item.dep.target.module
        if module in names:
            side = "in" if item.dep.handler.__name__ == "prune_in_channels" else "out"
            found.setdefault((names[module], axis_of(module, side)), set()).update(int(index) for index in item.idxs)
    return found


def _pruner(
    library: Any,
    twin: nn.Module,
    example: Any,
    kind: str,
    ratio: float,
    global_pruning: bool,
    groups: Sequence[CoupledGroup],
) -> Any:
    importance = library.importance
    makers = {
        "tp-magnitude": (library.pruner.MagnitudePruner, importance.MagnitudeImportance(p=2)),
        "tp-bn-scale": (library.pruner.BNScalePruner, importance.BNScaleImportance()),
        "tp-taylor": (library.pruner.BasePruner, importance.TaylorImportance()),
        "tp-group-norm": (library.pruner.GroupNormPruner, importance.GroupMagnitudeImportance(p=2)),
        "tp-random": (library.pruner.BasePruner, importance.RandomImportance()),
    }
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    cut = {name for group in groups for name in group.producers}
    ignored = [module for name, module in twin.named_modules() if isinstance(module, kinds) and name not in cut]
    maker, score = makers[kind]
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        return maker(
            twin,
            example,
            importance=score,
            global_pruning=global_pruning,
            pruning_ratio=ratio,
            ignored_layers=ignored,
            forward_fn=lambda net, batch: list(_tensors(call(net, batch))),
        )


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        if output.grad_fn is not None:
            yield output
        return
    values = output.values() if hasattr(output, "values") else output if isinstance(output, (list, tuple)) else ()
    for value in values:
        yield from _tensors(value)
