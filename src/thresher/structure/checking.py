"""Does a group really come apart? Units are cut out for a trial: the network has to run and to say what it should."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from thresher.budget.counts import call, eval_mode
from thresher.structure.cutting import Taken, cut_module
from thresher.structure.groups import CoupledGroup, LeftWhole
from thresher.structure.masking import picked, silenced
from thresher.structure.trying import cut_for_a_trial, few, put_back, watched

# Largest difference at what the readers see, as a share of the largest value there: rounding stays far below.
TOLERANCE = 1e-4
FEW = 8


def first_tensor(output: Any) -> Tensor:
    """The first floating-point tensor of a model's output."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if hasattr(output, "values") else output
    for value in values if isinstance(values, (list, tuple)) or hasattr(values, "__iter__") else ():
        if isinstance(value, (Tensor, list, tuple)) or hasattr(value, "values"):
            return first_tensor(value)
    raise TypeError(f"no tensor in an output of type {type(output).__name__}")


def proven(
    model: nn.Module, example: Any, groups: Sequence[CoupledGroup]
) -> tuple[list[CoupledGroup], list[LeftWhole]]:
    """The groups that survive the test, and those that do not, with the reason.

    A graph can be wrong about a reshape into heads or a shift of channels, and a rule about the layout of a fused
    layer. So, except where a group is `proven` already, a random half of its units is cut out, of few units also the
    last one alone: the network must run, give outputs of the same shape, and show every layer that reads the group,
    and its caller, the values of a network whose readers see zero there. Where a norm runs over the units, a cut
    changes what is left, so there the units are put in another order everywhere instead: readers must see them in that
    order, and the caller no difference.
    `model` is changed for the time of the trial and put back.
    """
    example = few(model, example)
    reasons = _sifted(model, example, [group for group in groups if not group.proven])
    good = [group for group in groups if not reasons.get(group)]
    return good, [LeftWhole(group.name, reasons[group]) for group in groups if reasons.get(group)]


def _sifted(model: nn.Module, example: Any, groups: Sequence[CoupledGroup]) -> dict[CoupledGroup, str]:
    """Group to why it cannot be cut, for those that cannot. All are tried at once, and by halves where that fails."""
    together = [group for group in groups if group.exact and group.units > 1]
    alone = [group for group in groups if group not in together]
    found = {group: trouble(model, example, group) for group in alone}
    if len(together) == 1:
        found[together[0]] = trouble(model, example, together[0])
    elif together and not together_sound(model, example, together):
        half = len(together) // 2
        found |= _sifted(model, example, together[:half]) | _sifted(model, example, together[half:])
    return {group: reason for group, reason in found.items() if reason}


def together_sound(model: nn.Module, example: Any, groups: Sequence[CoupledGroup]) -> bool:
    """Whether all `groups`, none with a norm over its units, come apart when many are cut at once.

    Groups that must be cut alike, as heads that share one table of positions, would pass if they were. So every other
    one is cut while those between stay whole, and each loses units of its own.
    """
    keeps = [_keeps(group, seed) for seed, group in enumerate(groups)]
    for part in (slice(0, None, 2), slice(1, None, 2)):
        for number in range(max(map(len, keeps[part]), default=0)):
            if _trial(model, example, groups[part], [keep[min(number, len(keep) - 1)] for keep in keeps[part]]):
                return False
    return True


def trouble(model: nn.Module, example: Any, group: CoupledGroup) -> str:
    """Why the group cannot be cut; empty when it can."""
    if group.units < 2:
        return "a single unit"
    return next(filter(None, (_trial(model, example, [group], [keep]) for keep in _keeps(group))), "")


def _keeps(group: CoupledGroup, seed: int = 0) -> list[list[int]]:
    # A shuffle leaves the first and the last channel where they are, a flip changes ends: a random half shows both.
    # With few units it can be blind.
    half = sorted(_shuffled(group.units, seed)[: group.units // 2])
    return [half] if group.units > FEW else [half, list(range(group.units - 1))]


def _shuffled(units: int, seed: int = 0) -> list[int]:
    order: list[int] = torch.randperm(units, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def _trial(model: nn.Module, example: Any, groups: Sequence[CoupledGroup], keeps: Sequence[Sequence[int]]) -> str:
    try:
        with cut_for_a_trial(model, groups, keeps) as kept, watched(model, groups) as cut_inputs:
            cut = _output(model, example)
    except Exception as error:
        words = str(error).splitlines()[0] if str(error) else ""
        return f"the cut network does not run ({type(error).__name__}: {words})"
    if not all(group.exact for group in groups):
        return _reordered(model, example, groups[0], cut)
    with ExitStack() as stack:
        inputs = stack.enter_context(watched(model, groups))
        for group, keep in zip(groups, keeps, strict=True):
            stack.enter_context(silenced(model, group, keep))
        masked = _output(model, example)
    if cut.shape != masked.shape:
        return "the cut changes the shape of the output"
    for name in dict.fromkeys(member.module for group in groups for member in group.readers):
        if name not in inputs:
            return f"{name} is not called as a layer, so what it reads cannot be seen"
        if not _alike(cut_inputs[name], picked(model.get_submodule(name), inputs[name], kept[name, "in"])):
            return f"{name} reads other values after the cut: the coupling is not what it seems"
    if not _alike(cut, masked):
        return "the cut network does not equal one whose readers see zero: the coupling is not what it seems"
    return ""


def _reordered(model: nn.Module, example: Any, group: CoupledGroup, cut: Tensor) -> str:
    with watched(model, [group]) as inputs:
        whole = _output(model, example)
    if cut.shape != whole.shape:
        return "the cut changes the shape of the output"
    order = _shuffled(group.units)
    with put_back(model, [group]), torch.no_grad():
        taken: Taken = {}
        for name in dict.fromkeys(member.module for member in group.members):
            axes = {member.axis: member.ordered(order) for member in group.members if member.module == name}
            cut_module(name, model.get_submodule(name), axes, taken)
        with watched(model, [group]) as moved:
            other = _output(model, example)
    for member in group.readers:
        if member.module not in inputs:
            return f"{member.module} is not called as a layer, so what it reads cannot be seen"
        wanted = picked(model.get_submodule(member.module), inputs[member.module], member.ordered(order))
        if not _alike(moved[member.module], wanted):
            return f"{member.module} reads other values when units change places: the coupling is not what it seems"
    return (
        "" if _alike(other, whole) else "the output changes when units change places: the coupling is not what it seems"
    )


def _output(model: nn.Module, example: Any) -> Tensor:
    with torch.no_grad(), eval_mode(model):
        return first_tensor(call(model, example))


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    scale = float(other.abs().max()) if other.numel() else 0.0
    share = max(TOLERANCE, 16 * torch.finfo(other.dtype).eps) if other.is_floating_point() else 0.0
    return torch.allclose(one, other, rtol=0, atol=share * scale, equal_nan=True)
