"""A `latency=` budget of a model: the table of its layers' times, and the clock that measures the pruned one."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from thresher.budget.counts import overhear
from thresher.budget.language import Budget
from thresher.budget.latency import LatencyCurve, LatencyTable
from thresher.budget.linear import features_of, is_linear
from thresher.budget.planner import Planner
from thresher.deploy.times import EngineClock, LayerCase
from thresher.errors import BudgetError, InputError
from thresher.operators import Groups
from thresher.targets import Target

_SPARSER = 0.9


class Clock(Protocol):
    """Says how long things take: an `EngineClock`, or one of your own."""

    name: str
    threads: int

    def layer(self, case: LayerCase) -> Mapping[float, float]:
        """Seconds by share of zeros, 0 among them; InputError for a layer that it cannot time."""
        ...

    def network(self, model: nn.Module, example: Any) -> float:
        """Seconds of one forward pass."""
        ...


@dataclass(frozen=True)
class Speed:
    """The clock of a run, what it times the network on, and its table."""

    clock: Clock
    example: Any
    table: LatencyTable


def speed_of(
    model: nn.Module,
    targets: Sequence[Target],
    groups: Groups,
    budget: Budget | None,
    engine: str | Clock | None,
    example: Any,
) -> Speed | None:
    """The clock and the table of a still plain model; None without `latency=`.

    Errors: BudgetError when engine or example is missing; InputError for an unknown engine, or one without that limit;
    those of the clock.
    """
    if budget is None or budget.latency is None:
        if engine is not None:
            raise InputError(f"engine={engine!r} without latency=", "a budget such as latency=5ms", "drop engine")
        return None
    if engine is None or example is None:
        missing = " and ".join(name for name, value in (("engine", engine), ("example", example)) if value is None)
        raise BudgetError(
            f"{Budget(latency=budget.latency)} without {missing}",
            "the engine whose time counts, and one batch of inputs to time",
            'pass engine="thresher" (--engine thresher) and example=inputs, or shrink, which makes layers smaller',
        )
    if isinstance(engine, str):
        if engine != "thresher":
            raise InputError(
                f"engine={engine!r}",
                "'thresher': other engines take the same time whatever the zeros",
                "use thresher.shrink for them",
            )
        engine = EngineClock()
    return Speed(engine, example, table_of(model, targets, groups, engine, example))


def table_of(model: nn.Module, targets: Sequence[Target], groups: Groups, clock: Clock, example: Any) -> LatencyTable:
    """Layers timed one by one at several shares of zeros, put together as `rest + scale * layers`.

    Both numbers come from the network itself: timed as it is, and as a copy with 90 % of each target zero by magnitude.
    Layers in a network find other things in the caches than alone, which the scale (from 0.5 to 3) stands for. A target
    whose layers the clock cannot time saves nothing.
    """
    inputs = _inputs_of(model, targets, example)
    curves = [_curve(target, inputs, groups, clock) for target in targets]

    def layers(net: nn.Module) -> float:
        found = 0.0
        for target, curve in zip(targets, curves, strict=True):
            if curve is not None:
                found += curve.at(1 - int(torch.count_nonzero(net.get_parameter(target.name))) / target.numel)
        return found

    dense, alone = clock.network(model, example), layers(model)
    sparse = _sparser(model, targets, groups)
    saved = alone - layers(sparse)
    scale = min(max((dense - clock.network(sparse, example)) / saved, 0.5), 3.0) if saved > 0 else 1.0
    scale = min(scale, dense / alone) if alone > 0 else scale
    curves = [c and replace(c, seconds=tuple(scale * time for time in c.seconds)) for c in curves]
    entries = tuple(target.numel for target in targets)
    return LatencyTable(dense=dense, rest=max(dense - scale * alone, 0.0), entries=entries, curves=tuple(curves))


def _sparser(model: nn.Module, targets: Sequence[Target], groups: Groups) -> nn.Module:
    """A copy with `_SPARSER` of each target zero by magnitude, as far as the rules let it."""
    found = copy.deepcopy(model)
    for target in targets:
        weight = found.get_parameter(target.name).data
        share = min(max(_SPARSER, target.min_sparsity), target.max_sparsity)
        try:
            (keep,) = Planner(Budget(sparsity=share), [target], groups).solve([groups.magnitude(weight)]).keep
        except BudgetError:  # a pattern that has one share of zeros only
            continue
        weight.mul_(keep)
    return found


def _curve(
    target: Target, inputs: Mapping[nn.Module, Sequence[tuple[int, ...]]], groups: Groups, clock: Clock
) -> LatencyCurve | None:
    total: dict[float, float] = {}
    for module, name in target.sites:
        for shape in inputs.get(module, ()):
            case = _case(module, shape, groups) if name == "weight" else None
            try:
                times = None if case is None else clock.layer(case)
            except InputError:
                times = None
            for zeros, seconds in (times or {}).items():
                total[zeros] = total.get(zeros, 0.0) + seconds
    zeros_known = tuple(sorted(total))
    return LatencyCurve(zeros_known, tuple(total[zeros] for zeros in zeros_known)) if total else None


def _case(module: nn.Module, inputs: tuple[int, ...], groups: Groups) -> LayerCase | None:
    found = re.fullmatch(r"block:(\d+)x(\d+)", groups.spelling)
    block = (int(found.group(1)), int(found.group(2))) if found else (1, 1)
    if is_linear(module):
        width, height = features_of(module)
        return LayerCase("linear", (height, width), inputs, block=block)
    if not isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return None
    shape = (module.out_channels, module.in_channels // module.groups, *module.kernel_size)
    padding = module.padding if isinstance(module.padding, str) else tuple(module.padding)
    kind = "conv1d" if isinstance(module, nn.Conv1d) else "conv2d"
    return LayerCase(kind, shape, inputs, module.stride, padding, module.dilation, module.groups, block)


def _inputs_of(model: nn.Module, targets: Sequence[Target], example: Any) -> dict[nn.Module, list[tuple[int, ...]]]:
    """The shape of each input that each module of a target gets in one forward pass."""
    found: dict[nn.Module, list[tuple[int, ...]]] = {}

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            found.setdefault(module, []).append(tuple(args[0].shape))

    modules = {module for target in targets for module, _ in target.sites}
    wanted = [module for module in modules if is_linear(module) or isinstance(module, _ConvNd)]
    handles = [module.register_forward_pre_hook(partial(note)) for module in wanted]
    overhear(model, example, handles)
    return found
