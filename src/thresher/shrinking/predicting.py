"""How much each group's output error costs at each size: residual curves, carried to the network's output."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thresher.budget.counts import call, eval_mode
from thresher.recovery import Problem, refit_loss
from thresher.shrinking.choosing import Choice
from thresher.shrinking.layers import Gathered, write
from thresher.shrinking.selections import Selection, View
from thresher.structure import first_tensor

Curve = dict[int, float]
# Shares of a group's units at which the effect on the output is measured, and on how many samples.
PROBES = (0.25, 0.5, 0.75)
SAMPLES = 64


def grid_of(sizes: Sequence[int], rows: int) -> list[int]:
    """The sizes that are worked out: all of up to 64, else some 32 (12 where a refit is large), ends included.

    >>> grid_of(range(1, 101), 100)[:3], len(grid_of(range(1, 101), 100))
    ([1, 5, 9], 26)
    """
    most = 64 if rows <= 1152 else 12
    if len(sizes) <= most:
        return list(sizes)
    step = -(-len(sizes) // (32 if most == 64 else most))
    return sorted({*list(sizes)[::step], sizes[-1]})


def curve_of(problem: Problem, method: Selection, view: View, sizes: Sequence[int], *, refits: bool) -> Curve:
    """Size to ‖V‖²/‖U‖² of what `method` keeps, after the refit when `refits`."""
    rows = max(part.moments.shape[0] for part in problem.parts)
    found = method.recover(problem, grid_of(sizes, rows), view)
    losses = {size: refit_loss(problem, each.support) if refits else each.loss for size, each in found.items()}
    return {size: loss / problem.energy if problem.energy > 0 else 0.0 for size, loss in losses.items()}


def between(curve: Curve, size: int) -> float:
    """The curve at `size`, linear between the sizes that were worked out.

    >>> between({1: 1.0, 3: 0.0}, 2)
    0.5
    """
    known = sorted(curve)
    place = bisect.bisect_left(known, size)
    if place < len(known) and known[place] == size:
        return curve[size]
    low, high = known[max(place - 1, 0)], known[min(place, len(known) - 1)]
    if low == high:
        return curve[low]
    return curve[low] + (curve[high] - curve[low]) * (size - low) / (high - low)


def output_of(model: nn.Module, inputs: Any) -> Tensor:
    """The model's first output tensor on `inputs`, in eval mode, without gradients, float64."""
    with torch.no_grad(), eval_mode(model):
        return first_tensor(call(model, inputs)).to(torch.float64)


def head_of(inputs: Any, count: int) -> Any:
    """The first `count` samples of a batch, tensors along their first axis."""
    if isinstance(inputs, Tensor):
        return inputs[:count]
    if isinstance(inputs, Mapping):
        return {key: head_of(value, count) for key, value in inputs.items()}
    return type(inputs)(head_of(value, count) for value in inputs) if isinstance(inputs, (tuple, list)) else inputs


def gains(
    model: nn.Module,
    inputs: Any,
    choices: Sequence[Choice],
    gathered: Mapping[str, Gathered],
    method: Selection,
) -> dict[str, Curve]:
    """Per group and for a few sizes, (‖f − f'‖/‖f‖)² over ‖V‖²/‖U‖²: measured with only that group cut and refitted.

    Small where later layers forgive an error, large where they do not. One forward pass of up to 64 samples each.
    """
    inputs = head_of(inputs, SAMPLES)
    whole = output_of(model, inputs)
    energy = float(whole.square().sum())
    found: dict[str, Curve] = {}
    for choice in choices:
        group, found_here = choice.group, gathered[choice.group.name]
        problem, taps = found_here.problem, found_here.taps
        sizes = sorted({max(round(group.units * share), 1) for share in PROBES})
        stored = {member.module: model.get_submodule(member.module).weight.detach().clone() for member in group.readers}  # type: ignore[operator]
        for size, recovery in method.recover(problem, sizes, View(model, group)).items():
            refits = method.debias and taps
            loss = refit_loss(problem, recovery.support) if refits else recovery.loss
            share = loss / problem.energy if problem.energy > 0 else 0.0
            try:
                write(model, group, problem, recovery, debias=method.debias, taps=taps)
                change = float((output_of(model, inputs) - whole).square().sum())
            finally:
                with torch.no_grad():
                    for name, weight in stored.items():
                        model.get_submodule(name).weight.copy_(weight)  # type: ignore[union-attr, operator]
            if share > 1e-12 and energy > 0:
                found.setdefault(group.name, {})[size] = change / energy / share
    return found
