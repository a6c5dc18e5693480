"""`thresher.shrink`: a new, physically smaller network from a trained one and unlabeled inputs."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn

from thresher.budget.language import Amount, Budget
from thresher.errors import BudgetError, InputError
from thresher.recovery.moments import inputs_of, placed
from thresher.shrinking.allocation import Option, allocate, uniform
from thresher.shrinking.choosing import Choice, candidates
from thresher.shrinking.costs import Costs
from thresher.shrinking.layers import MOST_ROWS, gather, write
from thresher.shrinking.predicting import Curve, between, curve_of, gains
from thresher.shrinking.report import ShrinkReport
from thresher.shrinking.reporting import group_report, whole_report
from thresher.shrinking.selections import Selection, View, parse_selection
from thresher.structure import LeftWhole, ShrinkPlan, coupled_groups, proven
from thresher.targets import Rule, parse_rule


@dataclass(frozen=True, eq=False)
class Shrunk:
    """model: the smaller network, with refitted weights. plan: what was cut, replayable on a fresh dense network.
    report: what it costs and how far it is off."""

    model: nn.Module
    plan: ShrinkPlan
    report: ShrinkReport


def shrink(model: nn.Module, method: Selection | str = "ispasp", budget: Any = None, **options: Any) -> nn.Module:
    """The model of `shrink_plan(model, method, budget, ...)`: new and smaller; the old one is left as it is."""
    return shrink_plan(model, method, budget, **options).model


def shrink_plan(
    model: nn.Module,
    method: Selection | str = "ispasp",
    budget: str | Mapping[str, object] | Budget | None = None,
    *,
    calibration: Iterable[Any],
    keep: Mapping[str, int | float] | None = None,
    example: Any = None,
    rules: Sequence[Rule | str] = (),
    round_to: int = 1,
    scope: str = "inside",
    allocation: str = "residual",
    limit: int | None = None,
    most_rows: int = MOST_ROWS,
) -> Shrunk:
    """Choose hidden units layer by layer on inputs of the already pruned prefix, cut them out, and say what it cost.

    Args:
        method: `thresher.ISpaSP(...)` or a name: ispasp, gfs, greedy, omp, l1, l2, bn-scale, random.
        budget: "flops=50%", "params=...", "bytes=...", alone or several; shares are of the dense network.
        calibration: batches of inputs (tensors, (inputs, labels), or mappings); labels are not used. One that can be
            gone through again is read once for every group; an iterator is read once, on the dense network.
        keep: instead of a budget or beside it, layer pattern to units (int) or share (float) to keep.
        example: one batch for tracing; default: the first of `calibration`.
        rules: `thresher.exclude/dense/bound/include(...)` on the layers that make units.
        round_to: sizes are multiples of it. scope: "inside" leaves residual streams, "across" cuts them too.
        allocation: "residual" (least predicted output error) or "uniform" (the same share everywhere).
        limit: at most that many batches. most_rows: largest C over channel-taps; beyond, channels only.

    Errors: InputError, BudgetError, StateError, MissingExtraError, each saying what to do.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> shrink_plan(net, "ispasp", "flops=50%", calibration=[torch.randn(32, 4)]).model[0].out_features
    4
    """
    selection = parse_selection(method)
    asked = None if budget is None else Budget.parse(budget)
    if asked is not None and asked.sparsity is not None:
        raise BudgetError(f"sparsity in {asked}", "flops, params or bytes", "smaller layers have no zeros: use params=")
    if asked is None and not keep:
        raise BudgetError("no budget", 'budget="flops=50%", or keep={...}', "say how small the network shall be")
    if allocation not in ("residual", "uniform"):
        raise InputError(f"allocation={allocation!r}", "'residual' or 'uniform'", "correct allocation")
    data, first, once = _opened(calibration, model)
    example = first if example is None else example
    found, untraced = coupled_groups(model, example)
    good, bad = proven(model, example, found)
    parsed = [parse_rule(rule) if isinstance(rule, str) else rule for rule in rules]
    choices, left = candidates(model, good, rules=parsed, keep=keep, round_to=round_to, scope=scope)
    costs = Costs(model, example, [choice.group for choice in choices])
    limits = _limits(asked, costs)
    free = asked is not None and any(len(choice.sizes) > 1 for choice in choices)
    gathered = curves = None
    factors: dict[str, Curve] = {}
    if once or (free and allocation == "residual"):
        gathered = gather(model, [choice.group for choice in choices], data, most_rows=most_rows, limit=limit)
    if free and allocation == "residual":
        assert gathered is not None
        factors = gains(copy.deepcopy(model), first, choices, gathered, selection)
        curves = {
            name: curve_of(
                gathered[name].problem, selection, View(model, choice.group), choice.sizes, refits=selection.debias
            )
            for choice in choices
            for name in [choice.group.name]
        }
    sizes = _sizes(choices, limits, costs, curves, factors)
    working = copy.deepcopy(model)
    reports = []
    plans = []
    for choice in choices:
        group, size = choice.group, sizes[choice.group.name]
        if size >= group.units:
            plans.append(group.plan(range(group.units)))
            continue
        if once:
            assert gathered is not None
            seen = gathered[group.name]
        else:
            seen = gather(working, [group], data, most_rows=most_rows, limit=limit)[group.name]
        recovery = selection.recover(seen.problem, [size], View(working, group))[size]
        refitted = write(working, group, seen.problem, recovery, debias=selection.debias, taps=seen.taps)
        plans.append(group.plan(recovery.support.tolist()))
        curve = None if curves is None else curves[group.name]
        reports.append(group_report(group, seen, recovery, curve, factors.get(group.name), refitted))
    plan = ShrinkPlan(model=type(model).__name__, groups=tuple(plans))
    small = plan.apply(working)
    notes = ["moments of the dense network for every layer: calibration can be read only once"] if once else []
    report = whole_report(
        method=repr(selection),
        asked="" if asked is None else str(asked),
        keep=keep,
        dense=model,
        small=small,
        inputs=first,
        groups=reports,
        left=[*untraced, *bad, *left],
        costs=(costs.of(sizes), costs.of({})),
        readers={group.name: group.readers for group in good},
        notes=notes,
    )
    return Shrunk(small, plan, report)


def _opened(calibration: Iterable[Any], model: nn.Module) -> tuple[Iterable[Any], Any, bool]:
    """The batches, the inputs of the first one on the model's device, and whether they can be read only once."""
    if isinstance(calibration, (torch.Tensor, Mapping)):
        calibration = [calibration]
    once = isinstance(calibration, Iterator)
    batches = iter(calibration)
    try:
        head = next(batches)
    except StopIteration:
        raise InputError(
            "no batches", "at least one batch of inputs", "pass a loader that is not empty or used up"
        ) from None
    place = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    return (chain([head], batches) if once else calibration), placed(inputs_of(head), place), once


def _limits(budget: Budget | None, costs: Costs) -> dict[str, float]:
    whole = costs.of({})
    amounts: dict[str, Amount | None] = (
        {} if budget is None else {"flops": budget.flops, "params": budget.params, "bytes": budget.bytes}
    )
    return {name: amount.limit(whole[name]) for name, amount in amounts.items() if amount is not None}


def _sizes(
    choices: Sequence[Choice],
    limits: Mapping[str, float],
    costs: Costs,
    curves: Mapping[str, Curve] | None,
    factors: Mapping[str, Curve],
) -> dict[str, int]:
    options = []
    for choice in choices:
        name = choice.group.name
        gain = factors.get(name, {1: 1.0})
        # A group that the output does not feel still prefers to lose the units that matter less.
        errors = [
            0.0 if curves is None else max(between(gain, size), 1e-9) * between(curves[name], size)
            for size in choice.sizes
        ]
        options.append(Option(name=name, sizes=choice.sizes, errors=tuple(errors)))
    return allocate(options, limits, costs.of) if curves is not None else uniform(options, limits, costs.of)


__all__ = ["LeftWhole", "Shrunk", "shrink", "shrink_plan"]
